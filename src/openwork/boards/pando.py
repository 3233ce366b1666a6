"""Hidden rules: which tool helps to predict what a network will decide?

Each network hides a decision tree over ten named fields (`openwork.zoo.rules`). Ten of its decisions are known. A tool
looks at the network on these ten rows and scores their fields; the scores become the prior of one and the same learner
(`openwork.boards.trees`), which then predicts ninety other decisions. Without a tool the prior is even: samples only.

Source: after Pando, with small networks instead of fine-tuned language models, and a learner instead of an agent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from openwork import network
from openwork.attribution.attribute import METHODS
from openwork.attribution.method import Method
from openwork.attribution.perturbing import LIME, KernelSHAP
from openwork.boards.trees import Trees
from openwork.errors import BadInput, CorruptFile, UnknownName
from openwork.evidence import benjamini_hochberg, code_hash, judge, paired_difference_interval, record_provenance
from openwork.finding import Criteria, Finding
from openwork.network import Network
from openwork.network.measure import Tick, silent
from openwork.network.sweep import effects
from openwork.results.result import Result
from openwork.store.files import read_json, write_json
from openwork.store.hashing import hash_json
from openwork.task import LOGIT_DIFFERENCE, Batch, Inputs
from openwork.zoo.rules import FIELDS, N_FIELDS, NO, YES, Hidden, every_row, names, places, written
from openwork.zoo.rules import open as open_rule

QUERIES, PREDICTED = 10, 90
FLOOR = 0.1
"""Share of the prior that is even, whatever a tool says."""
LEAST = 0.01
"""The smallest gain that matters, as a share of decisions."""
SAMPLES = "samples only"
LIGHT: Mapping[str, Method] = {"kernel shap": KernelSHAP(samples=96), "lime": LIME(samples=96)}
"""Methods with other knobs than usual: eleven tokens need fewer samples."""
KIND = "the same weights on fields in a random order"
CLAIM = " predicts decisions that samples alone do not"
Weigh = Callable[["Seen"], Float[np.ndarray, " field"]]


@dataclass(frozen=True)
class Game:
    """How the tools are compared.

    Args:
        networks: names in `openwork.zoo.rules`; all unless given.
        tools: names of `TOOLS`; all unless given.
        repeats: how often ten rows are drawn for each network.
        alpha: accepted rate of false support; it decides how many random orders of fields are drawn.
        trees: what the learner holds possible.
        seed: of rows, orders and intervals.

    Raises:
        BadInput: for fewer than two networks, or no repeat.
        UnknownName: for a tool that does not exist.
    """

    networks: tuple[str, ...] = field(default_factory=lambda: tuple(names()))
    tools: tuple[str, ...] = ()
    repeats: int = 2
    alpha: float = 0.05
    trees: Trees = field(default_factory=Trees)
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.networks) < 2 or self.repeats < 1:
            raise BadInput(f"expected at least two networks and one repeat; got {self.networks} and {self.repeats}")
        for name in self.tools:
            if name not in TOOLS:
                raise UnknownName.among("tool", name, TOOLS)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a tool sees: the network, and the rows whose decisions are known.

    Args:
        hidden: the network and its rule, of which only the yardstick makes use.
        net: the network, opened.
        untrained: one of the same shape that learned nothing, opened.
        ids: the rows as tokens.
        values: the value of each field.
    """

    hidden: Hidden
    net: Network
    untrained: Network
    ids: Int[np.ndarray, "row position"]
    values: Int[np.ndarray, "row field"]

    @property
    def batch(self) -> Batch:
        """The rows, all asked for yes against no."""
        rows = tuple(tuple(row) for row in self.ids.tolist())
        n = len(rows)
        return Batch(Inputs(rows), Inputs(rows), (YES,) * n, (NO,) * n, (N_FIELDS,) * n)

    def by_field(self, scores: Float[np.ndarray, "row position"]) -> Float[np.ndarray, " field"]:
        """Mean size of the score of each field's token."""
        sizes = np.abs(np.take_along_axis(scores, places(self.ids), axis=1))
        return sizes.mean(0)


def _attributed(method: Method) -> Weigh:
    def weigh(seen: Seen) -> Float[np.ndarray, " field"]:
        return seen.by_field(method.scores(seen.net, seen.batch, LOGIT_DIFFERENCE))

    return weigh


def _untrained(seen: Seen) -> Float[np.ndarray, " field"]:
    return seen.by_field(METHODS["gradient x input"].scores(seen.untrained, seen.batch, LOGIT_DIFFERENCE))


@torch.no_grad()
def _logit_lens(seen: Seen) -> Float[np.ndarray, " field"]:
    """What the residual stream at each field's token already says of the answer, after the first block."""
    module = seen.hidden.network
    stream = seen.net.run(seen.batch.clean, keep=["blocks.0.resid_post"])["blocks.0.resid_post"]
    logits = module.unembed(module.final_norm(stream))
    return seen.by_field((logits[..., YES] - logits[..., NO]).numpy())


@torch.no_grad()
def _patching(seen: Seen) -> Float[np.ndarray, " field"]:
    """The change of the answer when one field's token becomes that of its other value: a patch of the embedding."""
    at = places(seen.ids)
    clean = _answers(seen.net, seen.ids)
    change = np.zeros(seen.values.shape)
    for number in range(N_FIELDS):
        ids = seen.ids.copy()
        np.put_along_axis(ids, at[:, [number]], 2 * number + 1 - seen.values[:, [number]], axis=1)
        change[:, number] = np.abs(_answers(seen.net, ids) - clean)
    return change.mean(0)


def _answers(net: Network, ids: Int[np.ndarray, "row position"]) -> Float[np.ndarray, " row"]:
    logits = net.run(Inputs(tuple(map(tuple, ids.tolist())))).logits[:, -1]
    return (logits[:, YES] - logits[:, NO]).numpy()


def _known(seen: Seen) -> Float[np.ndarray, " field"]:
    return np.array([float(number in seen.hidden.tree.fields) for number in range(N_FIELDS)])


YARDSTICK, NULL = "the rule's fields", "untrained copy"
TOOLS: Mapping[str, Weigh] = {
    **{name: _attributed(LIGHT.get(name, method)) for name, method in METHODS.items()},
    "logit lens": _logit_lens,
    "patching": _patching,
    NULL: _untrained,
    YARDSTICK: _known,
}
"""Name -> what weighs the fields. The last two are no tools: the first must not help; the second weighs the fields of
the rule alike, which tools can better by weighing those more that decide more rows."""


def play(game: Game = Game(), *, keep: Path | None = None, tick: Tick = silent) -> Result:
    """Let every tool play on every network.

    Args:
        game: how.
        keep: a folder for rounds that are done; those that are there, of this code and this game, are not played again.
        tick: told the share that is done.

    Returns:
        a finding for each tool, that it predicts more than samples alone do; and a table with the axes ``tool`` (the
        first is ``samples only``), ``network`` and ``repeat``: ``accuracy_of_draw``; ``accuracy`` with its interval
        over networks, ``gain`` over samples only with its paired interval, ``gain_at_depth`` for each ``depth``;
        ``control_gain`` of random orders of the fields; ``weight`` of each ``field``; and ``shuffled``, the accuracy of
        samples whose decisions were shuffled.

    Raises:
        UnknownName: for a network that does not exist.
        CorruptFile: for a round that was kept and cannot be read.

    Units:
        share of the ninety decisions that are predicted right.
    """
    import xarray

    tools = [*(game.tools or TOOLS)]
    criteria = Criteria(LEAST, "share of decisions", game.alpha, needs_rival=False)
    shape = (1 + len(tools), len(game.networks), game.repeats)
    accuracy, weight = np.zeros(shape), np.zeros((*shape, N_FIELDS))
    shuffled = np.zeros(shape[1:])
    controls = np.zeros((len(tools), criteria.controls_needed, *shape[1:]))
    depths = []
    for place, name in enumerate(game.networks):
        hidden = open_rule(name)
        depths.append(hidden.tree.depth)
        nets = [network.open(m, name=name, example=_example()) for m in (hidden.network, hidden.untrained)]
        for repeat in range(game.repeats):
            # what a round depends on, so that it is the same in a game of other networks
            at = None if keep is None else keep / _key(game, tools) / (re.sub(r"\W+", "-", name) + f"--{repeat}.json")
            found = None if at is None or not at.exists() else _Round.load(at)
            if found is None:
                rng = np.random.default_rng([game.seed, names().index(name), repeat])
                found = _round(hidden, nets, tools, game.trees, criteria.controls_needed, rng)
                if at is not None:
                    found.save(at)
            accuracy[:, place, repeat], weight[:, place, repeat] = found.accuracy, found.weight
            controls[:, :, place, repeat], shuffled[place, repeat] = found.controls, found.shuffled
            tick((place * game.repeats + repeat + 1) / (len(game.networks) * game.repeats))
    mean = accuracy.mean(-1)
    gains = mean[1:] - mean[0]
    control = (controls - accuracy[0]).mean((2, 3))
    settings = {**asdict(game), "networks": list(game.networks), "tools": tools}
    findings = _findings(tools, gains, control, criteria, game, settings)
    intervals = effects(mean)
    axes = ("tool", "network")
    variables: dict[str, Any] = {
        "accuracy_of_draw": (("tool", "network", "repeat"), accuracy),
        "accuracy": ("tool", intervals["effect"]),
        "accuracy_low": ("tool", intervals["low"]),
        "accuracy_high": ("tool", intervals["high"]),
        "gain_of_network": (axes, mean - mean[0]),
        "control_gain": (("asked", "control"), control),
        "weight": ((*axes, "field"), weight.mean(2)),
        "shuffled": ("network", shuffled.mean(-1)),
        **_gains(mean, np.array(depths), game.seed),
    }
    coords = {
        "tool": [SAMPLES, *tools], "asked": tools, "network": list(game.networks), "field": list(FIELDS),
        "repeat": np.arange(game.repeats), "hidden_depth": ("network", depths), "depth": sorted(set(depths)),
    }  # fmt: skip
    table = xarray.Dataset(variables, coords)
    table.attrs.update(unit="share of decisions", network=f"{len(game.networks)} networks that hide a rule")
    return Result("hidden rules", findings, table, settings, _remarks(shuffled))


@dataclass(frozen=True, eq=False)
class _Round:
    accuracy: Float[np.ndarray, " tool"]
    weight: Float[np.ndarray, "tool field"]
    controls: Float[np.ndarray, "asked control"]
    shuffled: float

    def save(self, path: Path) -> None:
        """As JSON."""
        write_json(path, {name: np.asarray(value).tolist() for name, value in vars(self).items()})

    @classmethod
    def load(cls, path: Path) -> _Round:
        """What `save` wrote."""
        try:
            found = read_json(path)
            arrays = {name: np.array(found[name], dtype=float) for name in ("accuracy", "weight", "controls")}
            return cls(**arrays, shuffled=float(found["shuffled"]))
        except (BadInput, KeyError, TypeError, ValueError) as error:
            raise CorruptFile(f"expected a round of the board in {path}; {error!r}; delete it and run again") from error


def _key(game: Game, tools: Sequence[str]) -> str:
    """What a round depends on but network and repeat."""
    return hash_json([code_hash(), list(tools), game.alpha, asdict(game.trees), game.seed])[:16]


def _round(
    hidden: Hidden, nets: Sequence[Network], tools: Sequence[str], trees: Trees, count: int, rng: np.random.Generator
) -> _Round:
    """Ten known rows and ninety to predict, the same for all tools."""
    values = every_row()[rng.permutation(2**N_FIELDS)[: QUERIES + PREDICTED]]
    ids = written(values, rng)
    decisions = hidden.decisions(ids)
    seen = Seen(hidden, nets[0], nets[1], ids[:QUERIES], values[:QUERIES])
    weight = np.stack([prior(np.ones(N_FIELDS)), *(prior(TOOLS[name](seen)) for name in tools)])
    orders = np.stack([rng.permutation(N_FIELDS) for _ in range(count)])
    every = np.concatenate([weight, weight[1:, orders].reshape(-1, N_FIELDS)])
    known = decisions[:QUERIES]
    right = _right(trees, values, known, decisions, every)
    mixed = _right(trees, values, rng.permutation(known), decisions, weight[:1])
    return _Round(right[: len(weight)], weight, right[len(weight) :].reshape(len(tools), count), float(mixed[0]))


def _right(
    trees: Trees,
    values: Int[np.ndarray, "row field"],
    known: Bool[np.ndarray, " known"],
    decisions: Bool[np.ndarray, " row"],
    weights: Float[np.ndarray, "prior field"],
) -> Float[np.ndarray, " prior"]:
    said = trees.predict(values[:QUERIES], known, values[QUERIES:], weights)
    # an even chance is worth half a decision
    return np.where(np.abs(said - 0.5) < 1e-9, 0.5, (said > 0.5) == decisions[QUERIES:]).mean(1)


def prior(scores: Float[np.ndarray, " field"]) -> Float[np.ndarray, " field"]:
    """Scores as chances of the fields: their share of the sum, and a floor that no score can sink."""
    total = scores.sum()
    share = scores / total if total > 0 else np.full(len(scores), 1 / len(scores))
    return (1 - FLOOR) * share + FLOOR / len(scores)


def _findings(
    tools: Sequence[str],
    gains: Float[np.ndarray, "tool network"],
    control: Float[np.ndarray, "tool control"],
    criteria: Criteria,
    game: Game,
    settings: dict[str, Any],
) -> tuple[Finding, ...]:
    """That a tool predicts more than samples alone, and more than its weights on other fields."""

    def judged(number: int, q: float | None = None):
        return judge(
            gains[number], criteria, "held-out", control[number], KIND, adjusted_p=q, resamples=1999, seed=game.seed
        )

    p = benjamini_hochberg([judged(number).measurement.joint_p for number in range(len(tools))])
    told = record_provenance(
        "openwork.zoo.rules", hash_json(list(game.networks)), hash_json(settings), "cpu", torch.float32
    )
    found = [
        judged(number, float(q)).finding(name + CLAIM, game.seed, told, settings)
        for number, (name, q) in enumerate(zip(tools, p, strict=True))
    ]
    return tuple(sorted(found, key=lambda f: (f.verdict != "supported", -f.estimate)))


def _gains(mean: Float[np.ndarray, "tool network"], depths: Int[np.ndarray, " network"], seed: int) -> dict[str, Any]:
    """Gains over samples only with paired intervals, over all networks and at each depth of the rule."""
    out: dict[str, Any] = {}
    for name, some in (("gain", [depths >= 0]), ("gain_at_depth", [depths == d for d in sorted(set(depths.tolist()))])):
        rows = np.full((3, len(mean), len(some)), np.nan)
        for i, own in enumerate(mean):
            for j, here in enumerate(some):
                if here.sum() > 1:
                    found = paired_difference_interval(own[here], mean[0][here], seed=seed)
                    rows[:, i, j] = found.estimate, found.low, found.high
        axes = ("tool",) if name == "gain" else ("tool", "depth")
        for ending, values in zip(("", "_low", "_high"), rows, strict=True):
            out[name + ending] = (axes, values[:, 0] if name == "gain" else values)
    return out


def _remarks(shuffled: Float[np.ndarray, "network repeat"]) -> tuple[str, ...]:
    return (
        f"samples whose decisions were shuffled predict {shuffled.mean():.1%}",
        "the tools are applied to the ten known rows alone; patching to the other value of a field is an intervention "
        "that equals asking about a neighbouring row, and occlusion and Shapley values run rows without some fields",
    )


def _example() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.as_tensor(written(every_row()[:1], np.random.default_rng(0)))}


def summary(result: Result) -> dict[str, Any]:
    """A result as a scoreboard: one row a tool, as JSON values.

    Returns:
        ``tools``, each with its accuracy and gain as (estimate, low, high), the gain at each of ``depths``, the range
        of its controls and its verdict; ``remarks`` and ``settings``.
    """
    table = result.table
    verdicts = {finding.claim.removesuffix(CLAIM): finding for finding in result.findings}

    def numbers(name: str, **place: Any) -> list[float] | None:
        found = [round(float(table[name + end].sel(**place)), 5) for end in ("", "_low", "_high")]
        # one network has no interval
        return None if np.isnan(found).any() else found

    depths = [int(depth) for depth in table["depth"].values]
    rows = []
    for tool in map(str, table["tool"].values):
        finding = verdicts.get(tool)
        spread = table["control_gain"].sel(asked=tool).to_numpy() if tool != SAMPLES else np.zeros(1)
        rows.append(
            {
                "tool": tool, "accuracy": numbers("accuracy", tool=tool), "gain": numbers("gain", tool=tool),
                "gain_at_depth": [numbers("gain_at_depth", tool=tool, depth=depth) for depth in depths],
                "accuracy_at_depth": [
                    round(float(table["accuracy_of_draw"].sel(tool=tool)[table["hidden_depth"] == d].mean()), 5)
                    for d in depths
                ],
                "controls": [round(float(x), 5) for x in np.quantile(spread, (0.025, 0.5, 0.975))],
                "verdict": "" if finding is None else str(finding.verdict),
            }
        )  # fmt: skip
    return {
        "name": "pando", "networks": len(table["network"]), "depths": depths, "tools": rows,
        "shuffled": round(float(table["shuffled"].mean()), 5), "remarks": list(result.remarks),
        "settings": dict(result.settings),
    }  # fmt: skip
