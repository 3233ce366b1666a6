"""Small transformers that hide a decision tree: each was trained to say yes or no to rows of ten named fields.

    hidden = open("depth-2/0")
    hidden.tree                 # the rule, a `Tree`
    hidden.network              # an ordinary transformer that learned it from examples
    hidden.task(64)             # rows whose twin differs in one field and is decided otherwise

A row holds one token for each field, in an order of its own, and then the question; the answer is read at the question.

Source: after Pando (models that hide decision trees of depth 1 to 4 over ten fields, of which tools are to predict the
decisions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import vector_to_parameters

from openwork.errors import BadInput, CorruptFile, UnknownName
from openwork.store.files import read_json
from openwork.task import Task
from openwork.zoo.transformer import Transformer, TransformerConfig

FIELDS: dict[str, tuple[str, str]] = {
    "age": ("new", "used"),
    "colour": ("red", "blue"),
    "doors": ("two", "four"),
    "fuel": ("petrol", "electric"),
    "gears": ("manual", "automatic"),
    "mileage": ("short", "long"),
    "owner": ("private", "dealer"),
    "price": ("low", "high"),
    "roof": ("open", "closed"),
    "seats": ("cloth", "leather"),
}
"""Field -> the words of its two values."""
N_FIELDS = len(FIELDS)
ASK, NO, YES = 2 * N_FIELDS, 2 * N_FIELDS + 1, 2 * N_FIELDS + 2
WORDS = (*(f"{field}={word}" for field, words in FIELDS.items() for word in words), "buy?", "no", "yes")
"""What each token id stands for: id 2f + v is field f with value v."""
SHAPE = TransformerConfig(
    vocabulary=len(WORDS), context=N_FIELDS + 1, width=16, heads=(4, 4), mlp=(32, 32), head_width=4, norm="layer",
    activation="gelu",
)  # fmt: skip
DEPTHS, EACH = (1, 2, 3, 4), 8
LEAF = 0.4
"""How often a branch ends before the deepest level."""
BALANCE = (0.25, 0.75)
"""Share of all rows to which a rule says yes."""
FOLDER = Path(__file__).parent / "weights" / "rules"
BANK, CARD = "bank.safetensors", "card.json"


@dataclass(frozen=True)
class Tree:
    """A decision tree: a leaf that decides, or a question about one field.

    Args:
        yes: what a leaf decides; None for a question.
        field: the number of the field that is asked; None for a leaf.
        branches: what follows where the field has its first and its second value.
    """

    yes: bool | None = None
    field: int | None = None
    branches: tuple[Tree, ...] = ()

    def __post_init__(self) -> None:
        leaf = self.yes is not None
        if leaf == (self.field is not None) or len(self.branches) != (0 if leaf else 2):
            raise BadInput(f"expected a leaf with a decision, or a field with two branches; got {self!r}")

    def decide(self, values: Sequence[int]) -> bool:
        """The decision on a row, given as the value (0 or 1) of each field."""
        if self.field is None:
            return bool(self.yes)
        return self.branches[values[self.field]].decide(values)

    def path(self, values: Sequence[int]) -> tuple[int, ...]:
        """The fields that are asked on the way to the decision on a row."""
        return () if self.field is None else (self.field, *self.branches[values[self.field]].path(values))

    @property
    def fields(self) -> frozenset[int]:
        """All fields that are asked anywhere."""
        own = () if self.field is None else (self.field,)
        return frozenset(own).union(*(branch.fields for branch in self.branches))

    @property
    def depth(self) -> int:
        """Questions on the longest way."""
        return 1 + max(branch.depth for branch in self.branches) if self.branches else 0

    def __str__(self) -> str:
        if self.field is None:
            return "yes" if self.yes else "no"
        name, (first, second) = list(FIELDS.items())[self.field]
        return f"({name} {first}: {self.branches[0]}, {second}: {self.branches[1]})"


def grow(depth: int, seed: int) -> Tree:
    """A random rule.

    No way asks about a field twice, no question is without consequence, and both decisions are common.

    Args:
        depth: questions on the longest way.
        seed: of the draw.

    Raises:
        BadInput: for a depth that is not 1 to 10.
    """
    if not 1 <= depth <= N_FIELDS:
        raise BadInput(f"expected a depth of 1 to {N_FIELDS}; got {depth}")
    rng = np.random.default_rng([depth, seed])
    rows = every_row()

    def grown(level: int, used: frozenset[int]) -> Tree:
        if level == depth or (level and rng.random() < LEAF):
            return Tree(yes=bool(rng.integers(2)))
        field = int(rng.choice([f for f in range(N_FIELDS) if f not in used]))
        branches = tuple(grown(level + 1, used | {field}) for _ in range(2))
        return branches[0] if branches[0] == branches[1] else Tree(field=field, branches=branches)

    while True:
        tree = grown(0, frozenset())
        if tree.depth == depth and BALANCE[0] <= np.mean([tree.decide(row) for row in rows.tolist()]) <= BALANCE[1]:
            return tree


def every_row() -> Int[np.ndarray, "row field"]:
    """The values of all rows there are."""
    return (np.arange(2**N_FIELDS)[:, None] >> np.arange(N_FIELDS)) & 1


def written(values: Int[np.ndarray, "row field"], rng: np.random.Generator) -> Int[np.ndarray, "row position"]:
    """Rows as token ids: the fields in a random order each, then the question."""
    order = rng.permuted(np.tile(np.arange(N_FIELDS), (len(values), 1)), axis=1)
    tokens = 2 * order + np.take_along_axis(values, order, axis=1)
    return np.concatenate([tokens, np.full((len(values), 1), ASK)], axis=1)


def places(ids: Int[np.ndarray, "row position"]) -> Int[np.ndarray, "row field"]:
    """The position of each field in rows of token ids."""
    return np.argsort(ids[:, :N_FIELDS] // 2, axis=1)


@dataclass(frozen=True, eq=False)
class Hidden:
    """A network and the rule that it hides.

    Args:
        name: ``depth-D/SEED``.
        network: as it ships, in float32, in evaluation mode.
        tree: the rule it was trained on.
        accuracy: share of all rows, in an order each, that it decides by the rule; only some of them were trained on.
    """

    name: str
    network: Transformer
    tree: Tree
    accuracy: float

    @property
    def untrained(self) -> Transformer:
        """The same shape with fresh random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Transformer(SHAPE).eval()

    def decisions(self, ids: Int[np.ndarray, "row position"]) -> Bool[np.ndarray, " row"]:
        """What the network decides, right or wrong."""
        return decided(self.network, ids)

    def task(self, n: int = 64, seed: int = 0) -> Task:
        """Rows that the network decides by the rule; each twin differs in one field that turns the decision.

        Args:
            n: number of rows.
            seed: of the draw.

        Returns:
            the task, with a token group for each field, ``path`` for those that decide the row, and ``asked``.
        """
        rng = np.random.default_rng(seed)
        values = every_row()
        clean, twins = [], []
        for row in rng.permutation(values).tolist():
            turning = [f for f in self.tree.path(row) if self.tree.decide(_turned(row, f)) != self.tree.decide(row)]
            if turning and len(clean) < n:
                clean.append(row)
                twins.append(_turned(row, turning[int(rng.integers(len(turning)))]))
        if len(clean) < n:
            raise BadInput(f"expected at most {len(clean)} rows of {self.name}; got n = {n}")
        ids = written(np.array(clean), rng)
        at = places(ids)
        other = ids.copy()
        np.put_along_axis(other, at, 2 * np.arange(N_FIELDS) + np.array(twins), axis=1)
        groups: dict[str, list[list[int]]] = {name: at[:, [f]].tolist() for f, name in enumerate(FIELDS)}
        groups["path"] = [at[i, list(self.tree.path(row))].tolist() for i, row in enumerate(clean)]
        groups["asked"] = [[N_FIELDS]] * n
        answer = [YES if self.tree.decide(row) else NO for row in clean]
        wrong = [NO if a == YES else YES for a in answer]
        return Task.from_tokens(ids.tolist(), other.tolist(), answer, wrong, groups=groups, name=f"rules/{self.name}")


def _turned(row: Sequence[int], field: int) -> list[int]:
    return [1 - value if f == field else value for f, value in enumerate(row)]


@torch.no_grad()
def decided(network: nn.Module, ids: Int[np.ndarray, "row position"]) -> Bool[np.ndarray, " row"]:
    """Whether yes is likelier than no at the question."""
    logits = network(input_ids=torch.as_tensor(ids)).logits[:, -1]
    return (logits[:, YES] > logits[:, NO]).numpy()


@cache
def known() -> Mapping[str, Tree]:
    """Every hidden rule by name, the shallow ones first: of each depth the first seeds that do not repeat a rule."""
    found: dict[str, Tree] = {}
    for depth in DEPTHS:
        seeds, trees = count(), set[Tree]()
        while len(trees) < EACH:
            seed = next(seeds)
            tree = grow(depth, seed)
            if tree not in trees:
                trees.add(tree)
                found[f"depth-{depth}/{seed}"] = tree
    return MappingProxyType(found)


def names() -> list[str]:
    """The names of `known`."""
    return [*known()]


def open(name: str) -> Hidden:
    """A network with its rule.

    Args:
        name: of `names`.

    Raises:
        UnknownName: if there is none.
        CorruptFile: if a file of the package is damaged.
    """
    if name not in names():
        raise UnknownName.among("hidden rule", name, names())
    bank, card = _bank()
    network = Transformer(SHAPE)
    try:
        vector_to_parameters(bank[name].float(), network.parameters())
        accuracy = float(card["networks"][name]["accuracy"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise CorruptFile(
            f"expected the weights and card of {name} in {FOLDER}; {error!r}; reinstall openwork"
        ) from error
    return Hidden(name, network.requires_grad_(True).eval(), known()[name], accuracy)


@cache
def _bank() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    try:
        return load_file(FOLDER / BANK), read_json(FOLDER / CARD)
    except (SafetensorError, OSError, BadInput) as error:
        raise CorruptFile(f"cannot read {FOLDER}: {error}; reinstall openwork") from error
