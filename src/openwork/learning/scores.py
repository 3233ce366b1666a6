"""What the birth of induction heads is seen by: attention scores of heads, losses of tokens, the in-context score.

Source: Olsson et al. 2022, In-context Learning and Induction Heads: prefix-matching score, previous-token attention,
in-context learning score, per-token loss, on repeated random tokens and on text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from openwork.edit import Ablate
from openwork.errors import BadInput
from openwork.network import Network
from openwork.task import Inputs
from openwork.weights.scores import looking_back

EARLY, LATE = (0.05, 0.15), (0.9, 1.0)
"""Which predictions of a row, as shares of it, are early and which late. Around the 50th and the 500th of 512."""
ROWS = 32
"""Rows that run at once."""
PATTERN = "blocks.{}.attn.pattern"
MATCHING = "prefix matching"
SCORES = (MATCHING, "previous token", "duplicate token")

Head = tuple[int, int]
"""Block and number."""


def attention_blocks(net: Network) -> list[int]:
    """The blocks whose attention patterns are certified."""
    found = (re.fullmatch(r"blocks\.(\d+)\.attn\.pattern", name) for name in net.sites)
    return sorted(int(m[1]) for m in found if m)


def head_scores(
    net: Network, repeated: Inputs, begin: int, span: int
) -> tuple[list[Head], dict[str, Float[np.ndarray, "head row"]]]:
    """Where each head looks from the second copy of a repeated span.

    Args:
        net: the network.
        repeated: rows that are `begin` tokens, a span, and the span again.
        begin: tokens in front.
        span: tokens of the span.

    Returns:
        the heads; and for each of `SCORES` the mean attention of each head in each row, from the tokens of the second
        copy except its first, to the token *after* the earlier occurrence (prefix matching), to the token before, and
        to the earlier occurrence itself.

    Raises:
        BadInput: if no attention pattern is certified.

    Units:
        share of a query's attention.

    Source:
        Olsson et al. 2022, "Prefix-matching score" and "Previous-token attention score".
    """
    blocks = attention_blocks(net)
    if not blocks:
        raise BadInput(
            f"expected a network with certified attention patterns; {net.name} has none: openwork open says why"
        )
    sites = [PATTERN.format(block) for block in blocks]
    scores = looking_back(net, repeated, sites, range(begin + span + 1, begin + 2 * span), span)
    heads = [(b, h) for b, site in zip(blocks, sites, strict=True) for h in range(net.parts(site))]
    return heads, {MATCHING if role == "induction" else role: found for role, found in scores.items()}


def token_losses(net: Network, inputs: Inputs, edits: Sequence[Any] = ()) -> Float[np.ndarray, "row prediction"]:
    """The loss of each next token.

    Args:
        net: a language model.
        inputs: rows of one length.
        edits: of the run.

    Returns:
        loss of token i + 1 at place i.

    Units:
        nats.
    """
    out = []
    for rows in _chunks(inputs):
        ids = torch.tensor(rows.ids)
        logits = net.run(rows, edits=list(edits)).logits.float().cpu()
        chances = logits[:, :-1].log_softmax(-1)
        out.append(-chances.gather(-1, ids[:, 1:, None]).squeeze(-1))
    return torch.cat(out).double().numpy()


def second_copy(losses: Float[np.ndarray, "row prediction"], begin: int, span: int) -> Float[np.ndarray, " row"]:
    """Mean loss of each row in the second copy of a repeated span, without its first token, which nothing announces."""
    return losses[:, begin + span : begin + 2 * span - 1].mean(axis=1)


def in_context_score(losses: Float[np.ndarray, "row prediction"]) -> Float[np.ndarray, " row"]:
    """Loss late in a row minus loss early in it: negative where the context helps.

    Olsson et al. take the 500th token and the 50th of 512. Rows are shorter and fewer here, so that each is a mean
    over the predictions about there, `LATE` and `EARLY`.

    Units:
        nats.

    Source:
        Olsson et al. 2022, "In-context learning score".
    """
    n = losses.shape[1]

    def mean(part: tuple[float, float]) -> Float[np.ndarray, " row"]:
        first, last = int(part[0] * n), int(np.ceil(part[1] * n))
        return losses[:, first:last].mean(axis=1)

    return mean(LATE) - mean(EARLY)


def knocked_out(heads: Iterable[Head]) -> list[Ablate]:
    """Heads replaced with their mean over the same rows."""
    return [Ablate(f"blocks.{block}.attn.z[{head}]", how="mean") for block, head in heads]


def _chunks(inputs: Inputs) -> list[Inputs]:
    return [inputs.take(range(s, min(s + ROWS, len(inputs)))) for s in range(0, len(inputs), ROWS)]
