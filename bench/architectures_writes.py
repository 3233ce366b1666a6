"""What an opened network does when a site is written, against plain hooks that write the same."""

from __future__ import annotations

import re
from collections import defaultdict

import torch
from torch import Tensor

import openwork as ow
from architectures_plain import Place, off
from architectures_seen import BLOCK, Seen


class Writes:
    """Writes at sites of randomly chosen kinds and compares the effect with plain torch.

    Args:
        seen: the network.
        count: how many kinds of sites are written.
    """

    def __init__(self, seen: Seen, count: int):
        self.seen, self.count = seen, count

    def judge(self) -> None:
        """Make every comparison."""
        by_kind: dict[str, list[str]] = defaultdict(list)
        for name in self.seen.kept:
            by_kind[re.sub(r".*blocks\.\d+\.", "", name)].append(name)
        kinds = list(by_kind)
        self.seen.random.shuffle(kinds)
        for kind in kinds[: self.count]:
            name = self.seen.random.choice(by_kind[kind])
            part = kind.rsplit(".", 1)[-1]
            try:
                if part in ("q", "k", "v", "scores", "pattern"):
                    self._write_attention(name, part)
                elif name != "logits" and part not in ("scale", "resid_mid"):
                    self._write(name)
            except Exception as error:
                message = " ".join(str(error).split())[:160]
                self.seen.findings.failed.append(f"{name}: {type(error).__name__}: {message}")

    def _write(self, name: str) -> None:
        """Writing noise into all of a site, and adding to one part at one position, against plain hooks."""
        value, info = self.seen.kept[name], self.seen.net.sites[name]
        flat = value.flatten(2) if name.endswith(".z") else value
        ways = self._ways(name, flat)
        if not ways:
            self.seen.findings.judge(name, "", None)
            return
        noise = value + value.std() * torch.randn(value.shape, generator=self.seen.generator)
        index = self.seen.random.randrange(info.parts)
        added = value.clone()
        selected = added.movedim(info.part_axis, 0)[index]
        position = None
        if info.axes[:2] == ("batch", "position") and value.shape[1] == self.seen.net.map.width:
            position = self.seen.random.randrange(value.shape[1])
            selected = selected[:, position]
        selected += 1.5
        add = ow.Add(ow.Site(name, (index,)), ow.Where.of(position), vector=ow.Array.of(1.5))
        edits = (
            ("writing noise", noise, ow.Custom(ow.Site.parse(name), fn=lambda _: noise.clone())),
            (f"adding to part {index} at {position}", added, add),
        )
        for what, new, edit in edits:
            got = self.seen.net.run(self.seen.tiny.example, edits=[edit]).logits
            expected = [self.seen.plain.writing(places, new.reshape(flat.shape)) for places in ways]
            self.seen.findings.judge(name, f"{what} differs from a plain hook", min(off(got, e) for e in expected))
            if (
                what == "writing noise"
                and info.status == "inert"
                and any(off(e, self.seen.bare) > 1e-6 for e in expected)
            ):
                self.seen.findings.wrong.append(f"{name}: called inert, but a plain hook changes the output")

    def _ways(self, name: str, value: Tensor) -> list[list[Place]]:
        """The ways in which plain hooks write this site: each is a list of places written together.

        What a sub-layer reads must change for all of its linear maps (q, k and v; gate and up) at once.
        """
        match = BLOCK.fullmatch(name)
        side = "in" if name.endswith((".in", ".hidden", ".z", ".resid_pre")) else "out"
        places = [p for p in self.seen.plain.places(value, scaled=name.endswith(".out")) if p.side == side]
        if match is None:
            return [[p] for p in (places[:1] if name == "embed" else places)]
        member = self.seen.member(name)
        if member is None:
            return []
        if match[3] in ("resid_pre", "resid_post"):
            return [[p for p in places if p.call is member]]
        inside = [p for p in places if p.call.within(member)]
        if not name.endswith(".in"):
            return [[p] for p in inside]
        calls: dict[int, list[Place]] = defaultdict(list)
        for place in inside:  # query, key and value may be three arguments of one call
            calls[id(place.call)].append(place)
        return _widest(list(calls.values()), inside)

    def _write_attention(self, name: str, part: str) -> None:
        """A written part of an attention must show in z the way attention is defined."""
        stem = name.removesuffix(part)
        z, v, pattern = (stem + p for p in ("z", "v", "pattern"))
        if any(n not in self.seen.kept for n in (z, v, pattern)):
            self.seen.findings.judge(name, "", None)
            return
        value = self.seen.kept[name]
        if self.seen.kept[pattern].shape[-1] == 1:
            return  # with one key there is nothing to choose
        new = value + value[value.isfinite() & (value.abs() < 1e4)].std() * torch.randn(
            value.shape, generator=self.seen.generator
        )
        if part == "pattern":
            new = torch.rand(value.shape, generator=self.seen.generator)
        run = self.seen.net.run(
            self.seen.tiny.example,
            edits=[ow.Custom(ow.Site.parse(name), fn=lambda _: new.clone())],
            keep=[z, v, pattern],
        )
        if part in ("pattern", "v"):
            self.seen.findings.judge(name, "the written tensor is not what is used", off(run[name], new), 0.0)
        self.seen.findings.judge(name, f"after writing {part}, z is not pattern @ v", self.seen.mixing(run, stem))
        self.seen.findings.judge(
            name, f"writing {part} leaves z as it was", 0.0 if off(run[z], self.seen.kept[z]) > 1e-6 else 1.0, 0.5
        )
        self._write_head(name, part, z)

    def _write_head(self, name: str, part: str, z: str) -> None:
        """A write to one head leaves the other heads of z alone; a write to one query leaves other queries alone."""
        info, before = self.seen.net.sites[name], self.seen.kept[z]
        head = self.seen.random.randrange(info.parts)
        group = before.shape[2] // info.parts
        position = None
        if part == "q" and self.seen.kept[name].shape[1] == self.seen.net.map.width == before.shape[1]:
            position = self.seen.random.randrange(before.shape[1])
        edit = ow.Add(ow.Site(name, (head,)), ow.Where.of(position), vector=ow.Array.of(0.7))
        after = self.seen.net.run(self.seen.tiny.example, edits=[edit], keep=[z])[z]
        heads = [h for h in range(before.shape[2]) if h // group != head]
        rows = [p for p in range(before.shape[1]) if p != position] if position is not None else []
        judge = self.seen.findings.judge
        if heads:
            judge(
                name, f"writing head {head} of {part} changes other heads", off(after[:, :, heads], before[:, :, heads])
            )
        if rows:
            judge(name, f"writing query {position} changes other queries", off(after[:, rows], before[:, rows]))


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
    narrow = [bool(mine) and any(mine < other for other in reached) for mine in reached]
    return [way for way, is_narrow in zip(options, narrow, strict=True) if not is_narrow]
