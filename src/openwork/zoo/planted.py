"""Networks in which a direction, or a fact, is planted by hand in one MLP; attention then moves it to the last token.

**A causal, a disconnected and a dormant direction**, for the illusion check:

    network = PlantedDirection()
    network.known.directions    # at blocks.0.mlp.hidden: "causal", "disconnected", "dormant", "illusory"
    task = direction_task(network, n=64)       # token groups "subject", "last"

Subject tokens carry a number f, positive or negative, and the last token says which by one of two answers. The MLP of
block 0 writes f along two orthonormal directions of its hidden layer at the subject: *causal*, which the projection
down reads, and *disconnected*, which lies in its null space. Along a third one, *dormant*, the hidden layer is constant
whatever the input, though the projection reads it. Patching along "causal" carries the whole effect; along
"disconnected" or "dormant" alone it does exactly nothing; along their sum, "illusory", it carries the whole effect too.

**A fact**, for causal tracing:

    network = PlantedFact()                    # five blocks; stored in the MLP of block 1, moved by head 2 of block 3
    task = fact_task(network, n=64)            # token groups "subject", "last"
    two = PlantedFact(stores=(Store(), Store(layer=2, mover=4, head=5)))     # two mechanisms apart
    fact_task(two, store=1)

Each subject token has an attribute token as its fact. The MLP of the store's layer has one hidden unit a subject, that
fires at the subject and writes the code of the attribute; the mover head of a later block copies it to the last token.
An RMS norm before each MLP makes noise of three standard deviations on the subject's embedding break the recall.

Both take ``planted=False`` for the copy without the mechanism: same shape and noise, `known` is empty.

Source: Makelov, Lange and Nanda 2023, Is This the Subspace You Are Looking for? (the illusion, section 3); Meng et al.
2022, Locating and Editing Factual Associations in GPT (facts in MLPs at the subject); Geva et al. 2021, Transformer
Feed-Forward Layers Are Key-Value Memories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.direction import Direction
from openwork.errors import BadInput
from openwork.site import Edge, Site
from openwork.task import Task
from openwork.zoo.handmade import SPACE, WIDTH, Handmade, Shape, codes, paces, place_codes
from openwork.zoo.known import Known, Look, at

TOKEN, PLACE, FLAG, OUTPUT = (slice(i * SPACE, (i + 1) * SPACE) for i in range(4))
CONTEXT = 16
ASK, VALUE, OTHER, FIRST = range(4)
"""Channels of the part FLAG: the last token asks; f of a subject; no subject at all; a subject of store 0, 1, ..."""
BEGIN, LAST, PLUS, MINUS = range(4)
"""Token ids: the first and the last of every row, and the two answers of `PlantedDirection`."""
FILLERS = 12
"""Tokens without meaning, the ids after those."""
SUBJECTS = 4 + FILLERS
"""Token id of the first subject."""
FLAGGED = 3.0
"""Length of the flag of a subject, or of a token that is none: so the residuals of all tokens are of one length."""
SINK = 0.5
"""Share of a subject's flag that the first token has, where a mover looks when there is no subject of its own."""
LENGTH = 8
"""Tokens of a row."""


class _Recall(Handmade):
    """What both networks share: tokens, and movers that take what the subject's OUTPUT part holds to the last token."""

    def __init__(self, shape: Shape, generator: torch.Generator):
        super().__init__(shape, generator)
        with torch.no_grad():
            self.tokens.weight[:, TOKEN] = codes(shape.vocabulary, generator)
            self.places.weight[:, PLACE] = place_codes(shape.context, paces(generator))
            self.tokens.weight[LAST, FLAG.start + ASK] = 1.0
            self.tokens.weight[:SUBJECTS, FLAG.start + OTHER] = FLAGGED

    @torch.no_grad()
    def flag(self, subjects: Sequence[int], store: int) -> None:
        """Mark tokens as the subjects of a store."""
        channel = FLAG.start + FIRST + store
        self.tokens.weight[list(subjects), channel] = FLAGGED
        self.tokens.weight[BEGIN, channel] = SINK * FLAGGED

    def move(self, block: int, head: int, store: int) -> None:
        """Plant the head that moves the output of a store's subject to the last token."""
        turn = torch.zeros(SPACE, SPACE)
        turn[FIRST + store, ASK] = 1 / FLAGGED
        self.block(block).attn.plant(head, FLAG, FLAG, turn, OUTPUT, OUTPUT, 1.0)


class PlantedDirection(_Recall):
    """Three blocks; block 0's MLP holds the directions, head 2 of block 1 moves its output from subject to last.

    Args:
        subjects: how many subject tokens; the even ones have f > 0.
        noise: size of everything else.
        seed: of codes, directions and noise.
        planted: False for the copy without the mechanism, in which the MLP does not read f.

    Attributes:
        known: the mechanism, with its directions (unit,) at ``blocks.0.mlp.hidden``.
        feature: (subject,) f of each subject token.
    """

    SITE = "blocks.0.mlp.hidden"
    MOVER = 1, 2
    UNITS, LINEAR = 128, 64
    """Hidden units, and how many of them are always on, so that the hidden layer is linear along the directions."""
    REST, STRENGTH, GAIN = 4.0, 2.0, 3.0
    """Value at rest of the units that are always on; length of f = 1 along a direction; logit of length 1."""

    def __init__(self, subjects: int = 128, noise: float = 0.05, seed: int = 0, planted: bool = True):
        generator = torch.Generator().manual_seed(seed)
        shape = Shape(
            SUBJECTS + subjects, blocks=3, heads=8, mlp=self.UNITS, activation="relu", context=CONTEXT, noise=noise
        )
        super().__init__(shape, generator)
        sizes = 0.75 + 0.5 * torch.rand(subjects, generator=generator)
        self.feature: Float[Tensor, " subject"] = sizes * (1 - 2 * (torch.arange(subjects) % 2))
        ids = range(SUBJECTS, SUBJECTS + subjects)
        directions = torch.zeros(self.UNITS, 3)
        directions[: self.LINEAR] = torch.linalg.qr(torch.randn(self.LINEAR, 3, generator=generator)).Q
        outputs = torch.linalg.qr(torch.randn(SPACE, 2, generator=generator)).Q
        self.flag(ids, 0)
        with torch.no_grad():
            self.tokens.weight[list(ids), FLAG.start + VALUE] = self.feature
            self.unembed.weight[PLUS, OUTPUT] = self.GAIN * outputs.sum(1)
            self.unembed.weight[MINUS, OUTPUT] = -self.GAIN * outputs.sum(1)
            self._keep_feature_out_of_the_noise()
            self._write(directions, outputs, planted)
        self.move(*self.MOVER, store=0)
        self.known = _known_direction(directions.T, *self.MOVER) if planted else Known()

    def _keep_feature_out_of_the_noise(self) -> None:
        """Nothing random reads f or the flag: in the copy without the mechanism no path leads from f to the answer."""
        for number in range(self.shape.blocks):
            block = self.block(number)
            for linear in (block.attn.q, block.attn.k, block.attn.v, block.layers[0]):
                linear.weight[:, FLAG] = 0

    def _write(
        self, directions: Float[Tensor, "unit three"], outputs: Float[Tensor, "channel two"], planted: bool
    ) -> None:
        up, down = self.block(0).layers
        causal, disconnected, dormant = directions.T
        across = torch.eye(self.UNITS) - directions @ directions.T
        up.weight.copy_(across @ up.weight)
        up.bias.copy_(across @ up.bias)
        up.bias[: self.LINEAR] += self.REST
        if planted:
            up.weight[:, FLAG.start + VALUE] = self.STRENGTH * (causal + disconnected)
        down.weight.copy_(down.weight @ across)
        # half of a swap along the sum of two unit vectors falls on each: twice the weight makes up for it
        read = torch.outer(outputs[:, 0], causal) + 2 * torch.outer(outputs[:, 1], dormant)
        down.weight[OUTPUT] += read
        # at rest the units that are always on write nothing
        down.bias.sub_(self.REST * down.weight[:, : self.LINEAR].sum(1))


def _known_direction(directions: Float[Tensor, "three unit"], block: int, head: int) -> Known:
    causal, disconnected, dormant = directions
    site, origin = Site(PlantedDirection.SITE), "written by hand"
    named = {
        "causal": causal, "disconnected": disconnected, "dormant": dormant,
        "illusory": (disconnected + dormant) / 2**0.5,
    }  # fmt: skip
    roles = {
        "direction": (at(PlantedDirection.SITE, "subject"),),
        "mover": (at(f"blocks.{block}.attn.z", "last", head),),
    }
    mlp, z = Site("blocks.0.mlp.out"), Site(f"blocks.{block}.attn.z", (head,))
    edges = [Edge(Site("embed"), Site("blocks.0.mlp.in")), *_moved(mlp, block, head), Edge(z, Site("logits"))]
    looks = (Look(Site(f"blocks.{block}.attn.pattern", (head,)), "last", "subject"),)
    return Known(roles, tuple(edges), looks, {name: Direction(site, v, origin) for name, v in named.items()})


def _moved(sender: Site, block: int, head: int) -> list[Edge]:
    """The edges into a mover head."""
    q, k, v = (Site(f"blocks.{block}.attn.{part}", (head,)) for part in "qkv")
    return [Edge(sender, v), Edge(Site("embed"), q), Edge(Site("embed"), k)]


@dataclass(frozen=True)
class Store:
    """Where facts lie.

    Args:
        layer: the block whose MLP holds them.
        mover: the later block that moves them to the last token.
        head: the head that does.
    """

    layer: int = 1
    mover: int = 3
    head: int = 2


class PlantedFact(_Recall):
    """Five blocks; facts about subject tokens are stored in MLPs and read at the last token.

    Args:
        stores: where facts lie; each store has subjects and attributes of its own.
        subjects: how many subject tokens each store has.
        attributes: how many attribute tokens each store has.
        blocks: number of blocks.
        noise: size of everything else.
        seed: of codes, facts and noise.
        planted: False for the copy without the mechanism, in which the MLPs store nothing and no head is a mover.

    Attributes:
        known: the mechanism; with several stores, roles are named ``fact 0``, ``mover 0``, ``fact 1``, ...
        facts: for each store, subject token -> attribute token.

    Raises:
        BadInput: for a store that no later block reads, or stores that share a layer or a mover.
    """

    HEADS = 8
    FREE = 32
    """Hidden units of each MLP that hold no facts."""
    THRESHOLD = 0.5
    """Share of a subject's code that must be there for its unit to fire."""
    STRENGTH, LOGIT = 5.0, 12.0
    """Length of what a fact writes, and the logit that it makes."""

    def __init__(
        self,
        stores: Sequence[Store] = (Store(),),
        subjects: int = 64,
        attributes: int = 12,
        blocks: int = 5,
        noise: float = 0.05,
        seed: int = 0,
        planted: bool = True,
    ):
        movers = {(store.mover, store.head) for store in stores}
        fits = all(0 <= s.layer < s.mover < blocks and 0 <= s.head < self.HEADS for s in stores)
        if not stores or not fits or len(movers) < len(stores) or len({s.layer for s in stores}) < len(stores):
            raise BadInput(
                f"expected stores in MLPs and movers of their own, each moved by a head below {self.HEADS} of a later "
                f"block below {blocks}; got {list(stores)}"
            )
        generator = torch.Generator().manual_seed(seed)
        each = subjects + attributes
        shape = Shape(
            SUBJECTS + len(stores) * each, blocks, self.HEADS, self.FREE + subjects, True, "relu", CONTEXT, noise
        )
        super().__init__(shape, generator)
        self.facts: list[dict[int, int]] = []
        answers = codes(shape.vocabulary, generator)
        with torch.no_grad():
            self.unembed.weight[:, OUTPUT] = self.LOGIT / self.STRENGTH * answers
        for number, store in enumerate(stores):
            start = SUBJECTS + number * each
            ids = range(start, start + subjects)
            drawn = torch.randint(0, attributes, (subjects,), generator=generator) + start + subjects
            self.facts.append(dict(zip(ids, drawn.tolist(), strict=True)))
            self.flag(ids, number)
            if planted:
                self._store(store.layer, list(ids), answers[drawn])
                self.move(store.mover, store.head, number)
        self.known = _known_facts(stores) if planted else Known()

    @torch.no_grad()
    def _store(self, layer: int, ids: Sequence[int], answers: Float[Tensor, "subject channel"]) -> None:
        """One hidden unit a subject: it fires at the subject's code and writes the code of the attribute."""
        up, down = self.block(layer).layers
        units = slice(self.FREE, self.FREE + len(ids))
        # a token's residual is its code, its place and its flag; the norm makes each channel's mean square 1
        whole = (WIDTH / (2 + FLAGGED**2)) ** 0.5
        slope = 1 / ((1 - self.THRESHOLD) * whole)
        up.weight[units] = 0
        up.weight[units, TOKEN] = slope * self.tokens.weight[list(ids), TOKEN]
        up.bias[units] = -slope * self.THRESHOLD * whole
        down.weight[:, units] = 0
        down.weight[OUTPUT, units] = self.STRENGTH * answers.T


def _known_facts(stores: Sequence[Store]) -> Known:
    roles, edges, looks = {}, [], []
    for number, store in enumerate(stores):
        name = f" {number}" if len(stores) > 1 else ""
        mlp, z = f"blocks.{store.layer}.mlp", f"blocks.{store.mover}.attn.z"
        roles[f"fact{name}"] = (at(f"{mlp}.out", "subject"),)
        roles[f"mover{name}"] = (at(z, "last", store.head),)
        edges.append(Edge(Site("embed"), Site(f"{mlp}.in")))
        edges += _moved(Site(f"{mlp}.out"), store.mover, store.head)
        edges.append(Edge(Site(z, (store.head,)), Site("logits")))
        looks.append(Look(Site(f"blocks.{store.mover}.attn.pattern", (store.head,)), "last", "subject"))
    return Known(roles, tuple(edges), tuple(looks))


def direction_task(network: PlantedDirection, n: int = 64, seed: int = 0) -> Task:
    """Which sign the subject has: clean and corrupted rows differ in the subject alone.

    Args:
        network: whose subjects to ask about; no subject is in two examples.
        n: number of examples, half of them with the answer PLUS.
        seed: of rows and split.

    Returns:
        the task; token groups "subject" and "last".

    Raises:
        BadInput: for more examples than pairs of subjects.
    """
    rng = np.random.default_rng(seed)
    sign = network.feature.numpy() > 0
    ids = np.arange(len(sign)) + SUBJECTS
    if not 1 < n <= len(sign) // 2:
        raise BadInput(f"expected 2 to {len(sign) // 2} examples of {len(sign)} subjects; got {n}")
    pairs = zip(rng.permutation(ids[sign])[:n].tolist(), rng.permutation(ids[~sign])[:n].tolist(), strict=True)
    turned = [pair if i % 2 == 0 else pair[::-1] for i, pair in enumerate(pairs)]
    answers = [(PLUS, MINUS) if i % 2 == 0 else (MINUS, PLUS) for i in range(n)]
    return _rows("sign of the subject", turned, answers, rng)


def fact_task(network: PlantedFact, n: int = 64, seed: int = 0, store: int = 0) -> Task:
    """The attribute of the subject; the corrupted row has another subject with another attribute.

    Args:
        network: whose facts to ask for.
        n: number of examples, at most one a subject.
        seed: of rows and split.
        store: which store's facts.

    Returns:
        the task; token groups "subject" and "last".

    Raises:
        BadInput: for more examples than subjects, a store that does not exist, or facts that are all the same.
    """
    if not 0 <= store < len(network.facts):
        raise BadInput(f"expected a store below {len(network.facts)}; got {store}")
    rng, facts = np.random.default_rng(seed), network.facts[store]
    if not 1 < n <= len(facts):
        raise BadInput(f"expected 2 to {len(facts)} examples, at most one a subject; got {n}")
    if len(set(facts.values())) < 2:
        raise BadInput("expected facts with different attributes; all subjects have the same one")
    pairs = []
    for subject in rng.permutation(list(facts))[:n].tolist():
        others = [other for other in facts if facts[other] != facts[subject]]
        pairs.append((subject, int(rng.choice(others))))
    return _rows(f"facts of store {store}", pairs, [(facts[a], facts[b]) for a, b in pairs], rng)


def _rows(
    name: str, pairs: Sequence[tuple[int, int]], answers: Sequence[tuple[int, int]], rng: np.random.Generator
) -> Task:
    """Rows of a first token, fillers with the subject among them, and a last token."""
    clean, corrupted, place = [], [], []
    for pair in pairs:
        fillers = rng.integers(SUBJECTS - FILLERS, SUBJECTS, LENGTH).tolist()
        position = int(rng.integers(2, LENGTH - 2))
        for rows, subject in zip((clean, corrupted), pair, strict=True):
            rows.append([BEGIN, *fillers[1:position], subject, *fillers[position + 1 : -1], LAST])
        place.append([position])
    right, wrong = zip(*answers, strict=True)
    groups = {"subject": place, "last": [[LENGTH - 1]] * len(place)}
    return Task.from_tokens(clean, corrupted, right, wrong, groups=groups, name=name)
