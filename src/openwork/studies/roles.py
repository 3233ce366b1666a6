"""Step 6: names for heads, earned by measured scores against shuffled keys.

Source: Olsson et al. 2022, In-context Learning and Induction Heads (previous-token and prefix-matching scores on
repeated random tokens, copying); Xiao et al. 2023, Efficient Streaming Language Models with Attention Sinks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Array, Set
from openwork.faithfulness.components import Component
from openwork.faithfulness.measure import Tick, mean_values, silent
from openwork.studies.schema import AttentionExample, Role, Roles, RoleScore
from openwork.studies.texts import Texts
from openwork.task import Batch, Inputs, Tensors
from openwork.tasks.reader import Reader

if TYPE_CHECKING:
    from openwork.network import Network

DEFINITIONS = {
    "previous token": "attention from each token to the one before it, on repeated random tokens",
    "current token": "attention from each token to itself, on repeated random tokens",
    "first token": "attention from each token to the first one, on repeated random tokens",
    "duplicate token": "attention from a repeated token to its earlier occurrence, on repeated random tokens",
    "induction": "attention from a repeated token to the one after its earlier occurrence, on repeated random tokens",
    "bracket": "attention from a closing bracket to the one that opens it, on real text",
    "copying": "how much more the head raises the logits of the tokens it attends to than those of all tokens, in "
    "standard deviations over tokens, on repeated random tokens",
}
SPAN, ROWS, DRAWS, QUANTILE = 24, 8, 500, 0.99
COPIES = 0.5
"""Standard deviations that count as copying."""
SHOWN = 8
PAIRS = {"(": ")", "[": "]", "{": "}"}

Targets = list[tuple[int, int, int]]
"""(row, query, key)."""


@dataclass(frozen=True)
class Signature:
    """Attention scores of heads.

    Args:
        heads: one a row.
        names: one a column.
        scores: (head, role).
        nulls: (head, role, draw).
    """

    heads: tuple[Component, ...]
    names: tuple[str, ...]
    scores: Float[np.ndarray, "head role"]
    nulls: Float[np.ndarray, "head role draw"]

    def of(self, components: Sequence[Component]) -> Float[np.ndarray, "component role"]:
        """Scores of heads beside zeros for MLPs."""
        place = {head: i for i, head in enumerate(self.heads)}
        zeros = np.zeros(len(self.names))
        return np.stack([self.scores[place[c]] if c in place else zeros for c in components])


def repeated_targets(rows: int, begin: int, span: int) -> dict[str, Targets]:
    """The (row, query, key) triples of each role on `begin` tokens, a span, and the span again.

    Queries are the tokens of the second copy, except its first, whose predecessor belongs to the other copy.
    """
    out: dict[str, Targets] = {}
    offsets = {
        "previous token": lambda q: q - 1,
        "current token": lambda q: q,
        "first token": lambda q: 0,
        "duplicate token": lambda q: q - span,
        "induction": lambda q: q - span + 1,
    }
    for name, key in offsets.items():
        out[name] = [(r, q, key(q)) for r in range(rows) for q in range(begin + span + 1, begin + 2 * span)]
    return out


def bracket_targets(rows: Sequence[Sequence[str]]) -> Targets:
    """From each token that is one closing bracket to the token that is the matching opening one."""
    out: Targets = []
    for r, tokens in enumerate(rows):
        stack: list[tuple[int, str]] = []
        for q, token in enumerate(tokens):
            for mark in token:
                if mark in PAIRS:
                    stack.append((q, PAIRS[mark]))
                elif mark in PAIRS.values():
                    opened = stack.pop() if stack else None
                    # a bracket that was opened before the row, or by another kind, leaves nothing to match
                    if opened is None or opened[1] != mark:
                        stack.clear()
                    elif token.strip() == mark and opened[0] != q:
                        out.append((r, q, opened[0]))
    return out


def score(
    pattern: Float[np.ndarray, "row head query key"], targets: Targets, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, "head draw"]]:
    """Mean attention to the targets, and to keys drawn at random among those that each query may see.

    Args:
        pattern: attention weights.
        targets: at least one.
        rng: generator of the null.
        draws: how many random assignments of keys.

    Returns:
        The score of each head; the score of each head under each assignment.
    """
    r, q, k = (np.array(column) for column in zip(*targets, strict=True))
    own = pattern[r, :, q, k].mean(0)
    keys = (rng.random((draws, len(q))) * (q + 1)).astype(int)
    null = np.stack([pattern[r, :, q, draw].mean(0) for draw in keys], axis=1)
    return own, null


def measure(net: Network, components: Sequence[Component], texts: Texts, seed: int, tick: Tick = silent) -> Signature:
    """Scores of every head.

    Args:
        net: the network.
        components: its components.
        texts: real text, for brackets.
        seed: of the random tokens and of the nulls.
        tick: told the share that is done.
    """
    heads = tuple(c for c in components if c.kind == "head")
    if not heads:
        return Signature((), (), np.zeros((0, 0)), np.zeros((0, 0, DRAWS)))
    rng = np.random.default_rng(seed)
    reader = Reader.of(net)
    span = min(SPAN, max(2, len(reader.ordinary) - 1))
    body = [tuple(int(i) for i in rng.choice(reader.ordinary, span, replace=False)) for _ in range(ROWS)]
    repeated = Inputs(tuple((*reader.begin, *row, *row) for row in body))
    pattern = patterns(net, repeated, heads)
    columns = {
        name: score(pattern, targets, rng) for name, targets in repeated_targets(ROWS, len(reader.begin), span).items()
    }
    tick(0.3)
    brackets = bracket_targets([net.tokens(list(ids)) for ids in texts.inputs.ids])
    if brackets:
        columns["bracket"] = score(patterns(net, texts.inputs, heads), brackets, rng)
    tick(0.5)
    columns["copying"] = _copying(net, repeated, pattern, heads, len(reader.begin) + span, rng)
    tick(1.0)
    return Signature(
        heads,
        tuple(columns),
        np.stack([own for own, _ in columns.values()], axis=1),
        np.stack([null for _, null in columns.values()], axis=1),
    )


def name(signature: Signature, circuit: Sequence[Component], least: float) -> tuple[list[Role], dict[str, str]]:
    """The role of each head: of those it passes, the one with the highest score.

    A score passes when it lies above the `QUANTILE` of its null and above the least share; copying alone is no name,
    it is added to another.

    Args:
        signature: scores.
        circuit: the components of the chosen circuit.
        least: least share of the attention.

    Returns:
        Records of all heads; site -> role of those that earned one.
    """
    roles, named = [], {}
    for i, head in enumerate(signature.heads):
        scores = []
        for j, role in enumerate(signature.names):
            own, null = float(signature.scores[i, j]), signature.nulls[i, j]
            threshold = max(float(np.quantile(null, QUANTILE)), COPIES if role == "copying" else least)
            scores.append(
                RoleScore(
                    role=role,
                    score=own,
                    null=float(null.mean()),
                    threshold=threshold,
                    p_value=float((1 + (null >= own).sum()) / (1 + len(null))),
                    passed=own > threshold,
                )
            )
        passed = [s for s in scores if s.passed and s.role != "copying"]
        best = max(passed, key=lambda s: s.score, default=None)
        copies = any(s.passed and s.role == "copying" for s in scores)
        role = None if best is None else f"{best.role}, copying" if copies and best.role == "induction" else best.role
        if role is not None:
            named[str(head)] = role
        roles.append(
            Role(
                site=str(head),
                layer=head.layer,
                index=head.index,
                role=role,
                in_circuit=head in circuit,
                scores=scores,
            )
        )
    return roles, named


def record(
    net: Network, signature: Signature, circuit: Sequence[Component], batch: Batch, least: float
) -> tuple[Roles, dict[str, str], dict[str, np.ndarray]]:
    """Step 6 as it is recorded, with the attention of the circuit's heads over one real example.

    Args:
        net: the network.
        signature: scores.
        circuit: the components of the chosen circuit.
        batch: held-out examples, the first of which is shown.
        least: least share of attention that earns a name.

    Returns:
        The record; site -> role; the arrays it names.
    """
    roles, named = name(signature, circuit, least)
    inputs = batch.clean.take([0])
    tokens = net.tokens(list(inputs.ids[0]))
    heads = [c for c in circuit if c.kind == "head"][:SHOWN]
    examples, arrays = [], {}
    if heads:
        shown = patterns(net, inputs, heads)[0]
        for i, head in enumerate(heads):
            key = f"attention/blocks.{head.layer}.head.{head.index}"
            arrays[key] = shown[i].astype(np.float32)
            examples.append(AttentionExample(site=str(head), tokens=tokens, array=key))
    definitions = {role: DEFINITIONS[role] for role in signature.names}
    return Roles(definitions=definitions, least=least, heads=roles, attention=examples), named, arrays


def patterns(
    net: Network, inputs: Inputs | Tensors, heads: Sequence[Component]
) -> Float[np.ndarray, "row head query key"]:
    """Attention weights of some heads."""
    sites = sorted({f"blocks.{h.layer}.attn.pattern" for h in heads})
    run = net.run(inputs, keep=sites)
    values = {site: run[site].float().cpu().numpy() for site in sites}
    return np.stack([values[f"blocks.{h.layer}.attn.pattern"][:, h.index] for h in heads], axis=1)


def _copying(
    net: Network,
    inputs: Inputs,
    pattern: Float[np.ndarray, "row head query key"],
    heads: Sequence[Component],
    since: int,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, "head draw"]]:
    """What the head adds to the logits of the tokens it attends to; the null pairs weights with random tokens."""
    ids = np.array(inputs.ids)
    means = mean_values(net, inputs, heads)
    full = _logits(net.run(inputs).logits, since)
    vocabulary = full.shape[-1]
    own, nulls = [], []
    draws = 50
    for i, head in enumerate(heads):
        edit = Set(head.site, value=Array.of(means[head.site.path][[head.index]]))
        change = full - _logits(net.run(inputs, edits=[edit]).logits, since)
        spread = change.std(-1, keepdims=True)
        change = (change - change.mean(-1, keepdims=True)) / np.where(spread > 0, spread, 1)
        weights = pattern[:, i, since:]
        read = np.take_along_axis(change, np.broadcast_to(ids[:, None], (*change.shape[:2], ids.shape[1])), axis=2)
        own.append(float((weights * read).sum(-1).mean()))
        null = []
        for _ in range(draws):
            other = rng.integers(0, vocabulary, ids.shape)
            read = np.take_along_axis(change, np.broadcast_to(other[:, None], (*change.shape[:2], ids.shape[1])), 2)
            null.append(float((weights * read).sum(-1).mean()))
        nulls.append(np.resize(null, DRAWS))
    return np.array(own), np.stack(nulls)


def _logits(logits: Tensor, since: int) -> np.ndarray:
    return logits[:, since:].float().cpu().numpy()
