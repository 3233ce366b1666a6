"""Addition modulo a prime: the rows, the split, the task, and the frequencies by which a trained network adds.

Source: Nanda et al. 2023, "Progress measures for grokking via mechanistic interpretability".
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openwork.errors import BadInput
from openwork.task import Task

PRIME = 53
TRAINED_SHARE = 0.5


def sums(prime: int = PRIME) -> tuple[Int[Tensor, "pair three"], Int[Tensor, " pair"]]:
    """All pairs of numbers and their sums.

    Args:
        prime: the modulus.

    Returns:
        Rows "a b =", where "=" is the token after the last number, and the sum of each.
    """
    a, b = torch.arange(prime**2) // prime, torch.arange(prime**2) % prime
    return torch.stack([a, b, torch.full_like(a, prime)], dim=1), (a + b) % prime


def split(seed: int, prime: int = PRIME, share: float = TRAINED_SHARE) -> tuple[Int[Tensor, " n"], Int[Tensor, " m"]]:
    """Which pairs a network is trained on, and which are held out.

    Args:
        seed: of the training.
        prime: the modulus.
        share: of the pairs that are trained on.

    Returns:
        Indices into `sums`.
    """
    order = torch.randperm(prime**2, generator=torch.Generator().manual_seed(seed))
    n = int(share * prime**2)
    return order[:n], order[n:]


def frequency_shares(embedding: Float[Tensor, "number channel"]) -> Float[Tensor, " frequency"]:
    """How the squared norm of an embedding of the numbers is spread over frequencies.

    Args:
        embedding: one row for each number.

    Returns:
        The share of frequency k = 1 … (number - 1) / 2 at index k - 1, of all but the mean; they add up to 1.

    Source: Nanda et al. 2023, section 4.1 (Fourier norm of the embedding).
    """
    power = torch.fft.rfft(embedding, dim=0, norm="ortho").abs().pow(2).sum(dim=1)[1:]
    return power / power.sum()


def addition_task(n: int = 64, seed: int = 0, prime: int = PRIME) -> Task:
    """Pairs of numbers, each with the pair in which the second number is another.

    Args:
        n: number of examples.
        seed: of the draw and of the split.
        prime: the modulus.

    Returns:
        The task, with token groups "a", "b" and "last".

    Raises:
        BadInput: if there are not so many pairs.
    """
    if not 1 <= n <= prime**2:
        raise BadInput(f"expected 1 to {prime**2} examples of addition modulo {prime}, got {n}")
    rows, answers = sums(prime)
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randperm(prime**2, generator=generator)[:n]
    shift = torch.randint(1, prime, (n,), generator=generator)
    corrupted = clean // prime * prime + (clean % prime + shift) % prime
    groups = {name: [[place]] * n for place, name in enumerate(("a", "b", "last"))}
    return Task.from_tokens(
        rows[clean].tolist(),
        rows[corrupted].tolist(),
        answers[clean].tolist(),
        answers[corrupted].tolist(),
        groups=groups,
        name="modular-addition",
    )
