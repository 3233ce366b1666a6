"""Factored matrices against the same matrices written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from openwork.errors import BadInput
from openwork.weights.factored import Factored


def matrix(rows: int = 30, columns: int = 20, rank: int = 4, seed: int = 0) -> Factored:
    generator = torch.Generator().manual_seed(seed)
    return Factored(torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator))


def whole(f: Factored) -> Tensor:
    return f.left @ f.right


def close(a: Any, b: Any) -> None:
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_products_are_those_of_the_whole_matrices_and_of_the_smaller_rank() -> None:
    a, b = matrix(), matrix(20, 25, 3, seed=1)
    close(whole(a @ b), whole(a) @ whole(b))
    assert (a @ b).rank == 3
    close(whole(b.T @ a.T), (whole(a) @ whole(b)).T)
    x = torch.randn(20, 7)
    close(whole(a @ x), whole(a) @ x)
    close(whole(a.after(torch.ones(2, 30))), torch.ones(2, 30) @ whole(a))
    close(whole(a * -2.0), -2 * whole(a))


def test_norm_and_singular_values_are_those_of_the_whole_matrix() -> None:
    a = matrix()
    assert a.norm() == pytest.approx(float(whole(a).norm()), rel=1e-5)
    close(a.svd()[1], torch.linalg.svdvals(whole(a))[:4])
    u, s, v = a.svd()
    close(u @ torch.diag(s) @ v.T, whole(a))


def test_eigenvalues_are_the_largest_of_the_whole_matrix() -> None:
    a = matrix(20, 20)
    values = torch.linalg.eigvals(whole(a).double())
    expected = values[values.abs().argsort(descending=True)][:4]
    close(a.eigenvalues().abs(), expected.abs())
    close(a.eigenvalues().sum().real, whole(a).double().trace())


def test_entries_rows_diagonal_and_centring_are_those_of_the_whole_matrix() -> None:
    a = matrix()
    close(a.entries([3, 7], [2, 9]), whole(a)[[3, 7], [2, 9]])
    close(a.rows([5, 1]), whole(a)[[5, 1]])
    close(a.diagonal(), whole(a).diagonal())
    w = whole(a)
    close(whole(a.centred(rows=True)), w - w.mean(0))
    close(whole(a.centred(columns=True)), w - w.mean(1, keepdim=True))


@pytest.mark.parametrize("cells", [7, 45, 10_000])
@pytest.mark.parametrize("largest", [True, False])
def test_top_entries_do_not_depend_on_the_blocks(cells: int, largest: bool) -> None:
    a = matrix()
    values, places = a.top(9, largest, cells)
    expected = whole(a).flatten().topk(9, largest=largest).values
    close(values, expected)
    close(whole(a)[places[:, 0], places[:, 1]], values)


class Largest(TorchDispatchMode):
    """The most elements that any result had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return out


def test_nothing_of_the_size_of_the_whole_matrix_is_ever_made() -> None:
    n = 6000
    a = matrix(n, n, 8)
    with Largest() as seen:
        a.top(5, cells=1 << 18)
        a.norm()
        a.svd()
        a.eigenvalues()
        (a @ a).norm()
        a.centred(True, True).norm()
    assert seen.elements <= 1 << 18


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Factored(torch.ones(3, 2), torch.ones(3, 2)), "factors"),
        (lambda: matrix().eigenvalues(), "square"),
        (lambda: matrix() @ matrix(), "rows to multiply"),
        (lambda: matrix().top(0), "at least one entry"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        call()
