"""Judges of attributions, as a scoreboard asks them: do they tell a right attribution from a wrong one?

Each judges attributions of which it is known which are right: those that name the tokens that the network reads, beside
the same scores at other tokens; those that ask the weights, beside some that do not; those that hardly change with the
input, beside one that changes all the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from openwork.attribution.attribute import METHODS
from openwork.boards.attributing import UNKNOWN, read_groups
from openwork.boards.frame import Contender, Terms
from openwork.boards.problem import Problem
from openwork.boards.scoring import Answer
from openwork.causal.candidates import sign_of
from openwork.faithfulness.attributions import Explainer, Given, Scores, lengths_of, members_of, real_tokens
from openwork.faithfulness.baseline import Baseline
from openwork.faithfulness.infidelity import Infidelity, infidelity
from openwork.faithfulness.randomisation import Randomisation, randomise
from openwork.faithfulness.removal import Removal, remove
from openwork.faithfulness.sensitivity import Sensitivity, sensitivity
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.task import Batch, Metric

if TYPE_CHECKING:
    from openwork.network import Network

COPIES = 3
"""Attributions of either kind."""
BLUR = 0.2
"""Noise on the scores of those that name tokens, against 1 for a token that is read."""
STEPS, DRAWS = 6, 2
"""Of a removal curve, and of a removed token."""
ASKING = ("gradient x input", "relp")
Make = Callable[[Problem, int], Mapping[str, Explainer]]


@dataclass(frozen=True)
class Fixed:
    """Scores of tokens that have nothing to do with weights: how far each stands from some place.

    Args:
        place: which, as a share of the row.
    """

    place: float

    def scores(self, net: Network, batch: Batch, metric: Metric) -> Scores:
        """Minus the distance of each token from the place."""
        here = real_tokens(batch)
        at = self.place * (np.array(lengths_of(batch))[:, None] - 1)
        return np.where(here, -np.abs(np.arange(here.shape[1]) - at), np.nan)


@dataclass(frozen=True)
class Embedded:
    """Scores that follow what the network reads of each token smoothly: its embedding along some direction, squared.

    Args:
        seed: of the direction.
        erratic: draw the scores anew for every value of the embeddings instead, however little they differ.
    """

    seed: int
    erratic: bool = False

    def scores(self, net: Network, batch: Batch, metric: Metric) -> Scores:
        """One number for each token."""
        run = net.run(batch.clean, keep=["embed"], until="embed")
        rows = [row.double().numpy() for row in run.rows("embed")]
        if self.erratic:
            digest = hashlib.sha256(b"".join(row.tobytes() for row in rows)).digest()
            rng = np.random.default_rng([self.seed, *digest])
            found = [rng.normal(size=len(row)) for row in rows]
        else:
            along = np.random.default_rng(self.seed).normal(size=rows[0].shape[1])
            found = [1 + np.square(row @ along) for row in rows]
        out = np.full((len(rows), max(map(len, rows))), np.nan)
        for number, row in enumerate(found):
            out[number, : len(row)] = row
        return out


RIGHT, WRONG = "right", "wrong"


def naming(problem: Problem, seed: int) -> Mapping[str, Explainer]:
    """Attributions that name the tokens that are read, blurred, and the same at other tokens."""
    batch, rng = problem.task.split("held-out"), np.random.default_rng(seed)
    true, here = members_of(batch, read_groups(problem)).astype(float), real_tokens(batch)
    found: dict[str, Explainer] = {}
    for copy in range(COPIES):
        scores = true + BLUR * rng.normal(size=true.shape)
        other = scores.copy()
        for row, places in zip(other, here, strict=True):
            at = np.flatnonzero(places)
            # turned round, so that no token keeps its score
            row[at] = row[np.roll(at, 1 + int(rng.integers(max(1, len(at) - 1))))]
        for kind, values in ((RIGHT, scores), (WRONG, other)):
            found[f"{kind} {copy}"] = Given(np.where(here, sign_of(problem.task.metric) * values, np.nan))
    return found


def asking(problem: Problem, seed: int) -> Mapping[str, Explainer]:
    """Attributions that depend on the weights, and some that do not."""
    right = {f"{RIGHT}: {name}": METHODS[name] for name in ASKING}
    return {**right, **{f"{WRONG} {i}": Fixed(float(i)) for i in range(len(ASKING))}}


def steady(problem: Problem, seed: int) -> Mapping[str, Explainer]:
    """Attributions that follow the input smoothly, and some that jump."""
    right = {f"{RIGHT} {i}": Embedded(seed + i) for i in range(COPIES)}
    return {**right, **{f"{WRONG} {i}": Embedded(seed + i, erratic=True) for i in range(COPIES)}}


def _judging(
    make: Make, judge: Callable[[Problem, Mapping[str, Explainer], Terms, int], Result], judged: Sequence[str],
    sign: int = 1,
):  # fmt: skip
    def look(problem: Problem, terms: Terms, seed: int) -> Answer:
        explainers = make(problem, seed)
        result = judge(problem, explainers, terms, seed)
        # of a cascade of layers, all of them random
        values = [result.table[name].isel(way=0, layer_name=-1, missing_dims="ignore") for name in judged]
        scores = {name: sign * sum(float(v.sel(explainer=name)) for v in values) for name in explainers}
        named = [next(name for name in explainers if f" {name} " in f.claim) for f in result.findings]
        return Answer(scores).with_claims(result.findings, named)

    return look


def _standard(terms: Terms) -> Standard:
    return Standard(alpha=terms.alpha)


def _removing(problem: Problem, explainers: Mapping[str, Explainer], terms: Terms, seed: int) -> Result:
    method = Removal(Baseline("resample", draws=DRAWS, seed=seed), STEPS, _standard(terms), seed)
    return remove(problem.net, problem.task, explainers, method)


def _adding_up(problem: Problem, explainers: Mapping[str, Explainer], terms: Terms, seed: int) -> Result:
    method = Infidelity(Baseline("resample", draws=DRAWS, seed=seed), standard=_standard(terms), seed=seed)
    return infidelity(problem.net, problem.task, explainers, method)


def _randomising(problem: Problem, explainers: Mapping[str, Explainer], terms: Terms, seed: int) -> Result:
    method = Randomisation(1, _standard(terms), seed=seed)
    return randomise(problem.net, problem.task, explainers, method)


def _moving(problem: Problem, explainers: Mapping[str, Explainer], terms: Terms, seed: int) -> Result:
    return sensitivity(problem.net, problem.task, explainers, Sensitivity(standard=_standard(terms), seed=seed))


def _right(make: Make) -> Callable[[Problem], frozenset[str]]:
    return lambda problem: frozenset(name for name in make(problem, 0) if name.startswith(RIGHT))


def _unread(problem: Problem) -> str:
    groups = read_groups(problem)
    if not groups:
        return UNKNOWN
    missing = [name for name in groups if name not in problem.task.clean.groups]
    return f"the task names no tokens {missing}" if missing else ""


OF = "attributions"
LINES: Mapping[str, Contender] = {
    "judge, removal": Contender(
        "what the metric loses and gains when tokens go and come in the order of an attribution", OF,
        _judging(naming, _removing, ("area_deletion", "area_insertion")), _right(naming), _unread,
    ),
    "judge, infidelity": Contender(
        "the share of what sets of tokens cost that an attribution tells", OF,
        _judging(naming, _adding_up, ("share_explained",)), _right(naming), _unread,
    ),
    "judge, random weights": Contender(
        "how much of an attribution remains when the weights are random", OF,
        _judging(asking, _randomising, ("similarity",), -1), _right(asking),
    ),
    "judge, sensitivity": Contender(
        "how much of an attribution changes when embeddings move a little", OF,
        _judging(steady, _moving, ("share_changed",), -1), _right(steady),
    ),
}  # fmt: skip
"""Name -> method."""
