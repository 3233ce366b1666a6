"""What a scoreboard asks about besides single networks: trainings, changes, depths, sights and gazes, all known.

subject("course/0")          # checkpoints in whose course a mechanism was planted: which heads, and when?
subject("null/course-0")     # the same drift of all other weights, without it
subject("course/py-attn2")   # a real training, of which accuracy was recorded while it ran
subject("change/0")          # a network and a copy in which some heads were drawn anew
subject("null/change-0")     # a copy whose weights moved as far, and which computes the same
subject("depth/0")           # repeated blocks: where does a phase begin?
subject("null/depth-0")      # an even drift: nowhere
subject("sight/0")           # a network that sees, with its pictures: what does each channel detect?
subject("null/sight-0")      # random weights, and pictures whose masks and classes are of others
subject("gaze/0")            # a vision transformer, with its pictures: what does each head look at, and what for?
subject("null/gaze-0")       # random weights, and pictures whose masks and classes are of others
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Generic, TypeVar

import torch

from openwork import network
from openwork.boards.cost import metered
from openwork.errors import UnknownName
from openwork.learning.checkpoints import Checkpoint, Checkpoints, read
from openwork.network import Network
from openwork.pictures import ImageFormat
from openwork.store.files import read_json
from openwork.task import Inputs, Tensors
from openwork.worlds.picture_array import PictureArray
from openwork.zoo import embedded
from openwork.zoo.gazing import FORMAT, Gazing, gazing, glances, vacant
from openwork.zoo.handmade import SPACE, Attention
from openwork.zoo.induction import Induction, Plant
from openwork.zoo.recurrent import WORDS, Repeated, built, drifting
from openwork.zoo.sighted import SIDE, Sighted, blind, scrambled, sighted, spots

EACH = 6
"""Subjects of each kind that are built, and as many nulls."""
NETWORK, COURSE, CHANGE, DEPTH, SIGHT, GAZE = "network", "course", "change", "depth", "sight", "gaze"
TRAINED = "py-attn2"
GAP, CHECKPOINTS = 100, 12
"""Steps between two checkpoints of a built course, and how many it has."""
TURNED = math.pi / 4
"""Angle by which random weights turn in a built course."""
REDRAWN = 3
REPEATS = ((3, 4, 3), (5, 5), (2, 6, 4), (4, 6), (3, 3, 3), (6, 3, 3))
ANGLES = (0.06, 0.09, 0.12, 0.15, 0.18, 0.21)
SPOTS, GLANCES = 240, 150
"""Pictures of a sight and of a gaze to find with, and as many held out."""
BARE = 0.25
"""Pictures without a part among those to find things with."""
RISE = (0.1, 0.9)
"""Accuracies on repeated tokens between which a recorded training has its birth."""


Known = TypeVar("Known")


@dataclass(frozen=True, eq=False)
class Subject(ABC):
    """Something with a known answer.

    Args:
        name: ``kind/number``, or ``null/kind-number``.
        kind: `COURSE`, `CHANGE`, `DEPTH`, `SIGHT` or `GAZE`.
    """

    name: str
    kind: str

    @property
    def family(self) -> str:
        """The kind, or ``null/`` and the kind."""
        return f"null/{self.kind}" if self.name.startswith("null/") else self.kind

    @property
    @abstractmethod
    def sample(self) -> tuple[Network, Inputs | Tensors]:
        """A network of it, and a row."""

    @cached_property
    def forward(self) -> int:
        """Multiply-adds in linear maps of one forward pass of one row."""
        net, row = self.sample
        with metered() as meter, torch.no_grad():
            net.run(row)
        return meter.multiplications


@dataclass(frozen=True, eq=False)
class Course(Subject):
    """Checkpoints of a training.

    Args:
        checkpoints: all of them.
        heads: that come to do induction; empty where that is not known.
        window: steps between which they do; None for never.
    """

    checkpoints: Checkpoints
    heads: frozenset[str]
    window: tuple[int, int] | None

    @property
    def sample(self) -> tuple[Network, Inputs]:
        """The last checkpoint."""
        return self.checkpoints.items[-1].open(), Inputs((tuple(range(16)),))

    def brackets(self, begin: int, end: int) -> bool:
        """Whether a window names the known one: it overlaps it, and goes at most one checkpoint beyond either end."""
        if self.window is None:
            return False
        steps = self.checkpoints.steps
        first = max([step for step in steps if step < self.window[0]], default=steps[0])
        last = min([step for step in steps if step > self.window[1]], default=steps[-1])
        return begin < self.window[1] and end > self.window[0] and first <= begin and end <= last


@dataclass(frozen=True, eq=False)
class Change(Subject):
    """A network before and after.

    Args:
        nets: the two.
        rows: of random tokens.
        changed: the heads that compute something else.
    """

    nets: tuple[Network, Network]
    rows: Inputs
    changed: frozenset[str]

    @property
    def sample(self) -> tuple[Network, Inputs]:
        """The network before."""
        return self.nets[0], self.rows.take([0])


@dataclass(frozen=True, eq=False)
class Depth(Subject):
    """A network of repeated blocks.

    Args:
        net: the network.
        rows: of random words.
        begins: the layers at which a phase begins, without the first.
    """

    net: Network
    rows: Inputs
    begins: frozenset[int]

    @property
    def sample(self) -> tuple[Network, Inputs]:
        """The network."""
        return self.net, self.rows.take([0])


@dataclass(frozen=True, eq=False)
class Looker(Subject, Generic[Known]):
    """A network that reads images.

    Args:
        net: the network.
        find: pictures to find things on.
        held: pictures to claim them on.
        known: what is true of it; None of a null, of which nothing is.
    """

    net: Network
    find: PictureArray
    held: PictureArray
    known: Known | None

    @property
    def sample(self) -> tuple[Network, Tensors]:
        """The network."""
        return self.net, Tensors({self.net.preparer.main: torch.zeros(1, 3, *self.held.values.shape[2:])})


Sight = Looker[Sighted]
Gaze = Looker[Gazing]


def subjects(kinds: Collection[str] | None = None) -> list[str]:
    """The names of all subjects, those with something to find first.

    Args:
        kinds: only of these; of all unless given.
    """
    numbers, some = range(EACH), [kind for kind in MAKERS if kinds is None or kind in kinds]
    trained = [f"{COURSE}/{TRAINED}"] if COURSE in some else []
    there = [*trained, *(f"{kind}/{i}" for kind in some for i in numbers)]
    return [*there, *(f"null/{kind}-{i}" for i in numbers for kind in some)]


def kind_of(name: str) -> str:
    """What a name is of: a kind of subject, or a `NETWORK` of the zoo."""
    kind = name.removeprefix("null/").replace("-", "/", 1).partition("/")[0]
    return kind if kind in MAKERS else NETWORK


def require_subject(name: str) -> None:
    """Check that there is a subject of that name.

    Raises:
        UnknownName: if there is none; it lists the nearest.
    """
    if name not in subjects():
        raise UnknownName.among("subject of a scoreboard", name, subjects())


def subject(name: str) -> Subject:
    """Build a subject.

    Args:
        name: one of `subjects`.

    Raises:
        UnknownName: if there is none; it lists the nearest.
    """
    require_subject(name)
    if name == f"{COURSE}/{TRAINED}":
        return _recorded(name)
    number = int(name.rpartition("-" if name.startswith("null/") else "/")[2])
    return MAKERS[kind_of(name)](name, number, name.startswith("null/"))


def _recorded(name: str) -> Course:
    """A training that ships, whose accuracy on repeated tokens was recorded as it ran."""
    curve = read_json(embedded.WEIGHTS / TRAINED / "curve.json")
    found = [(point["step"], point["induction"]) for point in curve]
    before = max(step for step, accuracy in found if accuracy < RISE[0])
    after = min(step for step, accuracy in found if accuracy > RISE[1])
    return Course(name, COURSE, read(TRAINED), frozenset(), (before, after))


def _course(name: str, number: int, null: bool) -> Course:
    """Random weights that turn all the time, and heads of induction that grow between two checkpoints."""
    rng = torch.Generator().manual_seed(1000 + number)
    heads = torch.randperm(12, generator=rng)[:3].tolist()
    plant = Plant(before=heads[:1], induction=heads[1 : 2 + number % 2])
    steps = [GAP * i for i in range(CHECKPOINTS)]
    start = 3 + int(torch.randint(0, 4, (1,), generator=rng))
    window = (steps[start], steps[start + 1 + number % 3])
    tokenizer = embedded.load(TRAINED)[1]
    first, planted = (Induction(len(tokenizer), plant, 128, number, planted=p) for p in (False, True))
    last = Induction(len(tokenizer), plant, 128, number + 10_000, planted=False)

    def module(step: int) -> tuple[Induction, Any]:
        share = 0.0 if null else min(1.0, max(0.0, (step - window[0]) / (window[1] - window[0])))
        return _between(first, last, planted, TURNED * step / steps[-1], share), tokenizer

    items = tuple(Checkpoint(step, f"{name} at step {step}", partial(module, step)) for step in steps)
    known = frozenset() if null else frozenset(f"blocks.1.attn.z[{head}]" for head in plant.induction)
    return Course(name, COURSE, Checkpoints(name, items), known, None if null else window)


@torch.no_grad()
def _between(first: Induction, last: Induction, planted: Induction, angle: float, share: float) -> Induction:
    """Block weights turned from those of one network to another's, with a share of what is planted."""
    made = copy.deepcopy(first)
    for mine, a, b, goal in zip(*(n.blocks.parameters() for n in (made, first, last, planted)), strict=True):
        turned = math.cos(angle) * a + math.sin(angle) * b
        mine.copy_(torch.where(goal != a, (1 - share) * turned + share * goal, turned))
    return made.eval()


def _change(name: str, number: int, null: bool) -> Change:
    """Heads of the last block drawn anew; in a null, heads written in another basis, which changes nothing."""
    before = Induction(seed=number).eval()
    after = copy.deepcopy(before)
    rng = torch.Generator().manual_seed(2000 + number)
    heads = torch.randperm(before.shape.heads, generator=rng)[:REDRAWN].tolist()
    if null:
        for block in range(before.shape.blocks):
            _rebased(after.block(block).attn, rng)
    else:
        other = Induction(seed=number + 10_000, planted=False)
        for head in heads:
            _replaced(after.block(1).attn, other.block(1).attn, head)
    rows = torch.randint(0, before.shape.vocabulary, (48, 24), generator=rng)
    given = Inputs(tuple(map(tuple, rows.tolist())))
    nets = [network.open(m, name=f"{name} {when}", example={"input_ids": rows[:2]}) for m, when in (
        (before, "before"), (after, "after"))]  # fmt: skip
    changed = frozenset() if null else frozenset(f"blocks.1.attn.z[{head}]" for head in heads)
    return Change(name, CHANGE, (nets[0], nets[1]), given, changed)


@torch.no_grad()
def _rebased(attention: Attention, rng: torch.Generator) -> None:
    """Turn what each head matches and what it moves, in a way that no one behind it can see."""
    for head in range(attention.heads):
        rows = slice(head * SPACE, (head + 1) * SPACE)
        match, move = (torch.linalg.qr(torch.randn(SPACE, SPACE, generator=rng))[0] for _ in range(2))
        for linear, turn in ((attention.q, match), (attention.k, match), (attention.v, move)):
            linear.weight[rows] = turn @ linear.weight[rows]
        attention.o.weight[:, rows] = attention.o.weight[:, rows] @ move.T


@torch.no_grad()
def _replaced(attention: Attention, other: Attention, head: int) -> None:
    rows = slice(head * SPACE, (head + 1) * SPACE)
    for name in "qkv":
        getattr(attention, name).weight[rows] = getattr(other, name).weight[rows]
    attention.o.weight[:, rows] = other.o.weight[:, rows]


def _depth(name: str, number: int, null: bool) -> Depth:
    made: Repeated = drifting(10, ANGLES[number], number) if null else built(*REPEATS[number], seed=number)
    rows = torch.randint(0, WORDS, (48, 10), generator=torch.Generator().manual_seed(3000 + number))
    net = network.open(made, name=name, example={"input_ids": rows[:2]})
    return Depth(name, DEPTH, net, Inputs(tuple(map(tuple, rows.tolist()))), made.begins)


def _sight(name: str, number: int, null: bool) -> Sight:
    known = None if null else sighted(number)
    module = blind(number) if known is None else known.module
    images = ImageFormat((SIDE, SIDE))
    net = network.open(module, name=name, example={"images": torch.zeros(2, 3, SIDE, SIDE)}, images=images)
    find, held = (spots(SPOTS, 2 * number + half) for half in (0, 1))
    if null:
        find, held = scrambled(find, 1), scrambled(held, 2)
    return Looker(name, SIGHT, net, find, held, known)


def _gaze(name: str, number: int, null: bool) -> Gaze:
    known = None if null else gazing(number)
    net = network.open(vacant(number) if known is None else known.module, name=name, images=FORMAT)
    find, held = glances(GLANCES, 2 * number, BARE), glances(GLANCES, 2 * number + 1)
    if null:
        find, held = scrambled(find, 1), scrambled(held, 2)
    return Looker(name, GAZE, net, find, held, known)


MAKERS: Mapping[str, Callable[[str, int, bool], Subject]] = {
    COURSE: _course, CHANGE: _change, DEPTH: _depth, SIGHT: _sight, GAZE: _gaze,
}  # fmt: skip
"""Kind -> builds one: name, number, whether it is a null."""
