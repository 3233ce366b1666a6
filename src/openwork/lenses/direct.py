"""Direct logit attribution: how much each part of a network adds to a logit straight through the residual stream.

    attribute(net, task)                                      # of every head and MLP, to the logit difference
    attribute(net, task, DirectAttribution(by="neuron"))
    decompose(net, inputs, at).logits([17, 4])                # to the logits of any tokens

The final norm's scale is held at what it was, so that the logits are a sum over parts. Where the logits have a softcap,
what is attributed is the logit before it.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; nostalgebraist 2020; Wang et al. 2022,
section 3.1 (projection of head outputs on the logit difference, with the norm's scale frozen).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Patch
from openwork.errors import BadInput, SiteRefused, UnknownName
from openwork.evidence import benjamini_hochberg
from openwork.lenses.terms import BY, Terms, stream_terms
from openwork.network import measure
from openwork.network.anatomy import tolerance
from openwork.network.ends import Unembedding, last
from openwork.network.measure import Tick, silent
from openwork.network.run import Run
from openwork.network.sweep import effects as summary
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Site, Where
from openwork.task import LOGIT_DIFFERENCE, Batch, Inputs, Task

if TYPE_CHECKING:
    from openwork.dictionary import Dictionary
    from openwork.finding import Finding
    from openwork.network import Network

AT_ONCE = 1 << 28
"""Bytes of edited streams that are held at once."""
READ = "read from"
KIND = "vectors of equal length in random directions, taken out at the same place"
NORM_BIAS, LOGIT_BIAS = "final norm bias", "unembedding bias"


@dataclass(frozen=True)
class DirectAttribution:
    """How to attribute.

    Args:
        by: ``component``, ``head``, ``neuron`` or ``latent``; see `openwork.lenses.terms.stream_terms`.
        most: parts that are kept in the table, those with the largest mean attributions; others are summed up.
        checked: parts whose contribution is taken out of the stream for a check, again the largest.
        claims: how many parts, those that add most on the find split, to claim on the held-out one.
        standard: what a claim must meet.
        seed: of control directions and intervals.
    """

    by: str = "head"
    most: int = 1024
    checked: int = 64
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise UnknownName.among("way to split the stream", self.by, BY)
        if self.most < 1 or min(self.checked, self.claims) < 0:
            raise BadInput(f"expected most >= 1, and no negative number of checks or claims; got {self}")


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The stream behind the last block at one position of each example, as a sum, and how logits read it.

    Args:
        terms: what adds up.
        stream: (example, channel) the stream itself.
        shrink: (example, 1) 1 / scale of the final norm, as it was.
        read: from the stream to logits.
        logits_before_cap: (example, vocabulary) the network's own logits, before a softcap.
    """

    terms: Sequence[Terms]
    stream: Float[Tensor, "example channel"]
    shrink: Float[Tensor, "example 1"]
    read: Unembedding
    logits_before_cap: Float[Tensor, "example vocabulary"]

    @cached_property
    def names(self) -> list[str]:
        """All parts, and the biases that logits have beside the stream."""
        return [name for term in self.terms for name in term.names] + [NORM_BIAS, LOGIT_BIAS]

    def along(
        self, directions: Float[Tensor, "example channel"], biases: Float[Tensor, " example"]
    ) -> Float[Tensor, "example part"]:
        """What every part adds to one combination of logits for each example, in the order of `names`.

        Args:
            directions: (example, channel) of the combination behind the final norm.
            biases: (example,) of the combination.
        """
        readers = self.read.norm.fold(directions.to(self.stream)) * self.shrink
        parts = [term.along(readers) for term in self.terms]
        norm = (directions.to(self.stream) @ self.read.norm.constant.to(self.stream))[:, None]
        return torch.cat([*parts, norm, biases.to(self.stream)[:, None]], 1)

    def logits(self, tokens: Sequence[int]) -> Any:
        """What every part adds to the logits of some tokens.

        Args:
            tokens: the tokens.

        Returns:
            an `xarray.Dataset`: ``attribution`` (example, part, token), and ``logit`` and ``residual`` (example,
            token): the logit before a softcap, and what the sum leaves of it.

        Raises:
            BadInput: for a token that does not exist.
        """
        import xarray

        size = self.logits_before_cap.shape[1]
        if not tokens or not all(0 <= t < size for t in tokens):
            raise BadInput(f"expected tokens from 0 to {size - 1}, at least one; got {list(tokens)}")
        n = len(self.stream)
        rows, biases = self.read.rows(list(tokens)), self.read.biases(list(tokens))
        found = [self.along(r.expand(n, -1), b.expand(n)) for r, b in zip(rows, biases, strict=True)]
        parts = torch.stack(found, -1)
        logit = self.logits_before_cap[:, list(tokens)]
        values = {
            "attribution": (("example", "part", "token"), parts.cpu().numpy()),
            "logit": (("example", "token"), logit.cpu().numpy()),
            "residual": (("example", "token"), (logit - parts.sum(1)).cpu().numpy()),
        }
        return xarray.Dataset(values, {"part": self.names, "token": list(tokens)})


def decompose(
    net: Network, inputs: Any, at: Sequence[int], by: str = "head", dictionary: Dictionary | None = None
) -> Decomposition:
    """Take the stream that the logits of one position read apart.

    Args:
        net: the network.
        inputs: `Inputs` of tokens, text or texts.
        at: the position of each example.
        by: what to take it apart into; see `openwork.lenses.terms.stream_terms`.
        dictionary: whose latents, with ``by="latent"``.

    Raises:
        SiteRefused: if the stream is no sum, or logits read it through more than a norm and a matrix; if the parts do
            not add up to it.
        BadInput: for inputs that are no tokens, or a dictionary that does not fit.
    """
    inputs = _tokens(net, inputs)
    if len(at) != len(inputs) or any(not 0 <= p < n for p, n in zip(at, inputs.lengths, strict=True)):
        raise BadInput(f"expected a position within each of {len(inputs)} rows; got {list(at)}")
    read, end = Unembedding.of(net), last(net)
    reader = read.norm.gives
    run = net.run(inputs, keep=[end] if reader == end else [end, reader])
    columns = [p + offset for p, offset in zip(at, run.layout.offsets, strict=True)]
    rows = list(range(len(columns)))
    stream, normed, logits = (x[rows, columns].detach().float() for x in (run[end], run[reader], run.logits))
    terms = stream_terms(net, inputs, at, by, dictionary)
    made = torch.stack([term.total for term in terms]).sum(0)
    off = float((made - stream).abs().max() / stream.abs().max().clamp_min(1e-30))
    if not off <= 10 * tolerance(net.dtype):
        raise SiteRefused(
            f"the parts of {end} that are known do not add up to it: they leave {off:.0e} of the largest value"
        )
    return Decomposition(terms, stream, read.norm.shrink(stream, normed), read, read.uncapped(logits))


def attribute(
    net: Network,
    task: Task,
    method: DirectAttribution = DirectAttribution(),
    dictionary: Dictionary | None = None,
    *,
    tick: Tick = silent,
) -> Result:
    """Attribute a task's logit difference to the parts of the network, and check it by taking contributions out.

    A claim says that a part writes the difference: its contribution, and nothing else, is taken out of the stream that
    the final norm reads, on held-out examples, with the norm free to react; beside it stand random vectors as long.

    Args:
        net: the network.
        task: the behaviour; right and wrong answers say which logits.
        method: how.
        dictionary: whose latents, with ``by="latent"``.
        tick: told the share that is done.

    Returns:
        the findings, and a table. Over ``component`` (heads, MLPs, neurons, latents): ``effect``, the mean attribution
        on find examples, with ``low``, ``high``, ``p`` and ``q``; ``removed`` with its interval, the difference lost
        when the contribution is taken out, for the parts that were checked; ``attribution`` of every ``example``. Over
        ``term`` (embedding, position, biases, what was summed up): ``direct`` with its interval. ``difference`` and
        ``residual`` of every example: the logit difference before a softcap, and what the sum of all leaves of it.

    Raises:
        SiteRefused, BadInput: as `decompose`.
        SiteRefused: if the sum leaves more than rounding.

    Units:
        nats.

    Source:
        Elhage et al. 2021; Wang et al. 2022, section 3.1.
    """
    find = task.split("find")
    found = _Found.of(net, find, method, dictionary)
    tick(0.3)
    values = found.values
    mean = values.mean(1)
    components = [i for i, kind in enumerate(found.kinds) if kind != "rest"]
    kept = sorted(components, key=lambda i: -abs(mean[i]))[: method.most]
    kept, others = sorted(kept), sorted({*components} - {*kept})
    checked = sorted(kept, key=lambda i: -abs(mean[i]))[: method.checked]
    lost = _lost(net, find, torch.stack([found.vectors(i) for i in checked])) if checked else np.zeros((0, len(find)))
    tick(0.6)
    chosen = sorted(kept, key=lambda i: -mean[i])[: method.claims]
    chosen = [i for i in chosen if mean[i] > 0]
    settings = {**asdict(method), "task": task.name, "metric": LOGIT_DIFFERENCE.name}
    findings, held = _claims(net, task, [found.names[i] for i in chosen], method, settings, dictionary)
    table = _table(found, kept, others, checked, lost).assign(held)
    agreement = _correlation(mean[checked], lost.mean(1)) if len(checked) > 2 else float("nan")
    table.attrs.update(
        metric=LOGIT_DIFFERENCE.name, unit=LOGIT_DIFFERENCE.unit, network=net.name, by=method.by,
        largest_residual=float(np.abs(found.residual).max()), correlation_with_removal=agreement,
    )  # fmt: skip
    tick(1.0)
    return Result("direct logit attribution", findings, table, settings, _remarks(found, others, agreement, method))


@dataclass(frozen=True, eq=False)
class _Found:
    """The parts of a batch, and what each adds to the logit difference."""

    parts: Decomposition
    names: list[str]
    kinds: list[str]
    layers: list[int]
    values: Float[np.ndarray, "part example"]
    difference: Float[np.ndarray, " example"]

    @classmethod
    def of(cls, net: Network, batch: Batch, method: DirectAttribution, dictionary: Dictionary | None) -> _Found:
        parts = decompose(net, batch.clean, batch.at, method.by, dictionary)
        answer, wrong = list(batch.answer), list(batch.wrong)
        directions = parts.read.rows(answer) - parts.read.rows(wrong)
        values = parts.along(directions, parts.read.biases(answer) - parts.read.biases(wrong)).double().cpu().numpy()
        rows = range(len(batch))
        logits = parts.logits_before_cap
        difference = (logits[rows, answer] - logits[rows, wrong]).double().cpu().numpy()
        off = np.abs(difference - values.sum(1)) / np.abs(values).sum(1).clip(1e-30)
        if off.max() > 10 * tolerance(net.dtype):
            raise SiteRefused(
                f"the attributions do not add up to the logit difference on {net.name}: they leave {off.max():.0e} of "
                "the sum of their sizes"
            )
        kinds = [term.kind for term in parts.terms for _ in term.names] + ["rest", "rest"]
        layers = [term.layer for term in parts.terms for _ in term.names] + [-1, -1]
        return cls(parts, parts.names, kinds, layers, values.T, difference)

    @property
    def residual(self) -> Float[np.ndarray, " example"]:
        return self.difference - self.values.sum(0)

    def vectors(self, part: int) -> Float[Tensor, "example channel"]:
        """The contribution of one part to the stream."""
        for term in self.parts.terms:
            if part < len(term.names):
                return term.vectors(part)
            part -= len(term.names)
        raise IndexError(part)


def _tokens(net: Network, inputs: Any) -> Inputs:
    if isinstance(inputs, Inputs):
        return inputs
    texts = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(texts, Sequence) and texts and all(isinstance(text, str) for text in texts):
        return Inputs(tuple(tuple(net.encode(text)) for text in texts))
    raise BadInput(f"expected Inputs of tokens, or text; got {type(inputs).__name__}")


def _lost(
    net: Network, batch: Batch, vectors: Float[Tensor, "cell example channel"]
) -> Float[np.ndarray, "cell example"]:
    """The logit difference lost when a vector is taken out of the stream that the logits read."""
    site = last(net)
    assert isinstance(batch.clean, Inputs)
    grouped = Inputs(batch.clean.ids, {**batch.clean.groups, READ: tuple((at,) for at in batch.at)})
    batch = Batch(grouped, grouped, batch.answer, batch.wrong, batch.at, batch.split)
    run = net.run(grouped, keep=site)
    stream = run[site].detach()
    columns = [at + offset for at, offset in zip(batch.at, run.layout.offsets, strict=True)]
    step = max(1, AT_ONCE // max(1, stream.nbytes))
    out = []
    for start in range(0, len(vectors), step):
        cells, sources = [], {}
        for number, vector in enumerate(vectors[start : start + step]):
            changed = stream.clone()
            changed[range(len(columns)), columns] -= vector.to(stream)
            sources[f"without {number}"] = Run(None, {site: changed}, run.layout)
            cells.append((Patch(site, Where(group=READ), source=f"without {number}"),))
        found = measure(net, batch, LOGIT_DIFFERENCE, cells, sources=sources)
        out.append(found.base - found.values)
    return np.concatenate(out)


def _claims(
    net: Network,
    task: Task,
    names: Sequence[str],
    method: DirectAttribution,
    settings: dict[str, Any],
    dictionary: Dictionary | None,
) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    """Findings about parts on held-out examples, with their controls."""
    if not names:
        return (), {}
    batch = task.split("held-out")
    found = _Found.of(net, batch, method, dictionary)
    criteria = method.standard.criteria(float(found.difference.mean()), LOGIT_DIFFERENCE.unit)
    vectors = torch.stack([found.vectors(found.names.index(name)) for name in names])
    effects = _lost(net, batch, vectors)
    controls = np.stack([
        _lost(net, batch, _random(vector, criteria.controls_needed, method.seed + number)).mean(1)
        for number, vector in enumerate(vectors)
    ])  # fmt: skip
    claims = Claims(net, task, settings, method.seed)
    texts = [f"{name} writes the logit difference of {task.name} straight to the logits" for name in names]
    candidates = [Candidate(*one) for one in zip(texts, effects, controls, strict=True)]
    own = np.stack([found.values[found.names.index(name)] for name in names])
    held = held_out_table(texts, effects, controls)
    held["claimed_attribution"] = (("claim", "held_out_example"), own)
    return claimed(claims, criteria, candidates, KIND), held


def _random(vector: Tensor, count: int, seed: int) -> Float[Tensor, "control example channel"]:
    """Vectors as long as those given, in one random direction for each control."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(count, 1, vector.shape[-1], generator=generator).to(vector)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return vector.norm(dim=-1, keepdim=True)[None] * directions


def _table(found: _Found, kept: list[int], others: list[int], checked: list[int], lost: np.ndarray) -> Any:
    import xarray

    own = summary(found.values[kept])
    variables: dict[str, Any] = {name: ("component", x) for name, x in own.items()}
    variables["q"] = ("component", benjamini_hochberg(np.nan_to_num(own["p"], nan=1.0)))
    variables["attribution"] = (("component", "example"), found.values[kept])
    removed = {name: np.full(len(kept), np.nan) for name in ("removed", "removed_low", "removed_high")}
    if checked:
        places = [kept.index(i) for i in checked]
        for name, values in zip(removed, (summary(lost)[k] for k in ("effect", "low", "high")), strict=True):
            removed[name][places] = values
    variables |= {name: ("component", values) for name, values in removed.items()}
    rest = [i for i, kind in enumerate(found.kinds) if kind == "rest"]
    rows, labels = [found.values[i] for i in rest], [found.names[i] for i in rest]
    if others:
        rows, labels = [*rows, found.values[others].sum(0)], [*labels, f"{len(others)} smaller parts"]
    rows, labels = [*rows, found.residual], [*labels, "residual of the sum"]
    terms = summary(np.stack(rows))
    ends = {"direct": "effect", "direct_low": "low", "direct_high": "high"}
    variables |= {name: ("term", terms[key]) for name, key in ends.items()}
    variables["term_attribution"] = (("term", "example"), np.stack(rows))
    variables |= {"difference": ("example", found.difference), "residual": ("example", found.residual)}
    coords = {
        "component": [found.names[i] for i in kept],
        "layer": ("component", [found.layers[i] for i in kept]),
        "kind": ("component", [found.kinds[i] for i in kept]),
        "index": ("component", [_index(found.names[i]) for i in kept]),
        "term": labels,
        "example": np.arange(len(found.difference)),
    }
    return xarray.Dataset(variables, coords)


def _index(name: str) -> int:
    """The number of a head, neuron or latent; -1 for a whole sub-layer."""
    head, _, latent = name.partition(" latent ")
    return int(latent) if latent else next(iter(Site.parse(head).index), -1)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(a, b)[0, 1])


def _remarks(found: _Found, others: list[int], agreement: float, method: DirectAttribution) -> tuple[str, ...]:
    cap = found.parts.read.cap
    remarks = [
        f"the sum of all parts and biases leaves at most {np.abs(found.residual).max():.1e} nats of a logit difference",
        f"over the parts that were checked, {method.checked} at most, attributions and what is lost when contributions "
        f"are taken out, with the final norm free, correlate at {agreement:.2f}",
    ]
    if cap is not None:
        remarks.append(f"attributions are of logits before the softcap at {cap:.3g}; what is lost is after it")
    if others:
        remarks.append(f"{len(others)} parts with smaller attributions are one term")
    return tuple(remarks)
