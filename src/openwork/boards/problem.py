"""A network with a behaviour, and what is true of the two: what every method is asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from openwork.boards.cost import metered
from openwork.causal.parts import parts_of
from openwork.direction import Direction
from openwork.network import Network
from openwork.site import Edge, Site
from openwork.task import Inputs, Task
from openwork.zoo.compiled.language import Tokens
from openwork.zoo.compiled.wiring import PRIME
from openwork.zoo.known import CAUSAL, Look
from openwork.zoo.member import Member

CHANGED = "changed"
"""Token group of the tokens in which a clean row differs from its corrupted one."""
ASKED = "asked"
"""Token group of the position that the answer is read from."""
INDEPENDENT = 1e-4
"""Singular values below this share of the largest are none."""
EMBED, START = Site("embed"), Site("blocks.0.resid_pre")
"""The embedding, as the known circuits name it and as path patching does."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A member of the zoo and examples of its behaviour.

    Args:
        member: network and truth.
        task: the examples, with the token groups `CHANGED` and `ASKED` beside the task's own.
        bare: the same with the task's own groups alone.
    """

    member: Member
    task: Task
    bare: Task

    @classmethod
    def of(cls, member: Member, n: int, seed: int) -> Problem:
        """With `n` examples, half held out; what differs between twins is a token group, and what is asked is one."""
        task = _at_most(member.task(n, seed), n)
        assert isinstance(task.clean, Inputs)
        assert isinstance(task.corrupted, Inputs)
        pairs = zip(task.clean.ids, task.corrupted.ids, strict=True)
        changed = tuple(tuple(int(p) for p in np.flatnonzero(np.not_equal(a, b))) for a, b in pairs)
        twins = {
            name: Inputs(inputs.ids, {**inputs.groups, CHANGED: changed, ASKED: tuple((at,) for at in task.at)})
            for name, inputs in (("clean", task.clean), ("corrupted", task.corrupted))
        }
        return cls(member, replace(task, **twins), task)

    @property
    def net(self) -> Network:
        """The opened network."""
        return self.member.net

    @property
    def family(self) -> str:
        """That of the member."""
        return self.member.family

    @cached_property
    def forward(self) -> int:
        """Multiply-adds in linear maps of one forward pass of one row."""
        with metered() as meter, torch.no_grad():
            self.net.run(self.task.clean.take([0]))
        return meter.multiplications

    @cached_property
    def components(self) -> tuple[str, ...]:
        """Every head and every MLP."""
        return tuple(part.name for part in parts_of(self.net))

    def has(self, kind: str) -> bool:
        """Whether any block has a site of this kind, such as ``mlp.out``."""
        return any(Site.parse(name).kind == kind for name in self.net.sites if name.startswith("blocks."))

    @property
    def true_components(self) -> frozenset[str]:
        """Those that take part."""
        # hidden units take part in what their MLP adds
        sites = (str(site).replace("mlp.hidden", "mlp.out") for site in self.member.known.sites)
        return frozenset(sites) & {*self.components}

    @property
    def true_edges(self) -> frozenset[str]:
        """The edges that take part, named as `edge_name` does."""
        return frozenset(edge_name(edge.sender, edge.receiver) for edge in self.member.known.edges)

    @property
    def true_looks(self) -> frozenset[str]:
        """The attention edges that take part, named as `look_name` does."""
        return frozenset(map(look_name, self.member.known.looks))

    @property
    def knows_looks(self) -> bool:
        """Whether it is known which attention matters: some that is listed, or none because no head takes part."""
        known = self.member.known
        return bool(known.looks) or bool(known.edges and not any(site.kind == "attn.z" for site in known.sites))

    @cached_property
    def subspaces(self) -> Subspaces:
        """The known subspaces at the one site at which the answer can depend on any of them."""
        known, program = self.member.known, self.member.program
        if program is None:
            sites = {str(direction.site) for direction in known.directions.values()}
            true = frozenset(name for name in known.directions if name == CAUSAL)
            where = ASKED if self.member.wrong is not None else "subject"
            return Subspaces(sites.pop() if len(sites) == 1 else "", where, known.directions, true)
        last = f"blocks.{self.net.n_blocks - 1}.resid_post"
        named = {name: Direction(Site(last), d.array, d.origin) for name, d in self.variables.items()}
        return Subspaces(last, ASKED, named, frozenset({program.output.name}) & {*named})

    @cached_property
    def variables(self) -> Mapping[str, Direction]:
        """Variable of the program -> where it is written, all its copies taken together; without a program, none."""
        known, program = self.member.known, self.member.program
        if program is None:
            return {}
        copies: dict[str, list[Direction]] = {}
        for name, direction in known.directions.items():
            copies.setdefault(name.rstrip(PRIME), []).append(direction)
        return {
            name: Direction(spaces[0].site, _independent([space.array.numpy() for space in spaces]), "compiled")
            for name, spaces in copies.items()
            if len({space.site for space in spaces}) == 1 and name != Tokens.name
        }

    @property
    def true_sublayers(self) -> frozenset[str]:
        """The attention and MLP sub-layers of which a part takes part."""
        return sublayers(self.true_components)


@dataclass(frozen=True)
class Subspaces:
    """Known subspaces at one site.

    Args:
        site: the site.
        where: the token group at which they are read.
        named: name -> subspace.
        true: the names of those that the answer depends on there.
    """

    site: str
    where: str
    named: Mapping[str, Direction]
    true: frozenset[str]


def _independent(spaces: Sequence[Float[np.ndarray, "_ channel"]]) -> Float[np.ndarray, "count channel"]:
    """Orthonormal rows that span some subspaces together; squeezed ones may depend on each other."""
    values, rows = np.linalg.svd(np.vstack(spaces), full_matrices=False)[1:]
    return rows[values > INDEPENDENT * values[0]]


def _at_most(task: Task, n: int) -> Task:
    """The first rows of both splits, half of each, of a task that has more than were asked for."""
    if len(task) <= n:
        return task
    splits = [[r for r in range(len(task)) if (r in task.held_out) is held] for held in (False, True)]
    rows = [row for split in splits for row in split[: n // 2]]
    named = {name: tuple(getattr(task, name)[r] for r in rows) for name in ("answer", "wrong", "at")}
    twins = {"clean": task.clean.take(rows), "corrupted": task.corrupted.take(rows)}
    return replace(task, **twins, **named, held_out=frozenset(range(min(n // 2, len(splits[0])), len(rows))))


def edge_name(sender: Site, receiver: Site) -> str:
    """An edge as both known circuits and path patching are made to name it."""
    return str(Edge(EMBED if sender == START else sender, receiver))


def look_name(look: Look) -> str:
    """An attention edge between token groups at one head."""
    return f"{look.query} reads {look.key} at {look.site}"


def sublayers(components: Iterable[str]) -> frozenset[str]:
    """The outputs of the sub-layers that components lie in."""
    return frozenset(str(Site.parse(c).path).replace("attn.z", "attn.out") for c in components)
