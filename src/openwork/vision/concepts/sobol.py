"""Total Sobol indices: the share of a function's variance that involves each of its arguments.

    design = Design.of(arguments=20, size=32)
    indices = design.total(function(design.points))

Source: Jansen 1999, Analysis of variance designs for model output, equation for the total index; Saltelli et al. 2010,
table 2 (f); Fel et al. 2023, CRAFT, section 3.3 (masks from a quasi-random sequence).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import qmc

from openwork.errors import BadInput


@dataclass(frozen=True, eq=False)
class Design:
    """Where a function is evaluated.

    Args:
        points: (2 + arguments) · size rows in [0, 1]: the matrix A, the matrix B, and for every argument A with that
            column of B.
        size: rows of A.
    """

    points: Float[np.ndarray, "point argument"]
    size: int

    @classmethod
    def of(cls, arguments: int, size: int = 32, seed: int | tuple[int, ...] = 0) -> Design:
        """A scrambled Halton design.

        The plain sequence would not do: its later columns run once through a part of [0, 1] in so few rows, which makes
        indices wrong by up to a third, the same way for every function.

        Args:
            arguments: of the function.
            size: rows of A.
            seed: of the scrambling.

        Raises:
            BadInput: without an argument, or with fewer than two rows.
        """
        if arguments < 1 or size < 2:
            raise BadInput(f"expected an argument and 2 rows or more; got {arguments} and {size}")
        both = qmc.Halton(2 * arguments, scramble=True, rng=np.random.default_rng(seed)).random(size)
        a, b = both[:, :arguments], both[:, arguments:]
        mixed = np.tile(a, (arguments, 1, 1))
        for argument in range(arguments):
            mixed[argument, :, argument] = b[:, argument]
        return cls(np.concatenate((a, b, mixed.reshape(-1, arguments))), size)

    def total(self, values: Float[np.ndarray, " point"]) -> Float[np.ndarray, " argument"]:
        """The total index of every argument, from the function's values at the points; 0 where it is constant.

        Raises:
            BadInput: for another number of values, or values that are not finite.
        """
        values = np.asarray(values, dtype=float)
        if values.shape != (len(self.points),) or not np.isfinite(values).all():
            raise BadInput(f"expected {len(self.points)} finite values; got shape {values.shape}")
        a, b = values[: self.size], values[self.size : 2 * self.size]
        mixed = values[2 * self.size :].reshape(-1, self.size)
        variance = np.concatenate((a, b)).var(ddof=1)
        if variance <= 1e-12 * max(1e-12, float(np.abs(a).max()) ** 2):
            return np.zeros(len(mixed))
        return ((a - mixed) ** 2).mean(1) / (2 * variance)
