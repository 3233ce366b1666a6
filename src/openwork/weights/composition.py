"""Which heads read what earlier heads write: composition by queries, keys and values, and a check by taking it away.

    compose(net, task)

The score of an earlier and a later head is ||A B|| / (||A|| ||B||), with A the OV circuit of the one and B the QK or OV
circuit of the other; beside it stands what matrices of the same spectra in random directions give. An edge is taken
away by subtracting what the earlier head adds from what the later one's queries, keys or values read.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits, "Composition scores".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.evidence import benjamini_hochberg
from openwork.network.measure import Tick, silent
from openwork.network.sweep import effects as summary
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.task import Inputs, Task
from openwork.weights.heads import Heads
from openwork.weights.removal import Edge, Removal

if TYPE_CHECKING:
    from openwork.finding import Finding
    from openwork.network import Network

Kind = Literal["q", "k", "v"]
KINDS: tuple[Kind, ...] = ("q", "k", "v")
EDGE_KIND = "vectors of equal length in random directions, kept from the same readers"
ORDER_KIND = "the same scores, dealt out to the edges at random"


@dataclass(frozen=True)
class Composition:
    """How to score compositions.

    Args:
        draws: random matrices of equal spectrum for each baseline.
        distance: how many tokens queries stand after their keys, where positions turn them.
        edges: edges that are taken away for the check: the highest scores, and as many at random.
        claims: how many edges, those whose score is highest above its baseline, to claim on the held-out split.
        standard: what a claim must meet.
        seed: of random matrices, edges, controls and intervals.
    """

    draws: int = 200
    distance: int = 0
    edges: int = 24
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 2 or self.distance < 0 or self.edges < 0 or self.claims < 0:
            raise BadInput(f"expected two draws or more, and nothing negative; got {self}")


@dataclass(frozen=True, eq=False)
class Scores:
    """Composition scores of all pairs of heads, NaN where the first does not come before the second.

    Args:
        heads: the heads by site, in order.
        score: (kind, earlier head, later head) from 0 to 1.
        baseline: what matrices of equal spectrum in random directions give on average.
        spread: the standard deviation of that.
    """

    heads: list[str]
    score: Float[np.ndarray, "kind earlier later"]
    baseline: Float[np.ndarray, "kind earlier later"]
    spread: Float[np.ndarray, "kind earlier later"]

    @property
    def excess(self) -> Float[np.ndarray, "kind earlier later"]:
        """Scores above their baselines."""
        return self.score - self.baseline


def composition_scores(heads: Heads, draws: int = 200, distance: int = 0, seed: int = 0) -> Scores:
    """Score every earlier head with every later one.

    Args:
        heads: the weights.
        draws: random matrices for each baseline.
        distance: see `Heads.qk`.
        seed: of these.

    Source:
        Elhage et al. 2021; the mean square of the baseline is exactly 1 / channels for square matrices of any spectrum.
    """
    places = heads.places
    width = next(iter(heads.layers.values())).q.shape[2]
    writers = _stacked([_reduced(heads.ov(*place).T) for place in places])
    readers: dict[Kind, Tensor] = {
        "q": _stacked([_reduced(heads.qk(*place, distance=distance)) for place in places]),
        "k": _stacked([_reduced(heads.qk(*place, distance=distance).T) for place in places]),
        "v": _stacked([_reduced(heads.ov(*place)) for place in places]),
    }
    generator = torch.Generator().manual_seed(seed)
    corners = _corners(width, writers.shape[2], readers["q"].shape[2], draws, generator)
    values = _corners(width, writers.shape[2], readers["v"].shape[2], draws, generator)
    own = torch.linalg.svdvals(writers)
    before = torch.tensor([[a < b for b, _ in places] for a, _ in places])
    found = []
    for kind in KINDS:
        read = readers[kind]
        other = torch.linalg.svdvals(read)
        whole = own.norm(dim=1)[:, None] * other.norm(dim=1)
        whole = torch.where(whole > 0, whole, torch.inf)
        score = torch.stack([torch.linalg.matrix_norm(writer.T @ read) for writer in writers]) / whole
        corner = values if kind == "v" else corners
        size = min(corner.shape[1], own.shape[1]), min(corner.shape[2], other.shape[1])
        chance = torch.einsum("ai,dij,bj->dab", own[:, : size[0]] ** 2, corner[:, : size[0], : size[1]],
                              other[:, : size[1]] ** 2).clamp_min(0).sqrt() / whole  # fmt: skip
        some = torch.stack((score, chance.mean(0), chance.std(0)))
        found.append(torch.where(before, some, torch.nan).numpy())
    score, baseline, spread = np.stack(found, 1)
    return Scores(heads.names, score, baseline, spread)


def _stacked(some: Sequence[Float[Tensor, "channel _"]]) -> Float[Tensor, "head channel rank"]:
    """One tensor, with zeros for what narrower heads lack."""
    rank = max(one.shape[1] for one in some)
    return torch.stack([torch.nn.functional.pad(one, (0, rank - one.shape[1])) for one in some]).cpu()


def _reduced(circuit: Any) -> Float[Tensor, "channel rank"]:
    """What reads the stream, with everything behind it rotated away: ``||X circuit|| == ||X reduced||`` for any X."""
    left, right = circuit.left.double(), circuit.right.double()
    return left @ torch.linalg.qr(right.T)[1].T


def _corners(width: int, rows: int, columns: int, draws: int, generator: torch.Generator) -> Float[Tensor, "draw i j"]:
    """Squared corners of random orthogonal matrices (Haar)."""
    out = []
    for _ in range(draws):
        normal = torch.randn(width, min(columns, width), generator=generator, dtype=torch.float64)
        frame, triangle = torch.linalg.qr(normal)
        out.append((frame * torch.sign(torch.diagonal(triangle)))[:rows] ** 2)
    return torch.stack(out)


def compose(net: Network, task: Task, method: Composition = Composition(), *, tick: Tick = silent) -> Result:
    """Score compositions by the weights, take edges away, and see whether the scores foretold what that does.

    Args:
        net: the network.
        task: a behaviour in which heads compose, such as induction.
        method: how.
        tick: told the share that is done.

    Returns:
        the findings: that the highest edges carry the behaviour, and that scores foretell which edges change what the
        later head hands on; and a table. Over ``composition`` (q, k, v), ``earlier`` and ``later`` head: ``score``,
        ``baseline``, ``spread``, ``excess``. Over ``edge``, those taken away on find examples: ``effect`` on the metric
        with ``low``, ``high``, ``p`` and ``q``; ``change`` of what the later head hands on, as a share of its length;
        ``edge_score``, ``edge_excess``; and whether it was among the highest (``chosen``).

    Raises:
        BadInput: for a task that is not of tokens, or a network with fewer than two attention layers.
        SiteRefused: if heads have no weights that could be read.

    Units:
        scores are fractions; effects are in the metric's unit.

    Source:
        Elhage et al. 2021; the check is path patching with a contribution removed, at the norm's scale as it was.
    """
    heads = Heads.of(net)
    if len(heads.layers) < 2:
        raise BadInput(
            f"expected two attention layers or more, for heads to compose; {net.name} has {len(heads.layers)}"
        )
    if not isinstance(task.clean, Inputs):
        raise BadInput(f"expected a task of tokens; {task.name!r} is of tensors")
    scores = composition_scores(heads, method.draws, method.distance, method.seed)
    tick(0.3)
    best = ranked(scores)
    chosen = best[: method.edges]
    others = best[method.edges :]
    drawn = np.random.default_rng(method.seed).permutation(len(others))[: method.edges]
    edges = [*chosen, *(others[i] for i in sorted(drawn))]
    settings = {**asdict(method), "task": task.name, "metric": task.metric.name}
    table = _table(heads, scores)
    findings: tuple[Finding, ...] = ()
    attributes: dict[str, Any] = {}
    if edges:
        removal = Removal.of(heads, task.split("find"), task.metric)
        lost, change = removal.measure(edges)
        tick(0.7)
        table = table.merge(_edge_table(scores, edges, len(chosen), lost, change))
        attributes["rank_correlation"] = _spearman(_values(scores, edges), change.mean(1))
        findings, held = _claims(heads, task, scores, edges, method, settings)
        table = table.assign(held)
    table.attrs.update(metric=task.metric.name, unit=task.metric.unit, network=net.name, **attributes)
    tick(1.0)
    return Result("composition of heads", findings, table, settings, _remarks(heads, method, attributes))


def ranked(scores: Scores) -> list[Edge]:
    """All edges, those with the highest excess over the baseline first."""
    places = [tuple(p) for p in np.argwhere(np.isfinite(scores.score)).tolist()]
    return [Edge(KINDS[k], a, b) for k, a, b in sorted(places, key=lambda p: -float(scores.excess[tuple(p)]))]


def _values(scores: Scores, edges: Sequence[Edge]) -> Float[np.ndarray, " edge"]:
    return np.array([scores.excess[KINDS.index(e.kind), e.earlier, e.later] for e in edges])  # type: ignore[arg-type]


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.stats import rankdata

    ra, rb = rankdata(a), rankdata(b)
    if len(a) < 3 or not ra.std() or not rb.std():
        return 0.0
    return float(np.corrcoef(ra, rb)[0, 1])


def _claims(
    heads: Heads, task: Task, scores: Scores, edges: Sequence[Edge], method: Composition, settings: dict[str, Any]
) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    """What the scores foretell, on held-out examples."""
    if not method.claims:
        return (), {}
    removal = Removal.of(heads, task.split("held-out"), task.metric)
    lost, change = removal.measure(edges)
    criteria = method.standard.criteria(removal.scale, task.metric.unit)
    best = edges[: method.claims]
    controls = np.stack([
        removal.random(edge, criteria.controls_needed, method.seed + i).mean(1) for i, edge in enumerate(best)
    ])  # fmt: skip
    effects = lost[: len(best)]
    texts = [
        f"{task.name} needs what {heads.names[e.earlier]} writes in the {e.what} of {heads.names[e.later]}"
        for e in best
    ]
    claims = Claims(heads.net, task, settings, method.seed)
    candidates = [Candidate(*one) for one in zip(texts, effects, controls, strict=True)]
    found = [*claimed(claims, criteria, candidates, EDGE_KIND)]
    held = held_out_table(texts, effects, controls)
    if len(edges) > 3:
        values = _values(scores, edges)
        own = np.array([_spearman(values, column) for column in change.T])
        rng = np.random.default_rng(method.seed)
        dealt = np.array([
            np.mean([_spearman(order, column) for column in change.T])
            for order in (rng.permutation(values) for _ in range(criteria.controls_needed))
        ])  # fmt: skip
        text = "composition scores foretell which edges change what the later head hands on"
        asked = method.standard.criteria(1.0, "rank correlation")
        found.append(claims.claim(text, own, asked, "held-out", dealt, ORDER_KIND))
        held["foretold"] = ("held_out_example", own)
    return tuple(found), held


def _table(heads: Heads, scores: Scores) -> Any:
    import xarray

    axes = ("composition", "earlier", "later")
    values = {"score": scores.score, "baseline": scores.baseline, "spread": scores.spread, "excess": scores.excess}
    coords = {"composition": list(KINDS), "earlier": heads.names, "later": heads.names}
    return xarray.Dataset({name: (axes, x) for name, x in values.items()}, coords)


def _edge_table(scores: Scores, edges: Sequence[Edge], chosen: int, lost: np.ndarray, change: np.ndarray) -> Any:
    import xarray

    own = summary(lost)
    index = [(KINDS.index(e.kind), e.earlier, e.later) for e in edges]  # type: ignore[arg-type]
    variables: dict[str, Any] = {name: ("edge", x) for name, x in own.items()}
    variables |= {
        "q": ("edge", benjamini_hochberg(np.nan_to_num(own["p"], nan=1.0))),
        "change": ("edge", change.mean(1)),
        "edge_score": ("edge", np.array([scores.score[i] for i in index])),
        "edge_excess": ("edge", np.array([scores.excess[i] for i in index])),
        "chosen": ("edge", np.arange(len(edges)) < chosen),
        "lost": (("edge", "example"), lost),
    }
    names = [e.said(scores.heads) for e in edges]
    return xarray.Dataset(variables, {"edge": names, "example": np.arange(lost.shape[1])})


def _remarks(heads: Heads, method: Composition, attributes: dict[str, Any]) -> tuple[str, ...]:
    remarks = [
        "weights read the stream in front of the norm, its gain and centring folded in, its scale and constant left out"
    ]
    scaled = sorted({part for layer in heads.layers.values() for part in layer.scaled})
    if scaled:
        remarks.append(f"norms divide {', '.join(scaled)} of heads; their weights have the size of typical inputs")
    if method.distance == 0:
        remarks.append("queries are taken at the position of their keys; where positions turn them, give a distance")
    if "rank_correlation" in attributes:
        remarks.append(
            "over the edges taken away on find examples, scores above baseline and changes of the later head have rank "
            f"correlation {attributes['rank_correlation']:.2f}"
        )
    return tuple(remarks)
