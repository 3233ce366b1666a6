"""Is anything silently wrong? Sites of an opened network against plain hooks, site by site.

Every kept value is looked up in a plain recording of the same forward pass; every residual sum is added up again;
attention patterns are compared with those that the model itself returns on its eager path; writes are compared with a
plain hook that writes the same; and, in a causal model, a later token must leave every earlier row as it was.
"""

from __future__ import annotations

import copy
import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import openwork as ow
from architectures_plain import Place, PlainCall, PlainForward, main_output, multiple, off, tensors
from tiny_base import Tiny

CLOSE = 1e-4
BLOCK = re.compile(r"((?:.*\.)?blocks\.)(\d+)\.(.*)")


@dataclass
class Findings:
    """What the independent check found.

    Args:
        agreed: how many comparisons agreed.
        unverified: sites for which there is no independent counterpart, by kind.
        wrong: disagreements, each as a line.
        failed: writes that raised an error, each as a line.
        notes: what else is worth knowing.
    """

    agreed: int = 0
    unverified: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def judge(self, site: str, what: str, difference: float | None, limit: float = CLOSE) -> None:
        """Count one comparison; None means that there was nothing to compare with."""
        if difference is None:
            self.unverified[re.sub(r".*blocks\.\d+\.", "", site)] += 1
        elif difference <= limit:
            self.agreed += 1
        else:
            self.wrong.append(f"{site}: {what} (off by {difference:.1e})")


class Judge:
    """Compares one opened network with plain torch."""

    def __init__(self, tiny: Tiny, net: Any, seed: int, writes: int):
        self.tiny, self.net, self.count = tiny, net, writes
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.findings = Findings()
        self.hooks_before = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.module.modules())
        with torch.no_grad():
            self.bare = main_output(tiny.module(**tiny.example)).clone()
        self.plain = PlainForward(tiny.module, tiny.example)
        self.run = net.run(tiny.example, keep=list(net.sites))
        self.kept = {name: self.run[name].clone() for name in net.sites}

    def judge(self) -> Findings:
        """Make every comparison."""
        self._unedited()
        members = self._blocks()
        for block, member in members.items():
            self._sums(block, member)
        for name in self.kept:
            self._read(name, members)
        self._patterns()
        self._writes(members)
        self._causality()
        return self.findings

    # -- unedited runs --

    def _unedited(self) -> None:
        """Outputs of unedited runs are those of the bare module."""
        whole = self.net.run(self.tiny.example).logits
        self.exact, self.exact_kept = torch.equal(whole, self.bare), torch.equal(self.run.logits, self.bare)
        self.findings.judge("logits", "an unedited run differs from the bare module", off(whole, self.bare), 0.0)
        self.findings.judge("logits", "keeping every site changes the output", off(self.run.logits, self.bare))

    # -- reads --

    def _blocks(self) -> dict[str, PlainCall | None]:
        """For each block the call that maps its first to its last stream; such calls follow one another."""
        members: dict[str, PlainCall | None] = {}
        previous: dict[str, int] = {}
        for name in self.kept:
            match = BLOCK.fullmatch(name)
            if not match or match[3] != "resid_post":
                continue
            stem = match[1] + match[2]
            inputs = {id(p.call) for p in self._places(stem + ".resid_pre") if p.side == "in"}
            calls = [p.call for p in self._places(name) if p.side == "out" and id(p.call) in inputs]
            member = next((c for c in calls if c.is_member), calls[0] if calls else None)
            problem = 0.0 if member is not None else 1.0
            self.findings.judge(stem, "no module maps resid_pre to resid_post", problem, 0.5)
            if member is not None:
                problem = 0.0 if member.start > previous.get(match[1], -1) else 1.0
                self.findings.judge(stem, "the blocks are not in order of execution", problem, 0.5)
                previous[match[1]] = member.start
                if not member.is_member:
                    self.findings.notes.append(f"{stem} is {member.name}, no member of a list")
            members[stem] = member
        return members

    def _places(self, name: str, scaled: bool = False) -> list[Place]:
        return self.plain.places(self.kept[name], scaled=scaled) if name in self.kept else []

    def _sums(self, block: str, member: PlainCall | None) -> None:
        """What the sub-layers add, one after the other and through norms between, is the stream after them."""
        outs = [n for n in self.kept if re.fullmatch(re.escape(block) + r"\.[a-z]+\d*\.out", n)]
        if not outs or member is None:
            return
        before, after = self.kept[f"{block}.resid_pre"], self.kept[f"{block}.resid_post"]
        simple = [c for c in self.plain.calls if c.is_pointwise and c.within(member)]
        bases = self._walk(before, [self.kept[n] for n in outs], after, simple)
        if bases is None:  # a stream that is scaled as a whole
            added = torch.stack([self.kept[n] for n in outs]).sum(0)
            gain = multiple(after - added, before, CLOSE)
            self.findings.judge(f"{block}.*.out", "do not add up to resid_post", 0.0 if gain else 1.0, 0.5)
            return
        self.findings.judge(f"{block}.*.out", "do not add up to resid_post", 0.0)
        middle = f"{block}.resid_mid"
        if middle in self.kept and len(bases) > 1:
            self.findings.judge(middle, "is not the stream after the first sub-layer", off(self.kept[middle], bases[1]))
        for name in outs:
            itself = any(multiple(self.kept[name], base) is not None for base in bases)
            self.findings.judge(name, "is the stream itself and no contribution", 1.0 if itself else 0.0, 0.5)

    def _walk(self, stream: Tensor, rest: list[Tensor], after: Tensor, simple: list[PlainCall]) -> list[Tensor] | None:
        """The streams to which each of `rest` is added on the way to `after`, or None if there is no such way.

        On the way the stream may go through modules without matrices: norms, activations.
        """
        through = [
            c.outputs[()]
            for c in simple
            if () in c.outputs and any(t.shape == stream.shape and off(t, stream) < 1e-5 for t in c.inputs.values())
        ]
        for option in (stream, *through):
            if not rest:
                if off(option, after) <= CLOSE:
                    return []
                continue
            found = self._walk(option + rest[0], rest[1:], after, simple)
            if found is not None:
                return [option, *found]
        return None

    def _read(self, name: str, members: dict[str, PlainCall | None]) -> None:
        """One kept value against the plain recording."""
        value, match = self.kept[name], BLOCK.fullmatch(name)
        judge = self.findings.judge
        if match is None:
            if name == "logits":
                judge(name, "is not the output", off(value, self.bare))
            else:
                judge(
                    name, "no module returns it", 0.0 if any(p.side == "out" for p in self._places(name)) else 1.0, 0.5
                )
            return
        member, kind = members.get(match[1] + match[2]), match[3]
        if member is None or kind.startswith("resid_"):
            return
        part = kind.rsplit(".", 1)[-1]
        inside = [p for p in self._places(name, scaled=part == "out") if p.call.within(member)]
        if part == "in":
            judge(name, "no module of the block reads it", 0.0 if any(p.side == "in" for p in inside) else 1.0, 0.5)
        elif part == "out":
            judge(name, "no module of the block returns it", 0.0 if any(p.side == "out" for p in inside) else 1.0, 0.5)
        elif part == "hidden":
            maps = [p for p in inside if p.side == "in" and p.call.holds_matrix]
            judge(name, "no linear map of the block reads it", 0.0 if maps else 1.0, 0.5)
        elif part == "scale":
            judge(name, "no norm of the block divides by it", self._scale(value, member))
        elif part == "z":
            places = self._inside(value.flatten(2), member)
            judge(name, "", 0.0 if any(p.side == "in" for p in places) else None)
        elif part in ("q", "k", "v"):
            judge(name, "", self._projected(value, member))
        elif part not in ("scores", "pattern"):
            judge(name, "no module of the block passes it", 0.0 if inside else 1.0, 0.5)

    def _inside(self, value: Tensor, member: PlainCall) -> list[Place]:
        return [p for p in self.plain.places(value) if p.call.within(member)]

    def _scale(self, value: Tensor, member: PlainCall) -> float:
        """The scale against the standard deviations and root mean squares of the inputs of the block's norms."""
        best = float("inf")
        for call in self.plain.calls:
            if not (call.is_norm and (call.within(member) or call is member)):
                continue
            for tensor in call.inputs.values():
                if tensor.shape[:-1] == value.shape[:-1]:
                    spread = tensor.double().var(-1, keepdim=True, unbiased=False)
                    power = tensor.double().pow(2).mean(-1, keepdim=True)
                    eps = float(
                        next(
                            (
                                getattr(call.module, n)
                                for n in ("eps", "variance_epsilon", "epsilon")
                                if hasattr(call.module, n)
                            ),
                            0.0,
                        )
                    )
                    best = min(best, *(off((x + eps).sqrt(), value.double()) for x in (spread, power)))
        return best

    def _projected(self, value: Tensor, member: PlainCall) -> float | None:
        """0 if some head vector of q, k or v stands in the output of a module of the block; None if it was changed."""
        row, position, head = (self.random.randrange(n) for n in value.shape[:3])
        vector = value[row, position, head]
        for call in self.plain.calls:
            if call.within(member):
                for tensor in call.outputs.values():
                    wide = (
                        tensor.ndim == 3 and tensor.shape[:2] == value.shape[:2] and tensor.shape[2] >= vector.numel()
                    )
                    if wide and bool((tensor[row, position].unfold(0, vector.numel(), 1) == vector).all(-1).any()):
                        return 0.0
        return None

    def _patterns(self) -> None:
        """Patterns against z, and against those that a copy of the model returns on its own eager path."""
        names = [n for n in self.kept if n.endswith(".pattern")]
        for stem in (n.removesuffix("pattern") for n in names):
            if stem + "v" in self.kept and stem + "z" in self.kept:
                self.findings.judge(stem + "z", "is not pattern @ v", self._mixing(self.kept, stem))
        if not names or not hasattr(self.tiny.module, "set_attn_implementation"):
            return
        eager = copy.deepcopy(self.tiny.module)
        try:
            eager.set_attn_implementation("eager")  # type: ignore[operator]
            with torch.no_grad():
                output = eager(**self.tiny.example, output_attentions=True)
        except Exception as error:
            self.findings.notes.append(f"no eager path to compare with ({type(error).__name__})")
            return
        if off(main_output(output), self.bare) > CLOSE:
            self.findings.notes.append("the model's own eager path gives other outputs, so patterns were not compared")
            return
        shown = [t for key in output if "attentions" in str(key) for _, t in tensors(output[key]) if t.ndim == 4]
        for name in names:
            value = self.kept[name]
            alike = [t for t in shown if t.shape == value.shape]
            complete = len(alike) >= sum(self.kept[n].shape == value.shape for n in names)
            differences = [off(_averaged(value, t), t) for t in alike]
            self.findings.judge(name, "is not the model's own", min(differences) if complete else None)

    def _mixing(self, values: Any, stem: str) -> float:
        """How far z is from pattern @ v; up to a factor for each query where the certificate claims no more."""
        pattern, v, z = (values[stem + part] for part in ("pattern", "v", "z"))
        mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(pattern.shape[1] // v.shape[2], 2))
        if any("up to a factor" in check.name for check in self.net.sites[stem + "z"].checks):
            mixed = mixed * ((mixed * z).sum(-1, keepdim=True) / mixed.pow(2).sum(-1, keepdim=True).clamp_min(1e-30))
        return off(z, mixed)

    # -- writes --

    def _writes(self, members: dict[str, PlainCall | None]) -> None:
        by_kind: dict[str, list[str]] = defaultdict(list)
        for name in self.kept:
            by_kind[re.sub(r".*blocks\.\d+\.", "", name)].append(name)
        kinds = list(by_kind)
        self.random.shuffle(kinds)
        for kind in kinds[: self.count]:
            name = self.random.choice(by_kind[kind])
            part = kind.rsplit(".", 1)[-1]
            try:
                if part in ("q", "k", "v", "scores", "pattern"):
                    self._write_attention(name, part)
                elif name != "logits" and part not in ("scale", "resid_mid"):
                    self._write(name, members)
            except Exception as error:
                message = " ".join(str(error).split())[:160]
                self.findings.failed.append(f"{name}: {type(error).__name__}: {message}")

    def _write(self, name: str, members: dict[str, PlainCall | None]) -> None:
        """Writing noise into all of a site, and adding to one part at one position, against plain hooks."""
        value, info = self.kept[name], self.net.sites[name]
        flat = value.flatten(2) if name.endswith(".z") else value
        ways = self._ways(name, flat, members)
        if not ways:
            self.findings.judge(name, "", None)
            return
        noise = value + value.std() * torch.randn(value.shape, generator=self.generator)
        index = self.random.randrange(info.parts)
        added = value.clone()
        selected = added.movedim(info.part_axis, 0)[index]
        position = None
        if info.axes[:2] == ("batch", "position") and value.shape[1] == self.net.map.width:
            position = self.random.randrange(value.shape[1])
            selected = selected[:, position]
        selected += 1.5
        add = ow.Add(ow.Site(name, (index,)), ow.Where.of(position), vector=ow.Array.of(1.5))
        edits = (
            ("writing noise", noise, ow.Custom(ow.Site.parse(name), fn=lambda _: noise.clone())),
            (f"adding to part {index} at {position}", added, add),
        )
        for what, new, edit in edits:
            got = self.net.run(self.tiny.example, edits=[edit]).logits
            expected = [self.plain.writing(places, new.reshape(flat.shape)) for places in ways]
            self.findings.judge(name, f"{what} differs from a plain hook", min(off(got, e) for e in expected))
            if what == "writing noise" and info.status == "inert" and any(off(e, self.bare) > 1e-6 for e in expected):
                self.findings.wrong.append(f"{name}: called inert, but a plain hook changes the output")

    def _ways(self, name: str, value: Tensor, members: dict[str, PlainCall | None]) -> list[list[Place]]:
        """The ways in which plain hooks write this site: each is a list of places written together.

        What a sub-layer reads must change for all of its linear maps (q, k and v; gate and up) at once.
        """
        match = BLOCK.fullmatch(name)
        side = "in" if name.endswith((".in", ".hidden", ".z", ".resid_pre")) else "out"
        places = [p for p in self.plain.places(value, scaled=name.endswith(".out")) if p.side == side]
        if match is None:
            return [[p] for p in (places[:1] if name == "embed" else places)]
        member = members.get(match[1] + match[2])
        if member is None:
            return []
        if match[3] in ("resid_pre", "resid_post"):
            return [[p] for p in places if p.call is member]
        inside = [p for p in places if p.call.within(member)]
        ways = [[p] for p in inside]
        return _widest(ways, inside) if name.endswith(".in") else ways

    def _write_attention(self, name: str, part: str) -> None:
        """A written part of an attention must show in z the way attention is defined."""
        stem = name.removesuffix(part)
        z, v, pattern = (stem + p for p in ("z", "v", "pattern"))
        if any(n not in self.kept for n in (z, v, pattern)):
            self.findings.judge(name, "", None)
            return
        value = self.kept[name]
        if self.kept[pattern].shape[-1] == 1:
            return  # with one key there is nothing to choose
        new = value + value[value.isfinite() & (value.abs() < 1e4)].std() * torch.randn(
            value.shape, generator=self.generator
        )
        if part == "pattern":
            new = torch.rand(value.shape, generator=self.generator)
        run = self.net.run(
            self.tiny.example, edits=[ow.Custom(ow.Site.parse(name), fn=lambda _: new.clone())], keep=[z, v, pattern]
        )
        if part in ("pattern", "v"):
            self.findings.judge(name, "the written tensor is not what is used", off(run[name], new), 0.0)
        self.findings.judge(name, f"after writing {part}, z is not pattern @ v", self._mixing(run, stem))
        self.findings.judge(
            name, f"writing {part} leaves z as it was", 0.0 if off(run[z], self.kept[z]) > 1e-6 else 1.0, 0.5
        )
        head = self.random.randrange(self.net.sites[name].parts)
        group = self.kept[z].shape[2] // self.net.sites[name].parts
        one = self.net.run(
            self.tiny.example, edits=[ow.Add(ow.Site(name, (head,)), vector=ow.Array.of(0.7))], keep=[z]
        )[z]
        others = [h for h in range(self.kept[z].shape[2]) if h // group != head]
        if others:
            difference = off(one[:, :, others], self.kept[z][:, :, others])
            self.findings.judge(name, f"writing head {head} of {part} changes other heads", difference)

    # -- causality --

    def _causality(self) -> None:
        """In a causal model, a changed token leaves every earlier row of every site as it was."""
        ids = self.tiny.example.get("input_ids", self.tiny.example.get("ids"))
        if self.tiny.family not in ("causal", "plain", "masked") or ids is None or ids.ndim != 2:
            return
        key = "input_ids" if "input_ids" in self.tiny.example else "ids"
        width = ids.shape[1]
        honest = True
        for changed in (width - 1, width // 2):
            other = ids.clone()
            other[:, changed] = (ids[:, changed] - 10 + 37) % 80 + 10
            inputs = {**self.tiny.example, key: other}
            with torch.no_grad():
                bare = main_output(self.tiny.module(**inputs))
            if self.bare.ndim == 3 and self.bare.shape[1] == width:
                honest &= off(bare[:, :changed], self.bare[:, :changed]) <= CLOSE
            if not self.net.causal:
                continue
            run = self.net.run(inputs, keep=list(self.kept))
            for name, before in self.kept.items():
                axes = self.net.sites[name].axes
                axis = next((axes.index(a) for a in ("position", "query") if a in axes), None)
                if axis is not None and before.shape[axis] == width:
                    pair = (x.narrow(axis, 0, changed) for x in (run[name], before))
                    got, expected = (torch.nan_to_num(x, neginf=-1e9) for x in pair)
                    self.findings.judge(
                        name, f"token {changed} changes an earlier row of a causal network", off(got, expected)
                    )
        if self.net.causal and not honest:
            self.findings.wrong.append("the network is called causal, but a later token changes earlier logits")
        if honest and not self.net.causal and self.tiny.family == "causal":
            self.findings.notes.append("causal, but not recognised as causal")
        self.honest = honest


def _averaged(value: Tensor, shown: Tensor) -> Tensor:
    """The pattern as a model shows it that returns the mean over the heads for each head."""
    same = torch.equal(shown, shown[:, :1].expand_as(shown)) and shown.shape[1] > 1
    return value.mean(1, keepdim=True).expand_as(shown) if same else value


def _widest(ways: list[list[Place]], places: list[Place]) -> list[list[Place]]:
    """The ways of writing what a sub-layer reads that leave out none of its linear maps.

    Beside each single place, the linear maps of one parent are written together; a way that reaches fewer linear maps
    than another is dropped.
    """
    maps = [p for p in places if p.call.holds_matrix]
    parents: dict[str, list[Place]] = defaultdict(list)
    for place in maps:
        parents[place.call.name.rpartition(".")[0]].append(place)
    options = [*ways, *(group for group in parents.values() if len(group) > 1)]
    reached = [
        {i for i, m in enumerate(maps) for p in way if m.call is p.call or m.call.within(p.call)} for way in options
    ]
    return [way for way, mine in zip(options, reached, strict=True) if not any(mine < other for other in reached)]
