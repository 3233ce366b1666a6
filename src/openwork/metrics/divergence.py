"""Distances between predicted distributions, and between a prediction and the text: KL divergence, cross-entropy."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openwork.errors import BadInput
from openwork.metrics.checks import log_softmax, require_same_shape


def kl_divergence(
    reference: Float[Tensor, "*batch vocab"], logits: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """KL(reference ‖ logits): what is lost by predicting with `logits` when `reference` is the truth.

    Half precision is widened before the softmax: in float16 the difference of two nearly equal log-probabilities
    is rounding error.

    Args:
        reference: logits of the distribution the mean is taken under, usually the unedited run.
        logits: logits of the other distribution, usually the edited run.

    Returns:
        The divergence per example, at least 0; +∞ where `logits` excludes an id that `reference` allows.

    Raises:
        BadInput: shapes that differ, NaN logits, or a row with no distribution.

    Units:
        nats.

    Source:
        Kullback and Leibler 1951.
    """
    require_same_shape(reference=reference, logits=logits)
    p, q = log_softmax(reference, "reference"), log_softmax(logits)
    # 0 · log(0 / q) is 0: an id that the reference excludes adds nothing, whatever the other says of it
    ratio = (p - q).masked_fill(p == -torch.inf, 0.0)
    return (p.exp() * ratio).sum(-1).clamp(min=0)


def token_cross_entropy(
    logits: Float[Tensor, "*batch vocab"],
    targets: Int[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Minus the log-probability of each target; 0 at the tokens that `mask` leaves out.

    Args:
        logits: ``logits[..., i, :]`` predicts ``targets[..., i]``; for next-token loss, shift before calling.
        targets: the true ids; anything at all where `mask` is False.
        mask: True at the tokens that count; all of them when None.

    Returns:
        The loss of every token.

    Raises:
        BadInput: shapes that do not fit, ids outside the vocabulary, NaN logits at a token that counts.

    Units:
        nats per token.
    """
    mask = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask
    if not targets.shape == mask.shape == logits.shape[:-1]:
        raise BadInput(
            f"expected targets and mask of shape {tuple(logits.shape[:-1])} for logits {tuple(logits.shape)}, "
            f"got {tuple(targets.shape)} and {tuple(mask.shape)}"
        )
    counted, vocab = targets[mask].long(), logits.shape[-1]
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < vocab:
        raise BadInput(
            f"targets: expected ids in 0..{vocab - 1}, got {int(counted.min())}..{int(counted.max())}; "
            "mask out padding and ignored tokens"
        )
    losses = -log_softmax(logits[mask]).gather(-1, counted.unsqueeze(-1)).squeeze(-1)
    return torch.zeros(targets.shape, dtype=losses.dtype, device=losses.device).masked_scatter(mask, losses)


def cross_entropy(
    logits: Float[Tensor, "*batch position vocab"],
    targets: Int[Tensor, "*batch position"],
    mask: Bool[Tensor, "*batch position"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean loss of the counted tokens of each example.

    Args:
        logits, targets, mask: as `token_cross_entropy`.

    Returns:
        The mean loss per example. Examples with fewer counted tokens weigh as much as long ones in a mean of these;
        for a corpus, sum `token_cross_entropy` and divide by the number of tokens.

    Raises:
        BadInput: as `token_cross_entropy`, or an example in which no token counts.

    Units:
        nats per token.
    """
    losses = token_cross_entropy(logits, targets, mask)
    counts = torch.ones_like(losses).sum(-1) if mask is None else mask.sum(-1)
    if not bool((counts > 0).all()):
        raise BadInput("mask: expected at least one counted token an example, got an example with none; drop it")
    return losses.sum(-1) / counts
