"""The forms of a probe: linear, sparse, non-linear. Each is trained by scikit-learn and becomes plain matrices."""

from __future__ import annotations

import re
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from openwork.errors import BadInput

Vectors = Float[np.ndarray, "place channel"]
Targets = Int[np.ndarray, " place"] | Float[np.ndarray, " place"]
Layers = tuple[tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, " _"]], ...]
STEPS = 400
"""Of any solver, at most."""
PATH = 1.5
"""By how much each L1 penalty of a path is weaker than the one before."""
SMALL = 4_000_000
"""Numbers up to which more than one thread makes a solver slower: each of its steps is over before they have met."""
NARROW = 512
"""Channels up to which finding the directions that vary costs less than it saves."""
STILL = 1e-12
"""Of the largest variance: directions that vary less do not vary, as far as floats tell."""
SPARSE = re.compile(r"(\d+)-sparse( by L1)?")


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of training.

    Args:
        layers: weights (into, out) and biases (out,), with a ReLU between layers; a last layer of one output a class,
            or of one for numbers. They read centred and scaled vectors.
        converged: whether the solver says that it did.
    """

    layers: Layers
    converged: bool


@runtime_checkable
class Form(Protocol):
    """How a probe is made. What it reads has mean 0 and a mean variance of 1 over all channels."""

    @property
    def name(self) -> str:
        """For tables, claims and commands."""
        ...

    @property
    def strengths(self) -> tuple[float, ...]:
        """Inverse penalties to choose from, weakest probe first."""
        ...

    def train(self, x: Vectors, y: Targets, classes: int, strength: float, weights: Any, seed: int) -> Trained:
        """Train.

        Args:
            x: centred and scaled vectors.
            y: classes, or numbers if `classes` is 0.
            classes: how many there are, all of them in `y`.
            strength: one of `strengths`.
            weights: (place,) of each place.
            seed: of whatever is random.
        """
        ...


@dataclass(frozen=True)
class Linear:
    """Logistic regression, or ridge regression of numbers.

    Args:
        strengths: inverse penalties to choose from.
    """

    strengths: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)

    @property
    def name(self) -> str:
        """For tables, claims and commands."""
        return "linear"

    def train(self, x: Vectors, y: Targets, classes: int, strength: float, weights: Any, seed: int) -> Trained:
        """See `Form`."""
        from sklearn.linear_model import LogisticRegression, Ridge

        if not classes:
            ridge = Ridge(alpha=1 / strength).fit(x, y, weights)
            return Trained((_column(ridge.coef_, ridge.intercept_),), True)
        model: Any = LogisticRegression(C=strength, max_iter=STEPS, tol=1e-3)
        # with an L2 penalty nothing is gained by weight on what does not vary, so the solver need not carry it along
        basis = _varying(x)
        converged = _fitted(model, x @ basis.T, y, weights)
        weight = model.coef_.astype(float) @ basis
        if classes == 2:
            return Trained((_two(weight[0], model.intercept_[0]),), converged)
        return Trained(((weight.T, model.intercept_.astype(float)),), converged)


@dataclass(frozen=True)
class Sparse:
    """A linear probe of `k` channels, chosen on what it is trained on.

    Args:
        k: how many channels.
        by: ``mean difference``: those in which the mean of a class is farthest from that of the others, in standard
            deviations (of numbers: the largest correlation); ``L1``: the first `k` that a weakening L1 penalty lets in.
        strengths: inverse penalties to choose from.

    Source:
        Gurnee et al. 2023, Finding Neurons in a Haystack: Case Studies with Sparse Probing, section 3.
    """

    k: int = 1
    by: Literal["mean difference", "L1"] = "mean difference"
    strengths: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)

    def __post_init__(self) -> None:
        if self.k < 1 or self.by not in ("mean difference", "L1"):
            raise BadInput(f"expected k of 1 or more, by 'mean difference' or 'L1'; got {self.k} and {self.by!r}")

    @property
    def name(self) -> str:
        """For tables, claims and commands."""
        return f"{self.k}-sparse" + " by L1" * (self.by == "L1")

    def train(self, x: Vectors, y: Targets, classes: int, strength: float, weights: Any, seed: int) -> Trained:
        """See `Form`."""
        chosen = self.channels(x, y, classes, weights)
        found = Linear().train(x[:, chosen], y, classes, strength, weights, seed)
        ((matrix, bias),) = found.layers
        whole = np.zeros((x.shape[1], matrix.shape[1]))
        whole[chosen] = matrix
        return Trained(((whole, bias),), found.converged)

    def channels(self, x: Vectors, y: Targets, classes: int, weights: Any) -> Int[np.ndarray, " k"]:
        """The channels that it reads, best first.

        Raises:
            BadInput: if there are fewer.
        """
        if self.k > x.shape[1]:
            raise BadInput(f"expected a site of at least {self.k} channels; got {x.shape[1]}")
        spread = x.std(0)
        x = np.divide(x, spread, out=np.zeros_like(x), where=spread > 0)
        if self.by == "L1":
            return _let_in(x, y, classes, weights, self.k)
        if not classes:
            score = np.abs(x.T @ (y - y.mean()))
        else:
            means = [(x[y == c].mean(0), x[y != c].mean(0)) for c in range(classes)]
            score = np.max([np.abs(own - other) for own, other in means], axis=0)
        return np.argsort(-score, kind="stable")[: self.k]


@dataclass(frozen=True)
class Nonlinear:
    """A multi-layer perceptron with one hidden layer of ReLUs.

    Args:
        hidden: units.
        strengths: inverse penalties to choose from.
    """

    hidden: int = 32
    strengths: tuple[float, ...] = (0.1, 10.0)

    @property
    def name(self) -> str:
        """For tables, claims and commands."""
        return "nonlinear"

    def train(self, x: Vectors, y: Targets, classes: int, strength: float, weights: Any, seed: int) -> Trained:
        """See `Form`."""
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        make: Any = MLPClassifier if classes else MLPRegressor
        model = make(
            (self.hidden,), alpha=1 / strength, learning_rate_init=0.005, batch_size=min(256, len(x)), max_iter=60,
            random_state=seed, tol=1e-3, n_iter_no_change=5,
        )  # fmt: skip
        converged = _fitted(model, x, y, weights)
        first, (matrix, bias) = zip(model.coefs_, model.intercepts_, strict=True)
        last = _two(matrix[:, 0], bias[0]) if classes == 2 else (matrix.astype(float), bias.astype(float))
        return Trained(((first[0].astype(float), first[1].astype(float)), last), converged)


def form_of(name: str) -> Form:
    """The form of a name, such as ``linear``, ``2-sparse``, ``5-sparse by L1`` or ``nonlinear``.

    Raises:
        BadInput: if there is none.
    """
    if name in ("linear", "nonlinear"):
        return Linear() if name == "linear" else Nonlinear()
    match = SPARSE.fullmatch(name)
    if match is None:
        raise BadInput(f"expected a form of probe: linear, nonlinear, 2-sparse or 2-sparse by L1; got {name!r}")
    return Sparse(int(match[1]), "L1" if match[2] else "mean difference")


def _varying(x: Vectors) -> Float[np.ndarray, "direction channel"]:
    """Orthonormal directions in which some vectors differ from 0; of wide ones all channels."""
    width = x.shape[1]
    if width > NARROW:
        return np.eye(width)
    values, vectors = np.linalg.eigh(x.T @ x)
    # of vectors that are all 0 every direction stays, since a solver needs one
    return vectors[:, values >= STILL * values[-1]].T


def _two(weights: np.ndarray, bias: float) -> tuple[np.ndarray, np.ndarray]:
    """One logit as two, that of the first class 0."""
    matrix = np.stack((np.zeros_like(weights), weights), 1).astype(float)
    return matrix, np.array([0.0, float(bias)])


def _column(weights: np.ndarray, bias: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(weights, dtype=float).reshape(-1, 1), np.array([float(np.asarray(bias).item())])


def _fitted(model: Any, x: Vectors, y: Targets, weights: Any) -> bool:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as told, _threads(x.size):
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(x, y, sample_weight=weights)
    return not any(issubclass(w.category, ConvergenceWarning) for w in told)


def _threads(size: int) -> AbstractContextManager[Any]:
    """One thread for a small problem; for others as many as there are."""
    return _pools().limit(limits=1 if size <= SMALL else None)


@cache
def _pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _let_in(x: Vectors, y: Targets, classes: int, weights: Any, k: int) -> Int[np.ndarray, " k"]:
    """The first `k` channels with any weight as an L1 penalty weakens; of several at once those with most weight."""
    from sklearn.linear_model import Lasso, LogisticRegression
    from sklearn.svm import l1_min_c

    targets = [y] if not classes else [(y == c).astype(int) for c in range(classes if classes > 2 else 1)]
    centred = y - y.mean()
    start = float(np.abs(x.T @ centred).max() / len(x)) if not classes else min(
        l1_min_c(x, t, loss="log") for t in targets
    )  # fmt: skip
    size = np.zeros(x.shape[1])
    for step in range(60):
        size[:] = 0
        for target in targets:
            if classes:
                model: Any = LogisticRegression(
                    C=start * PATH**step, l1_ratio=1.0, solver="liblinear", tol=1e-2, intercept_scaling=10
                )
            else:
                model = Lasso(alpha=start / PATH**step, tol=1e-3)
            _fitted(model, x, target, weights)
            size = np.maximum(size, np.abs(np.ravel(model.coef_)))
        if (size > 0).sum() >= k:
            break
    return np.argsort(-size, kind="stable")[:k]
