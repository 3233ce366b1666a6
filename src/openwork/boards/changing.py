"""Watching a training, drift and phases of depth, as a scoreboard asks them of subjects that were built to have some.

Drift and phases are only observed, so their verdict is never *supported*. What counts here as supported is said in each
line: a head that is told to have moved or vanished; phases that lack nothing but an intervention.
"""

from __future__ import annotations

import numpy as np

from openwork.boards.frame import Contender, Terms
from openwork.boards.scoring import Answer
from openwork.boards.subjects import CHANGE, COURSE, DEPTH, Change, Course, Depth
from openwork.finding import Finding, Verdict
from openwork.geometry.drift import Drifting, drift
from openwork.geometry.phases import Phasing, phases
from openwork.geometry.samples import Sampling
from openwork.learning.induction import CLAIMED, Birth, Rows
from openwork.learning.watch import Watching, watch
from openwork.network import Network
from openwork.results.claims import Standard

ROWS = {"rows": 88, "tokens": 64, "labels": ()}
RESAMPLED = 60
BLOCKS = "module:blocks.*.out"
OBSERVED = ("the network was only observed: intervene on it",)
"""All that a finding lacks that could be supported."""
PHASES = "layers fall into phases"


def window_name(measure: str, begin: int, end: int) -> str:
    """A change of a measure as an item of the board."""
    return f"{measure} changes between {begin} and {end}"


def _watching(course: Course, terms: Terms, seed: int) -> Answer:
    """How much better each head matches prefixes after the change than before, and when each measure changes."""

    def begin(net: Network) -> Birth:
        return Birth.of(net, Rows(**ROWS, seed=seed))

    result = watch(course.checkpoints, begin, Watching(terms.alpha, RESAMPLED, seed=seed))
    verdicts = {}
    for finding in result.findings:
        verdicts[window_name(finding.settings["measure"], *finding.settings["window"])] = finding.verdict
    if not course.heads and course.window is not None:
        return Answer({}, verdicts)
    by_head = result.table["heads_prefix_matching"].to_numpy()
    steps = result.table["step"].to_numpy()
    window = result.table["window"].sel(measure="prefix_matching")
    before, after = (steps <= float(window.sel(end="begin"))), (steps >= float(window.sel(end="end")))
    gain = by_head[after].mean(0) - by_head[before].mean(0)
    scores = {f"blocks.{int(b)}.attn.z[{int(h)}]": float(gain[b, h]) for b, h in np.argwhere(np.isfinite(gain))}
    return Answer(scores, verdicts)


def _born(course: Course) -> frozenset[str]:
    """The heads, and every window of every claimed measure that names the known one."""
    steps = course.checkpoints.steps
    windows = (
        window_name(measure.name, begin, end)
        for measure in CLAIMED
        for i, begin in enumerate(steps)
        for end in steps[i + 1 :]
        if course.brackets(begin, end)
    )
    return course.heads | frozenset(windows)


def _drifting(change: Change, terms: Terms, seed: int) -> Answer:
    """How unlike itself each head has become; what is not told to be kept counts as supported."""
    method = Drifting(
        updates=1, untrained=2, sampling=Sampling(tokens=16, seed=seed), standard=Standard(alpha=terms.alpha),
        seed=seed,
    )  # fmt: skip
    table = drift(change.nets, change.rows, "blocks.*.resid_post", "blocks.*.attn.z", method).table
    own, names = table["own"].isel(stage=1).to_numpy(), table["part"].to_numpy().tolist()
    told = dict(zip(table["earlier_part"].to_numpy().tolist(), table["fate"].to_numpy().tolist(), strict=True))
    verdicts = {name: Verdict.REJECTED if told[name] == "kept" else Verdict.SUPPORTED for name in names}
    return Answer({name: float(1 - value) for name, value in zip(names, own, strict=True)}, verdicts)


def _phasing(depth: Depth, terms: Terms, seed: int) -> Answer:
    """In which share of resampled texts a phase begins at each layer, and whether walks have as much."""
    method = Phasing(sampling=Sampling(tokens=6, seed=seed), standard=Standard(alpha=terms.alpha), seed=seed)
    result = phases(depth.net, depth.rows, BLOCKS, method)
    phase, stable = result.table["phase"].to_numpy(), result.table["stability"].to_numpy()
    begins = np.flatnonzero(phase[1:] != phase[:-1]) + 1
    share = {i: float(stable[i] if i in begins else 1 - stable[i]) for i in range(1, len(phase))}
    verdicts = dict.fromkeys([PHASES], seen(result.findings[0])) if result.findings else {}
    return Answer({layer_name(i): value for i, value in share.items()}, verdicts)


def seen(finding: Finding) -> Verdict:
    """Supported, if nothing but an intervention is missing."""
    return Verdict.SUPPORTED if finding.reasons == OBSERVED else finding.verdict


def layer_name(layer: int) -> str:
    """The beginning of a phase as an item of the board."""
    return f"a phase begins at layer {layer}"


LINES = {
    "watch": Contender(
        "in which heads induction is born, and between which steps", "heads and windows", _watching, _born, kind=COURSE
    ),
    "drift": Contender(
        "which heads of a network have become others; what is told to have moved or vanished counts as supported",
        "heads", _drifting, lambda change: change.changed, kind=CHANGE,
    ),
    "phases": Contender(
        "where a phase of depth begins; more than random walks have counts as supported, though only observed",
        "layers", _phasing,
        lambda depth: frozenset([*map(layer_name, depth.begins), *([PHASES] if depth.begins else [])]), kind=DEPTH,
    ),
}  # fmt: skip
"""Name -> method."""
