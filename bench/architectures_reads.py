"""What an opened network reads at its sites, against a plain recording of the same forward."""

from __future__ import annotations

import copy
import re

import torch
from torch import Tensor

from architectures_norms import Norms
from architectures_plain import Place, PlainCall, main_output, multiple, off, tensors
from architectures_seen import BLOCK, CLOSE, Seen


class Reads:
    """Compares every kept value of a network with plain torch."""

    def __init__(self, seen: Seen):
        self.seen, self.norms = seen, Norms(seen)

    def judge(self) -> None:
        """Make every comparison."""
        for block, member in self.seen.members.items():
            self._sums(block, member)
        for name in self.seen.kept:
            self._read(name)
        self._patterns()

    def _sums(self, block: str, member: PlainCall | None) -> None:
        """What the sub-layers add, one after the other and through norms between, is the stream after them."""
        kept, judge = self.seen.kept, self.seen.findings.judge
        outs = [n for n in kept if re.fullmatch(re.escape(block) + r"\.[a-z]+\d*\.out", n)]
        if not outs or member is None:
            return
        before, after = kept[f"{block}.resid_pre"], kept[f"{block}.resid_post"]
        simple = [c for c in self.seen.plain.calls if c.is_pointwise and c.within(member)]
        added = [kept[n] for n in outs]
        starts = [before] if before.shape == added[0].shape else self._shortcuts(member, added)
        ways = (self._walk(start, added, after, simple) for start in starts)
        bases = next((way for way in ways if way is not None), None)
        if bases is None:
            judge(f"{block}.*.out", *self._declared(block, before, torch.stack(added).sum(0), after))
            return
        judge(f"{block}.*.out", "do not add up to resid_post", 0.0)
        middle = f"{block}.resid_mid"
        if middle in kept and len(bases) > 1:
            judge(middle, "is not the stream after the first sub-layer", off(kept[middle], bases[1]))
        for name in outs:
            itself = any(multiple(kept[name], base) is not None for base in bases)
            judge(name, "is the stream itself and no contribution", 1.0 if itself else 0.0)

    def _shortcuts(self, member: PlainCall, added: list[Tensor]) -> list[Tensor]:
        """Where the shape changes, the streams that a block may start from: outputs of its modules in the new shape."""
        found = (t for c in self.seen.plain.calls if c.within(member) for t in c.outputs.values())
        return [t for t in found if t.shape == added[0].shape and not any(off(t, a) < 1e-5 for a in added)]

    def _declared(self, block: str, before: Tensor, added: Tensor, after: Tensor) -> tuple[str, float]:
        """A sum that holds but for a factor of the whole stream, or for a constant that the certificate speaks of."""
        if before.shape != after.shape or before.shape != added.shape:
            return "do not add up to resid_post", 1.0
        if multiple(after - added, before, CLOSE) is not None:
            self.seen.findings.notes.append(f"{block} scales the whole stream")
            return "do not add up to resid_post", 0.0
        rest = after - before - added
        if off(rest, rest[:1, :1].expand_as(rest)) <= CLOSE:
            said = any("constant" in check.name for check in self.seen.net.sites[f"{block}.resid_post"].checks)
            return "leave out a constant, which the certificate does not say", 0.0 if said else 1.0
        return "do not add up to resid_post", 1.0

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
            if rest and rest[0].shape != option.shape:
                continue
            if not rest:
                if off(option, after) <= CLOSE:
                    return []
                continue
            found = self._walk(option + rest[0], rest[1:], after, simple)
            if found is not None:
                return [option, *found]
        return None

    def _read(self, name: str) -> None:
        """One kept value against the plain recording."""
        value, match, judge = self.seen.kept[name], BLOCK.fullmatch(name), self.seen.findings.judge
        if match is None:
            if name == "logits":
                judge(name, "is not the output", off(value, self.seen.bare))
            else:
                judge(
                    name, "no module returns it", 0.0 if any(p.side == "out" for p in self.seen.places(name)) else 1.0
                )
            return
        member, kind = self.seen.member(name), match[3]
        if member is None or kind.startswith("resid_"):
            return
        layer, _, part = kind.rpartition(".")
        stem = f"{match[1]}{match[2]}.{layer}."
        inside = [p for p in self.seen.places(name, scaled=part == "out") if p.call.within(member)]
        if part == "in":
            readers = [p.call for p in inside if p.side == "in"]
            judge(name, "no module of the block reads it", 0.0 if readers else 1.0)
            leaves = [c for c in readers if not any(o.within(c) for o in self.seen.plain.calls)]
            judge(name, "is read by a norm alone", 1.0 if leaves and all(c.is_norm for c in leaves) else 0.0)
            judge(name, "its readers do not lead to what the sub-layer adds", self._leads(stem, readers, member))
        elif part == "out":
            judge(name, "no module of the block returns it", 0.0 if any(p.side == "out" for p in inside) else 1.0)
        elif part == "hidden":
            maps = [p for p in inside if p.side == "in" and p.call.holds_matrix]
            judge(name, "no linear map of the block reads it", 0.0 if maps else 1.0)
        elif part == "scale":
            self.norms.judge(name, member)
        elif part == "z":
            places = self._inside(value.flatten(2), member)
            judge(name, "", 0.0 if any(p.side == "in" for p in places) else None)
        elif part in ("q", "k", "v"):
            judge(name, "", self._projected(value, member))
            if part == "q":
                judge(name, "does not make the scores together with k", self._scored(stem))
        elif part not in ("scores", "pattern"):
            judge(name, "no module of the block passes it", 0.0 if inside else 1.0)

    def _leads(self, stem: str, readers: list[PlainCall], member: PlainCall) -> float | None:
        """0 if after some reader began, the first sub-layer to return what it adds is this one."""
        block, layer = stem[:-1].rsplit(".", 1)
        producers = self.norms.producers(block, member)
        if layer not in producers or not readers:
            return None
        for reader in readers:
            later = {name: call.end for name, call in producers.items() if call.end > reader.start}
            if later and min(later, key=lambda name: later[name]) == layer:
                return 0.0
        return 1.0

    def _scored(self, stem: str) -> float | None:
        """0 if q @ k follows the scores better than k @ q does; None if neither does (another kind of scores)."""
        if any(stem + part not in self.seen.kept for part in ("q", "k", "scores")):
            return None
        q, k, scores = (self.seen.kept[stem + part].double() for part in ("q", "k", "scores"))
        k = k.repeat_interleave(max(1, q.shape[2] // k.shape[2]), 2)
        if q.shape != k.shape or q.shape[1] != scores.shape[-1]:
            return None
        visible = scores.isfinite() & (scores > -1e4)
        right, swapped = torch.einsum("bqhd,bkhd->bhqk", q, k), torch.einsum("bkhd,bqhd->bhqk", q, k)
        follows = [float(torch.corrcoef(torch.stack([x[visible], scores[visible]]))[0, 1]) for x in (right, swapped)]
        return None if max(follows) < 0.5 else 0.0 if follows[0] >= follows[1] - 0.02 else 1.0

    def _inside(self, value: Tensor, member: PlainCall) -> list[Place]:
        return [p for p in self.seen.plain.places(value) if p.call.within(member)]

    def _projected(self, value: Tensor, member: PlainCall) -> float | None:
        """0 if some head vector of q, k or v stands in the output of a module of the block; None if it was changed."""
        row, position, head = (self.seen.random.randrange(n) for n in value.shape[:3])
        vector = value[row, position, head]
        for call in self.seen.plain.calls:
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
        names = [n for n in self.seen.kept if n.endswith(".pattern")]
        for stem in (n.removesuffix("pattern") for n in names):
            if stem + "v" in self.seen.kept and stem + "z" in self.seen.kept:
                self.seen.findings.judge(stem + "z", "is not pattern @ v", self.seen.mixing(self.seen.kept, stem))
        if not names or not hasattr(self.seen.tiny.module, "set_attn_implementation"):
            return
        eager = copy.deepcopy(self.seen.tiny.module)
        try:
            eager.set_attn_implementation("eager")  # type: ignore[operator]
            with torch.no_grad():
                output = eager(**self.seen.tiny.example, output_attentions=True)
        except Exception as error:
            self.seen.findings.notes.append(f"no eager path to compare with ({type(error).__name__})")
            return
        if off(main_output(output), self.seen.bare) > CLOSE:
            self.seen.findings.notes.append("its own eager path gives other outputs, so patterns were not compared")
            return
        shown = [t for key in output if "attentions" in str(key) for _, t in tensors(output[key]) if t.ndim == 4]
        for name in names:
            value = self.seen.kept[name]
            alike = [t for t in shown if t.shape == value.shape]
            complete = len(alike) >= sum(self.seen.kept[n].shape == value.shape for n in names)
            differences = [off(_averaged(value, t), t) for t in alike]
            self.seen.findings.judge(name, "is not the model's own", min(differences) if complete else None)


def _averaged(value: Tensor, shown: Tensor) -> Tensor:
    """The pattern as a model shows it that returns the mean over the heads for each head."""
    same = torch.equal(shown, shown[:, :1].expand_as(shown)) and shown.shape[1] > 1
    return value.mean(1, keepdim=True).expand_as(shown) if same else value
