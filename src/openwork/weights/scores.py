"""What every head does, by its weights and by its attention: previous token, duplicate token, induction, copying.

    score_heads(net, task)

By the weights alone: where a head looks because of positions (every token is the mean token), and whether it raises the
logits of what it attends to (copying), by eigenvalues of its full OV circuit and by the rank of each token. By its
attention on random tokens that are repeated: previous token, duplicate token, prefix matching.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits (eigenvalue summary of copying); Olsson et
al. 2022, In-context Learning and Induction Heads (prefix matching and copying scores on repeated random tokens).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openwork.edit import Ablate, Custom, Twin
from openwork.errors import BadInput, SiteRefused
from openwork.network import measure
from openwork.network.ends import Embedding, Unembedding
from openwork.network.measure import Tick, silent
from openwork.network.sweep import effects as summary
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.task import Inputs, Task
from openwork.weights.circuits import Ends
from openwork.weights.heads import Heads

if TYPE_CHECKING:
    from openwork.finding import Finding
    from openwork.network import Network

ROLES = ("previous token", "duplicate token", "induction")
"""What a head may be claimed to be, by the score of that name."""
AT_ONCE = 32
"""Rows that run at once."""
ENDS = (("", "effect"), ("_low", "low"), ("_high", "high"))
KIND = "changes of equal size at the same head in random directions"


@dataclass(frozen=True)
class HeadScoring:
    """How to score heads.

    Args:
        rows: rows of repeated random tokens.
        span: random tokens of each, which then come again.
        tokens: tokens whose rank in the head's full OV circuit is looked at; all if there are fewer.
        top: the rank that counts as copied.
        claims: how many roles to claim for the best head of each.
        standard: what a claim must meet.
        seed: of tokens, controls and intervals.
    """

    rows: int = 16
    span: int = 16
    tokens: int = 256
    top: int = 5
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.rows, self.tokens, self.top) < 1 or self.span < 3 or not 0 <= self.claims <= len(ROLES):
            raise BadInput(f"expected rows, tokens and top of 1 or more, span of 3 or more, up to 3 claims; got {self}")


def score_heads(net: Network, task: Task, method: HeadScoring = HeadScoring(), *, tick: Tick = silent) -> Result:
    """Score every head, and ask of the best of each kind whether the behaviour needs it.

    Args:
        net: a network that predicts a next token, whose attention is causal.
        task: the behaviour.
        method: how.
        tick: told the share that is done.

    Returns:
        the findings, one for the best previous-token, duplicate-token and induction head: replacing what it hands on by
        its mean lowers the metric; and a table. Over ``component``, the heads, on repeated random tokens:
        ``share_previous_token``, ``share_duplicate_token`` and ``share_induction`` (attention from a repeated token to
        the one after its first copy) with their intervals over rows. By weights: ``previous_by_position``,
        ``first_by_position``, ``self_by_position``, left out where positions are no part of the stream or the heads;
        ``copying`` (sum of eigenvalues over the sum of their sizes) and ``copied`` (share of tokens whose own logit the
        circuit raises to the top). ``by_position`` (component, offset) is the attention to the token `offset` back;
        ``real`` and ``imaginary`` (component, eigenvalue) are eigenvalues. ``tied`` is how far the unembedding is from
        the embedding, as a share of its size.

    Raises:
        SiteRefused: if heads have no weights that could be read.
        BadInput: if attention is not causal, or there are too few tokens for `span`.

    Units:
        shares of attention, and shares of eigenvalues or tokens; claims are in the metric's unit.

    Source:
        Elhage et al. 2021; Olsson et al. 2022.
    """
    if not net.causal:
        raise BadInput(f"expected a network whose tokens see only what came before; {net.name} sees both sides")
    heads = Heads.of(net)
    values = attention_scores(heads, method)
    tick(0.3)
    variables, remarks = _by_attention(values), []
    try:
        pattern = by_position(heads, min(2 * method.span, 32))
        variables |= _positions(pattern)
    except SiteRefused as error:
        remarks.append(f"no scores by position: {error}")
    try:
        variables |= _copying(heads, method)
    except SiteRefused as error:
        remarks.append(f"no scores of copying: {error}")
    tick(0.6)
    settings = {**asdict(method), "task": task.name, "metric": task.metric.name}
    findings, held = _claims(heads, task, values, method, settings)
    table = _table(heads, variables).assign(held)
    table.attrs.update(metric=task.metric.name, unit=task.metric.unit, network=net.name, tied=_tied(net))
    tick(1.0)
    return Result("scores of heads", findings, table, settings, tuple(remarks))


def repeated_tokens(vocabulary: int, rows: int, span: int, seed: int) -> Int[Tensor, "row position"]:
    """Random tokens, no two of a row alike, and the same again.

    Raises:
        BadInput: if there are fewer tokens than the span asks for.
    """
    if span > vocabulary:
        raise BadInput(f"expected a span of at most {vocabulary} different tokens; got {span}")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randperm(vocabulary, generator=generator)[:span] for _ in range(rows)])
    return torch.cat((drawn, drawn), 1)


def attention_scores(heads: Heads, method: HeadScoring) -> dict[str, Float[np.ndarray, "head row"]]:
    """Mean attention of each head on repeated random tokens, over the repetition, by row.

    Returns:
        role -> scores: to the previous token, to the first copy of the same token, and to the token after that.

    Source:
        Olsson et al. 2022, prefix matching.
    """
    net, span = heads.net, method.span
    assert net.vocabulary is not None
    ids = repeated_tokens(net.vocabulary, method.rows, span, method.seed)
    keep = [f"{layer.name}.pattern" for layer in heads.layers.values()]
    return looking_back(net, Inputs(tuple(map(tuple, ids.tolist()))), keep, range(span, 2 * span), span)


def looking_back(
    net: Network, repeated: Inputs, patterns: Sequence[str], queries: Iterable[int], span: int
) -> dict[str, Float[np.ndarray, "head row"]]:
    """Where heads look from the second copy of a repeated span: the mean over some of its tokens, by row.

    Args:
        net: the network.
        repeated: rows that end in a span and the span again.
        patterns: the attention patterns whose heads are looked at.
        queries: positions in the second copy.
        span: tokens of the span.

    Returns:
        for each of `ROLES` the attention to the token before, to the first copy of the same token, and to the token
        after that.

    Source:
        Olsson et al. 2022, "Prefix-matching score" and "Previous-token attention score".
    """
    at = torch.as_tensor(list(queries))
    parts: dict[str, list[Tensor]] = {role: [] for role in ROLES}
    for start in range(0, len(repeated), AT_ONCE):
        rows = repeated.take(range(start, min(start + AT_ONCE, len(repeated))))
        run = net.run(rows, keep=[*patterns], until=patterns[-1])
        pattern = torch.cat([run[site].detach().double().cpu() for site in patterns], 1)
        for role, n in zip(ROLES, (1, span, span - 1), strict=True):
            parts[role].append(pattern[:, :, at, at - n].mean(-1).T)
    return {role: torch.cat(found, 1).numpy() for role, found in parts.items()}


def by_position(heads: Heads, length: int) -> Float[Tensor, "head query key"]:
    """Where heads look because of positions alone: in front of every layer stands the mean token at each position.

    Raises:
        SiteRefused: if the stream does not begin as the sum of token and position.
    """
    net = heads.net
    ends = Embedding.of(net, length)
    stream = ends.tokens.mean(0) + ends.places
    keep = [f"{layer.name}.pattern" for layer in heads.layers.values()]

    def write(value: Tensor) -> Tensor:
        return stream.to(value).expand_as(value).clone()

    edits = [Custom(f"blocks.{block}.resid_pre", fn=write) for block in heads.layers]
    run = net.run(torch.zeros(1, length, dtype=torch.long), keep=keep, edits=edits, until=keep[-1])
    return torch.cat([run[site].detach().double().cpu() for site in keep], 1)[0]


def _by_attention(values: dict[str, np.ndarray]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for role, scores in values.items():
        own, name = summary(scores), f"share_{role.replace(' ', '_')}"
        out |= {name + end: ("component", own[key]) for end, key in ENDS}
    return out


def _positions(pattern: Float[Tensor, "head query key"]) -> dict[str, Any]:
    length = pattern.shape[-1]
    offsets = [pattern.diagonal(-n, 1, 2).mean(-1).numpy() for n in range(min(length - 1, 16))]
    return {
        "previous_by_position": ("component", offsets[1]),
        "self_by_position": ("component", offsets[0]),
        "first_by_position": ("component", pattern[:, 1:, 0].mean(-1).numpy()),
        "by_position": (("component", "offset"), np.stack(offsets, 1)),
    }


def _copying(heads: Heads, method: HeadScoring) -> dict[str, Any]:
    ends = Ends.of(heads)
    size = ends.vocabulary
    chosen = torch.randperm(size, generator=torch.Generator().manual_seed(method.seed))[: method.tokens]
    values, copied = [], []
    for place in heads.places:
        full = ends.ov(*place)
        values.append(full.eigenvalues().cpu().numpy())
        ranks = []
        for part in chosen.split(max(1, (1 << 22) // size)):
            rows = full.rows(part)
            own = rows.gather(1, part.to(rows.device)[:, None])
            ranks.append(((rows > own).sum(1) < method.top) & (own[:, 0] > 0))
        copied.append(float(torch.cat(ranks).double().mean()))
    width = max(map(len, values))
    real, imaginary = np.full((len(values), width), np.nan), np.full((len(values), width), np.nan)
    for i, some in enumerate(values):
        real[i, : len(some)], imaginary[i, : len(some)] = some.real, some.imag
    return {
        "copying": ("component", np.array([copying_score(some) for some in values])),
        "copied": ("component", np.array(copied)),
        "real": (("component", "eigenvalue"), real),
        "imaginary": (("component", "eigenvalue"), imaginary),
    }


def copying_score(eigenvalues: np.ndarray) -> float:
    """Sum of eigenvalues over the sum of their sizes: 1 for a circuit that raises what it reads, -1 for the opposite.

    Source: Elhage et al. 2021, "Copying as an eigenvalue property".
    """
    total = float(np.abs(eigenvalues).sum())
    return float(eigenvalues.sum().real) / total if total > 0 else 0.0


def _tied(net: Network) -> float:
    """How far the unembedding is from the embedding, relative to its size; 0 for tied ones, NaN where sizes differ."""
    try:
        tokens, weight = Embedding.of(net, 2).tokens, Unembedding.of(net).weight.float()
    except SiteRefused:
        return float("nan")
    if tokens.shape != weight.shape:
        return float("nan")
    factor = float((tokens * weight).sum() / tokens.pow(2).sum().clamp_min(1e-30))
    return float((weight - factor * tokens).norm() / weight.norm().clamp_min(1e-30))


def _claims(
    heads: Heads, task: Task, values: dict[str, np.ndarray], method: HeadScoring, settings: dict[str, Any]
) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    """The best head of each role, and whether the behaviour needs it on held-out examples."""
    best = {role: int(values[role].mean(1).argmax()) for role in ROLES}
    roles = sorted(ROLES, key=lambda role: -float(values[role].mean(1).max()))[: method.claims]
    if not roles:
        return (), {}
    batch = task.split("held-out")
    edits = [Ablate(heads.names[best[role]], how="mean") for role in roles]
    sign = 1.0 if task.metric.higher_is_better else -1.0
    found = measure(heads.net, batch, task.metric, [(edit,) for edit in edits])
    criteria = method.standard.criteria(float(found.base.mean()), task.metric.unit)
    effects = sign * (found.base - found.values)
    twins = [(Twin(of=edit, seed=method.seed + i),) for edit in edits for i in range(criteria.controls_needed)]
    other = measure(heads.net, batch, task.metric, twins)
    controls = (sign * (other.base - other.values)).mean(1).reshape(len(edits), -1)
    texts = [
        f"{task.name} needs {heads.names[best[role]]}, whose {role} score is the highest, "
        f"{values[role].mean(1).max():.2f}"
        for role in roles
    ]
    claims = Claims(heads.net, task, settings, method.seed)
    candidates = [Candidate(*one) for one in zip(texts, effects, controls, strict=True)]
    return claimed(claims, criteria, candidates, KIND), held_out_table(texts, effects, controls)


def _table(heads: Heads, variables: dict[str, Any]) -> Any:
    import xarray

    coords: dict[str, Any] = {
        "component": heads.names,
        "layer": ("component", [block for block, _ in heads.places]),
        "kind": ("component", ["attn.z"] * len(heads.places)),
        "index": ("component", [number for _, number in heads.places]),
    }
    return xarray.Dataset(variables, coords)
