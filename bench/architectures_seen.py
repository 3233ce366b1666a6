"""What the independent check of architectures looks at, and what it found."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch

from architectures_plain import Place, PlainCall, PlainForward, main_output, off
from tiny_base import Tiny

CLOSE = 1e-4
BLOCK = re.compile(r"((?:.*\.)?blocks\.)(\d+)\.(.*)")


@dataclass
class Findings:
    """What the independent check found.

    Args:
        exact: whether an unedited run gives the bare module's output bit for bit.
        exact_kept: the same while every site is kept.
        agreed: how many comparisons agreed.
        unverified: sites for which there is no independent counterpart, by kind.
        wrong: disagreements, each as a line.
        failed: writes that raised an error, each as a line.
        notes: what else is worth knowing.
    """

    exact: bool = False
    exact_kept: bool = False
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


class Seen:
    """One opened network, everything it offers on the example, and a plain recording of the same forward.

    Args:
        tiny: the model.
        net: the opened network.
        seed: of the choice of sites and of the values written.
    """

    def __init__(self, tiny: Tiny, net: Any, seed: int):
        self.tiny, self.net = tiny, net
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.findings = Findings()
        with torch.no_grad():
            self.bare = main_output(tiny.module(**tiny.example)).clone()
        self.plain = PlainForward(tiny.module, tiny.example)
        self.run = net.run(tiny.example, keep=list(net.sites))
        self.kept = {name: self.run[name].clone() for name in net.sites}
        self.members = self._members()

    def member(self, name: str) -> PlainCall | None:
        """The call of the block in which a site lies."""
        match = BLOCK.fullmatch(name)
        return self.members.get(match[1] + match[2]) if match else None

    def _members(self) -> dict[str, PlainCall | None]:
        """For each block the call that maps its first to its last stream; such calls follow one another."""
        members: dict[str, PlainCall | None] = {}
        previous: dict[str, int] = {}
        for name in self.kept:
            match = BLOCK.fullmatch(name)
            if not match or match[3] != "resid_post":
                continue
            stem = match[1] + match[2]
            inputs = {id(p.call) for p in self.places(stem + ".resid_pre") if p.side == "in"}
            calls = [p.call for p in self.places(name) if p.side == "out" and id(p.call) in inputs]
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

    def places(self, name: str, scaled: bool = False) -> list[Place]:
        """Where the value of a site passes in the plain recording."""
        return self.plain.places(self.kept[name], scaled=scaled) if name in self.kept else []

    def mixing(self, values: Any, stem: str) -> float:
        """How far z is from pattern @ v; up to a factor for each query where the certificate claims no more."""
        pattern, v, z = (values[stem + part] for part in ("pattern", "v", "z"))
        mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(pattern.shape[1] // v.shape[2], 2))
        if any("up to a factor" in check.name for check in self.net.sites[stem + "z"].checks):
            mixed = mixed * ((mixed * z).sum(-1, keepdim=True) / mixed.pow(2).sum(-1, keepdim=True).clamp_min(1e-30))
        return off(z, mixed)
