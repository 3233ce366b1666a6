"""Matrices of low rank, held as two factors: a circuit from tokens to tokens is never written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from openwork.errors import BadInput

CELLS = 1 << 22
"""Entries of a product that are looked at, at once."""


@dataclass(frozen=True, eq=False)
class Factored:
    """The matrix ``left @ right``, of which only the factors are held.

    Args:
        left: (row, rank).
        right: (rank, column).
    """

    left: Float[Tensor, "_ _"]
    right: Float[Tensor, "_ _"]

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[0]:
            raise BadInput(
                f"expected factors (row, rank) and (rank, column); got {tuple(self.left.shape)} and "
                f"{tuple(self.right.shape)}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """Columns of the left factor; the true rank may be lower."""
        return self.left.shape[1]

    @property
    def T(self) -> Factored:
        """The transpose."""
        return Factored(self.right.T, self.left.T)

    def __matmul__(self, other: Factored | Tensor) -> Factored:
        """The product with another matrix, factored again, of the smaller rank."""
        if self.shape[1] != other.shape[0]:
            raise BadInput(f"expected a matrix of {self.shape[1]} rows to multiply with; got {tuple(other.shape)}")
        if isinstance(other, Tensor):
            return Factored(self.left, self.right @ other)
        core = self.right @ other.left
        if self.rank <= other.rank:
            return Factored(self.left, core @ other.right)
        return Factored(self.left @ core, other.right)

    def __mul__(self, factor: float) -> Factored:
        """Every entry times a number."""
        return Factored(self.left * factor, self.right)

    def after(self, matrix: Float[Tensor, "_ _"]) -> Factored:
        """``matrix @ self``: read by the rows of another matrix, such as embeddings."""
        return Factored(matrix @ self.left, self.right)

    def centred(self, rows: bool = False, columns: bool = False) -> Factored:
        """Every column less its mean over rows (`rows`), every row less its mean over columns (`columns`)."""
        left = self.left - self.left.mean(0) if rows else self.left
        right = self.right - self.right.mean(1, keepdim=True) if columns else self.right
        return Factored(left, right)

    def norm(self) -> float:
        """The Frobenius norm: the root of the trace of ``(left' left) (right right')``."""
        left, right = self.left.double(), self.right.double()
        return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))

    def svd(self) -> tuple[Float[Tensor, "_ _"], Float[Tensor, " _"], Float[Tensor, "_ _"]]:
        """``u, s, v`` with ``u @ diag(s) @ v.T`` the matrix; of the size of the factors.

        Source: QR of both factors, then the singular values of the small product of the triangles.
        """
        ql, rl = torch.linalg.qr(self.left.double())
        qr, rr = torch.linalg.qr(self.right.double().T)
        u, s, v = torch.linalg.svd(rl @ rr.T, full_matrices=False)
        return (ql @ u).to(self.left), s.to(self.left), (qr @ v.T).to(self.left)

    def eigenvalues(self) -> Complex[Tensor, " _"]:
        """The eigenvalues that may differ from zero, those of ``right @ left``, the largest first.

        Raises:
            BadInput: for a matrix that is not square.
        """
        if self.shape[0] != self.shape[1]:
            raise BadInput(f"expected a square matrix, which alone has eigenvalues; got {self.shape}")
        values = torch.linalg.eigvals(self.right.double() @ self.left.double())
        return values[values.abs().argsort(descending=True)]

    def entries(self, rows: Sequence[int] | Tensor, columns: Sequence[int] | Tensor) -> Float[Tensor, " entry"]:
        """The entries at pairs of row and column."""
        rows, columns = (torch.as_tensor(x, device=self.left.device) for x in (rows, columns))
        return (self.left[rows] * self.right.T[columns]).sum(-1)

    def rows(self, index: Sequence[int] | Tensor) -> Float[Tensor, "row column"]:
        """Some rows, written out."""
        return self.left[torch.as_tensor(index, device=self.left.device)] @ self.right

    def diagonal(self) -> Float[Tensor, " entry"]:
        """The diagonal."""
        n = min(self.shape)
        return (self.left[:n] * self.right.T[:n]).sum(-1)

    def top(
        self, count: int, largest: bool = True, cells: int = CELLS
    ) -> tuple[Float[Tensor, " entry"], Int[Tensor, "entry 2"]]:
        """The largest entries (or the smallest), found block by block.

        Args:
            count: how many.
            largest: or the smallest.
            cells: entries that are looked at, at once.

        Returns:
            the entries in order, and (row, column) of each.

        Raises:
            BadInput: for a count that is no positive number.
        """
        if count < 1:
            raise BadInput(f"expected to be asked for at least one entry; got {count}")
        height, width = self.shape
        columns = min(width, cells)
        rows = max(1, cells // columns)
        values = self.left.new_zeros(0)
        places = torch.zeros(0, 2, dtype=torch.long, device=self.left.device)
        for top in range(0, height, rows):
            for side in range(0, width, columns):
                block = self.left[top : top + rows] @ self.right[:, side : side + columns]
                some, at = block.flatten().topk(min(count, block.numel()), largest=largest)
                here = torch.stack((at // block.shape[1] + top, at % block.shape[1] + side), 1)
                values, places = torch.cat((values, some)), torch.cat((places, here))
                values, kept = values.topk(min(count, len(values)), largest=largest)
                places = places[kept]
        return values, places
