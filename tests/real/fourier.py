"""Which Fourier frequencies an adder computes with, by interventions; and the two metrics that tell its algorithm.

An embedding is a function of the number that it stands for, and so a sum over frequencies k of cosines and sines of
2πka/59. Some of these are projected out of the embeddings of both operands, or nothing but them and the mean is kept.
The planes that two frequencies span *in channels* overlap (those of 5 and of 15 in one of the runs), so that a
projection of channels cannot tell them apart; this one, of functions of the number, can.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import openwork as ow
from openwork.network import Network, measure
from openwork.network.context import SourceRun
from openwork.network.layout import Layout
from openwork.task import Batch, Inputs, Metric, Task

from .adder import FOLDER, MODULUS, Adder, pairs, sums

FREQUENCIES = tuple(range(1, MODULUS // 2 + 1))
CORRECT = Metric("accuracy", "share right", lambda logits, answer, wrong: (logits.argmax(-1) == answer).double())


def opened(module: Adder) -> Network:
    """The network with its sites."""
    return ow.open(module, example={"input_ids": pairs(module)[::97]})


def addition(module: Adder, find: int = 200, held_out: int = 400) -> Task:
    """Random pairs to find with and others to claim on; the corrupted ones have another first operand."""
    order = torch.randperm(MODULUS**2, generator=torch.Generator().manual_seed(0))
    ids = pairs(module)[order[: find + held_out]]
    other = ids.clone()
    other[:, 0] = (ids[:, 0] + 1 + torch.arange(len(ids)) % (MODULUS - 1)) % MODULUS
    rows = range(find, find + held_out)
    return Task.from_tokens(
        ids, other, sums(ids), sums(other), metric=CORRECT, held_out=rows, name="addition modulo 59"
    )


def power(module: Adder, frequency: int) -> float:
    """The size of one frequency's part of the embeddings."""
    weight = module.embed.weight.detach().double().unflatten(0, (-1, MODULUS))
    return float((torch.from_numpy(waves([frequency])) @ weight).norm())


def waves(frequencies: Sequence[int]) -> Float[np.ndarray, "wave number"]:
    """Orthonormal cosines and sines of some frequencies."""
    angle = 2 * np.pi * np.array(frequencies)[:, None] * np.arange(MODULUS) / MODULUS
    return np.concatenate((np.cos(angle), np.sin(angle))) * (2 / MODULUS) ** 0.5


def random_waves(dimension: int, rng: np.random.Generator) -> Float[np.ndarray, "wave number"]:
    """An orthonormal basis of a random subspace of the functions whose mean is zero."""
    drawn = rng.standard_normal((MODULUS, dimension))
    return np.linalg.qr(drawn - drawn.mean(0))[0].T


def filtered(
    module: Adder, ids: Int[Tensor, "pair 2"], kept: Float[np.ndarray, "wave number"], keep: bool
) -> Float[Tensor, "pair 2 channel"]:
    """The embeddings of pairs of which some waves are projected out, or nothing kept but these and the mean."""
    weight = module.embed.weight.detach().double().unflatten(0, (-1, MODULUS))  # one table an operand, or one for both
    basis = torch.from_numpy(kept)
    part = basis.T @ (basis @ weight)
    new = weight.mean(1, keepdim=True) + part if keep else weight - part
    return new.flatten(0, 1).float()[ids]


def accuracies(
    net: Network, module: Adder, batch: Batch, bases: Iterable[Float[np.ndarray, "wave number"]], keep: bool
) -> Float[np.ndarray, "cell example"]:
    """Whether each example is answered rightly when the waves of each basis are projected out, or alone kept."""
    assert isinstance(batch.clean, Inputs)
    ids, layout = torch.tensor(batch.clean.ids), Layout.full(len(batch), 2)
    sources = {
        f"basis {i}": SourceRun({"embed": filtered(module, ids, basis, keep)}, layout) for i, basis in enumerate(bases)
    }
    return measure(net, batch, CORRECT, [[ow.Patch("embed", source=name)] for name in sources], sources=sources).values


def sufficient(net: Network, module: Adder, batch: Batch, share: float = 0.99) -> list[int]:
    """The fewest frequencies, added one by one, each the best, that keep a share of the accuracy when alone kept."""
    found: list[int] = []
    wanted = share * accuracies(net, module, batch, [waves(FREQUENCIES)], keep=True).mean()
    while True:
        rest = [k for k in FREQUENCIES if k not in found]
        right = accuracies(net, module, batch, [waves([*found, k]) for k in rest], keep=True).mean(1)
        found.append(rest[int(right.argmax())])
        if right.max() >= wanted:
            return found


def triples(module: Adder, n: int, seed: int = 0) -> tuple[Int[Tensor, "triple 2"], Int[Tensor, " triple"]]:
    """Random pairs of operands, and random outcomes that need not be their sums."""
    rng = np.random.default_rng(seed)
    ids = pairs(module)[torch.from_numpy(rng.integers(0, MODULUS**2, n))]
    return ids, torch.from_numpy(rng.integers(0, MODULUS, n))


def gradient_symmetry(net: Network, module: Adder, n: int, seed: int = 0) -> Float[np.ndarray, " triple"]:
    """Cosine of the gradients that the logit of c has at the embeddings of a and of b, of random triples (a, b, c).

    Source:
        Zhong et al. 2023, definition 4.1: the mean of these is near 1 in Pizzas, lower in Clocks.
    """
    ids, outcome = triples(module, n, seed)
    run = net.run(ids, keep="embed", grads=lambda run: run.logits[torch.arange(n), -1, outcome])
    first, second = run.grads["embed"].unbind(1)
    return torch.cosine_similarity(first, second, dim=-1).numpy()


def logits(net: Network, module: Adder) -> Float[Tensor, "pair number"]:
    """The logits of every sum for every pair."""
    return net.run(pairs(module)).logits[:, -1, :MODULUS]


def right_logits(values: Float[Tensor, "pair number"], ids: Int[Tensor, "pair 2"]) -> Float[np.ndarray, "a b"]:
    """The logit of the right answer for every pair."""
    return values.gather(1, sums(ids)[:, None]).reshape(MODULUS, MODULUS).double().numpy()


def runner_up_logits(values: Float[Tensor, "pair number"], ids: Int[Tensor, "pair 2"]) -> Float[np.ndarray, "a b"]:
    """The largest logit of a wrong answer for every pair."""
    others = values.scatter(1, sums(ids)[:, None], -torch.inf)
    return others.amax(1).reshape(MODULUS, MODULUS).double().numpy()


def distance_irrelevance(values: Float[np.ndarray, "a b"]) -> float:
    """How little a logit depends on the distance a - b: its spread at one distance, on average, over its whole spread.

    Source:
        Zhong et al. 2023, definition 4.2, on the logits of the right answers: near 1 in Clocks, lower in Pizzas.
    """
    a, b = np.indices(values.shape)
    distance = (a - b) % len(values)
    return float(np.mean([values[distance == d].std() for d in range(len(values))]) / values.std())


def published_symmetry(data: Path, low: float, high: float) -> Float[np.ndarray, " run"]:
    """Gradient symmetries of the published one-layer runs whose attention rates lie in a range."""
    with (data / FOLDER / "result" / "1l_fixedwidth.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["gradient_sim"]]
    plain = [row for row in rows if row["n_layers"] == "1" and row["diff_vocab"] == row["eqn_sign"] == "0"]
    return np.array([float(row["gradient_sim"]) for row in plain if low <= float(row["attn_coeff"]) <= high])


def algorithm(symmetry: float, pizzas: Float[np.ndarray, " run"], clocks: Float[np.ndarray, " run"]) -> str:
    """Pizza or Clock, if the symmetry is one that published runs of (almost) constant or learned attention have."""
    return "Pizza" if symmetry >= pizzas.min() else "Clock" if symmetry <= clocks.max() else "between"
