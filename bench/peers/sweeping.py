"""What every tool sweeps: pairs of inputs and kinds of cells, and the loop that answers requests line by line."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from peers.case import Case
from peers.serve import Answer, answer_requests

KINDS = ("residual", "heads", "heads x positions")
MIDDLE = "residual, middle block"
"""For long inputs, of which a whole sweep would take too long."""
PAIRS: dict[str, tuple[int, ...] | None] = {"every token": None, "two tokens": (3, 9)}
"""Where clean and corrupted inputs differ."""

Cell = tuple[int, ...]
"""(layer, position), (layer, head) or (layer, head, position)."""


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted inputs with the tokens whose logits are compared.

    Args:
        clean, corrupted: (example, position) token ids.
        right, wrong: (example,) token ids.
    """

    clean: torch.Tensor
    corrupted: torch.Tensor
    right: torch.Tensor
    wrong: torch.Tensor

    def difference(self, logits: torch.Tensor) -> torch.Tensor:
        """(example,) logit of the right token minus that of the wrong one, at the last position."""
        last, rows = logits[:, -1], torch.arange(len(self.right))
        return last[rows, self.right] - last[rows, self.wrong]


def write_pairs(folder: Path, case_ids: torch.Tensor, vocabulary: int, seed: int) -> None:
    """Write pairs of each kind beside a case."""
    generator = torch.Generator().manual_seed(seed)
    count, length = case_ids.shape
    other = (case_ids + torch.randint(1, vocabulary, case_ids.shape, generator=generator)) % vocabulary
    right, wrong = torch.randint(0, vocabulary, (2, count), generator=generator)
    tensors = {"clean": case_ids, "right": right, "wrong": (wrong + (wrong == right)) % vocabulary}
    for name, places in PAIRS.items():
        changed = case_ids.clone()
        picked = list(range(length)) if places is None else [p for p in places if p < length]
        changed[:, picked] = other[:, picked]
        tensors[name] = changed
    save_file(tensors, folder / "pairs.safetensors")


def cells_of(kind: str, case: Case) -> list[Cell]:
    """All cells of a sweep."""
    layers, heads, positions = range(case.shape.layers), range(case.shape.heads), range(case.shape.length)
    middle = [case.shape.layers // 2]
    axes = {
        "residual": (layers, positions), MIDDLE: (middle, positions), "heads": (layers, heads),
        "heads x positions": (layers, heads, positions),
    }  # fmt: skip
    return list(itertools.product(*axes[kind]))


class Sweep(Protocol):
    """How a tool sweeps."""

    def prepare(self, kind: str, pairs: Pairs) -> Any:
        """What is done once a sweep, however many cells it has: the clean run."""

    def run(self, kind: str, pairs: Pairs, cells: Sequence[Cell], prepared: Any) -> np.ndarray:
        """(cell, example) the metric of every cell."""
        ...


def serve(make: Callable[[Case], Sweep], packages: Sequence[str]) -> None:
    """Answer ``{"do": "describe"}`` and ``{"do": "sweep", "kind": …, "pair": …, "cells": [index …], "out": file}``.

    Args:
        make: makes the tool's sweep.
        packages: those whose version the answer names.
    """

    def prepare(case: Case, folder: Path) -> Answer:
        tensors = load_file(folder / "pairs.safetensors")
        sweep = make(case)

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            if request["do"] == "describe":
                return {"versions": {name: version(name) for name in packages}}
            pairs = Pairs(tensors["clean"], tensors[request["pair"]], tensors["right"], tensors["wrong"])
            every = cells_of(request["kind"], case)
            cells = [every[i] for i in request["cells"]]
            start = time.perf_counter()
            prepared = sweep.prepare(request["kind"], pairs)
            between = time.perf_counter()
            values = sweep.run(request["kind"], pairs, cells, prepared)
            seconds = time.perf_counter() - between
            np.save(request["out"], np.asarray(values, dtype=np.float64))
            return {"once": between - start, "seconds": seconds}

        return answer

    answer_requests(prepare)
