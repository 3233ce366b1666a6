"""A trained probe: what it predicts, the direction it reads, and how it is kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from openwork.direction import Direction
from openwork.errors import BadInput, CorruptFile
from openwork.probes.forms import Form, Layers, Targets, Vectors
from openwork.site import Site
from openwork.store.files import read_record, read_tensors, write_json, write_tensors
from openwork.task import split_rows

SCHEMA, VERSION = "openwork/probe", 1
TENSORS, RECORD = "probe.safetensors", "probe.json"
VALIDATION = 0.3
"""Share of the documents that strengths are chosen on."""
SPREAD = 1e-6
"""Channels that spread less than this share of the widest one are left as they are."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A trained probe.

    Args:
        form: its form, by name.
        site: what it reads.
        label: what it reads off.
        classes: names of the classes; empty for numbers.
        mean: (channel,) that is subtracted from what it reads.
        scale: by which that is divided: the root mean square of the channels' standard deviations. One number for all,
            so that lengths and angles stay what they are and a penalty prefers directions along which much varies.
        layers: see `openwork.probes.forms.Trained`.
        strength: the inverse penalty that was chosen.
        validation: its score on the documents that the strength was chosen on.
        converged: whether the solver says that it did.
        about: what else is known of it, as JSON values.
    """

    form: str
    site: Site
    label: str
    classes: tuple[str, ...]
    mean: Float[np.ndarray, " channel"]
    scale: float
    layers: Layers
    strength: float
    validation: float = float("nan")
    converged: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)

    def outputs(self, x: Vectors) -> Float[np.ndarray, "place out"]:
        """Logits of the classes, or the number."""
        if x.ndim != 2 or x.shape[1] != len(self.mean):
            raise BadInput(f"expected vectors of {len(self.mean)} channels for this probe; got shape {x.shape}")
        out = (x.astype(float) - self.mean) / self.scale
        for number, (matrix, bias) in enumerate(self.layers):
            out = (np.maximum(out, 0) if number else out) @ matrix + bias
        return out

    def probabilities(self, x: Vectors) -> Float[np.ndarray, "place class"]:
        """Of each class.

        Raises:
            BadInput: for a probe of numbers.
        """
        if not self.classes:
            raise BadInput(f"expected a probe of classes; this one reads the number {self.label!r}")
        logits = self.outputs(x)
        exp = np.exp(logits - logits.max(1, keepdims=True))
        return exp / exp.sum(1, keepdims=True)

    def predict(self, x: Vectors) -> Targets:
        """The likeliest class, or the number."""
        out = self.outputs(x)
        return out.argmax(1) if self.classes else out[:, 0]

    @property
    def direction(self) -> Direction:
        """What it reads, as a direction or subspace of unit length or orthonormal rows, in the site's own units.

        Of two classes it points towards the second one, of a number upwards; of more classes it spans all differences
        between their logits.

        Raises:
            BadInput: for a non-linear probe, which reads no subspace.
        """
        (matrix, _), *more = self.layers
        if more:
            raise BadInput(f"expected a linear or sparse probe; a {self.form} one reads no single direction")
        origin = f"{self.form} probe of {self.label}"
        if matrix.shape[1] <= 2:
            vector = matrix[:, -1] - (matrix[:, 0] if matrix.shape[1] == 2 else 0)
            size = np.linalg.norm(vector)
            if size == 0:
                raise BadInput(f"expected a probe that reads something; that of {self.label!r} has only zero weights")
            return Direction(self.site, vector / size, origin)
        values, rows = np.linalg.svd((matrix - matrix.mean(1, keepdims=True)).T, full_matrices=False)[1:]
        return Direction(self.site, rows[values > 1e-6 * values[0]], origin)

    def save(self, folder: str | Path) -> Path:
        """Write ``probe.safetensors`` and ``probe.json``, the record last.

        Raises:
            OutputOccupied: if the folder cannot be written.
        """
        import torch

        folder = Path(folder)
        tensors = {"mean": self.mean, "scale": np.array([self.scale])}
        for number, (matrix, bias) in enumerate(self.layers):
            tensors |= {f"layers.{number}.weight": matrix, f"layers.{number}.bias": bias}
        arrays = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in tensors.items()}
        write_tensors(folder / TENSORS, arrays)
        record = {
            "schema": SCHEMA, "schema_version": VERSION, "form": self.form, "site": str(self.site),
            "label": self.label, "classes": list(self.classes), "strength": self.strength,
            "validation": None if np.isnan(self.validation) else self.validation, "converged": self.converged,
            "about": dict(self.about),
        }  # fmt: skip
        write_json(folder / RECORD, record)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Probe:
        """Read what `save` wrote.

        Raises:
            BadInput: if there is no such probe.
            CorruptFile: if a file is damaged, or of another schema or version.
        """
        folder = Path(folder)
        record = read_record(folder / RECORD, SCHEMA, VERSION)
        tensors = {name: tensor.numpy() for name, tensor in read_tensors(folder / TENSORS).items()}
        try:
            count = sum(name.endswith(".weight") for name in tensors)
            layers = tuple((tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"]) for i in range(count))
            validation = float("nan") if record["validation"] is None else float(record["validation"])
            found = cls(
                record["form"], Site.parse(record["site"]), record["label"], tuple(record["classes"]),
                tensors["mean"], float(tensors["scale"][0]), layers, float(record["strength"]), validation,
                record["converged"], record["about"],
            )  # fmt: skip
            found.outputs(np.zeros((1, len(found.mean)), dtype=np.float32))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CorruptFile(f"expected weights and fields of a probe in {folder}; {error!r}") from error
        return found


def fit(
    form: Form,
    x: Vectors,
    y: Targets,
    documents: Int[np.ndarray, " place"],
    *,
    classes: Sequence[str] = (),
    site: str | Site = "given",
    label: str = "label",
    strength: float | None = None,
    balanced: bool = True,
    seed: int = 0,
) -> Probe:
    """Train a probe, with a strength chosen on documents that it was not trained on; then on all of them.

    Args:
        form: linear, sparse or non-linear.
        x: the vectors, of the find split alone.
        y: numbers of classes, or numbers if `classes` is empty.
        documents: what each place belongs to.
        classes: names of the classes.
        site: where the vectors come from.
        label: what `y` says.
        strength: use this one instead of choosing.
        balanced: give every class the same weight in all, so that rare ones count.
        seed: of the choice of documents and of training.

    Raises:
        BadInput: vectors that are not finite, or other numbers of labels than vectors.
    """
    if not (len(x) == len(y) == len(documents)) or not np.isfinite(x).all():
        raise BadInput(
            f"expected finite vectors with a label and a document each; got {len(x)} vectors, {len(y)} labels and "
            f"{len(documents)} documents"
        )
    names = tuple(classes)
    chosen, validation = (strength, float("nan")) if strength is not None else _chosen(
        form, x, y, documents, names, balanced, seed
    )  # fmt: skip
    made = _trained(form, x, y, names, chosen, balanced, seed)
    mean, scale, layers, converged = made
    return Probe(form.name, Site.parse(site), label, names, mean, scale, layers, chosen, validation, converged)


def class_weights(y: Targets, balanced: bool, classes: Sequence[str]) -> Float[np.ndarray, " place"]:
    """The weight of each place in training: of mean 1, and the same for every class in all if balanced."""
    if not (balanced and classes):
        return np.ones(len(y))
    counts = np.bincount(y.astype(int), minlength=len(classes))
    present = (counts > 0).sum()
    return len(y) / (present * counts[y.astype(int)])


def _chosen(
    form: Form, x: Vectors, y: Targets, documents: np.ndarray, classes: tuple[str, ...], balanced: bool, seed: int
) -> tuple[float, float]:
    """The strength whose probe predicts documents left out best, and its score there."""
    names = np.unique(documents)
    out = names[sorted(split_rows(len(names), seed, VALIDATION))] if len(names) > 1 else names[:0]
    aside = np.isin(documents, out)
    if not aside.any() or len(np.unique(y[~aside])) < 2 or len(np.unique(y[aside])) < 2:
        return form.strengths[len(form.strengths) // 2], float("nan")
    best, score = form.strengths[0], -np.inf
    scores = {}
    for strength in form.strengths:
        mean, scale, layers, _ = _trained(form, x[~aside], y[~aside], classes, strength, balanced, seed)
        probe = Probe(form.name, Site("given"), "", classes, mean, scale, layers, strength)
        found = _likelihood(probe, x[aside], y[aside], balanced)
        scores[strength] = validation_score(probe, x[aside], y[aside])
        if found > score:
            best, score = strength, found
    return best, scores[best]


def _trained(
    form: Form, x: Vectors, y: Targets, classes: tuple[str, ...], strength: float, balanced: bool, seed: int
) -> tuple[np.ndarray, float, Layers, bool]:
    """Mean, scale and weights; classes that do not occur get a bias that rules them out."""
    x = x.astype(float)
    mean, spread = x.mean(0), x.std(0)
    still = spread <= SPREAD * spread.max(initial=0.0)
    scale = float(np.sqrt(np.square(spread).mean())) or 1.0
    there, numbers = np.unique(y, return_inverse=True) if classes else (np.array([]), y)
    weights = class_weights(y, balanced, classes)
    z = np.where(still, 0.0, (x - mean) / scale)
    found = form.train(z, numbers, len(there), strength, weights, seed)
    (first, offset), *rest = found.layers
    # what did not vary in training says nothing, even where it varies later
    layers: Layers = ((np.where(still[:, None], 0.0, first), offset), *rest)
    if classes and len(there) < len(classes):
        matrix, bias = layers[-1]
        wide, low = np.zeros((matrix.shape[0], len(classes))), np.full(len(classes), -30.0)
        wide[:, there.astype(int)], low[there.astype(int)] = matrix, bias
        layers = (*layers[:-1], (wide, low))
    return mean, scale, layers, found.converged


def _likelihood(probe: Probe, x: Vectors, y: Targets, balanced: bool) -> float:
    if not probe.classes:
        return -float(np.square(probe.predict(x) - y).mean())
    weights = class_weights(y, balanced, probe.classes)
    p = probe.probabilities(x)[np.arange(len(y)), y.astype(int)]
    return float((weights * np.log(np.maximum(p, 1e-12))).mean())


def validation_score(probe: Probe, x: Vectors, y: Targets) -> float:
    """Balanced accuracy, or R² of numbers."""
    predicted = probe.predict(x)
    if not probe.classes:
        return float(1 - np.square(predicted - y).sum() / np.square(y - y.mean()).sum())
    return float(np.mean([np.mean(predicted[y == c] == c) for c in np.unique(y)]))
