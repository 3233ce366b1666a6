"""The table of a dissection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from openwork.evidence import benjamini_hochberg
from openwork.vision.dissection.overlap import Concepts

if TYPE_CHECKING:
    import xarray

Z = 1.959963984540054
"""Of a two-sided interval of 95 %."""


def assembled(units: Sequence[Any], concepts: Concepts, least: float, examples: Mapping[str, Any]) -> xarray.Dataset:
    """One table of all sites.

    Args:
        units: of each site, after the last pass.
        concepts: which there are.
        least: above which a unit is a detector.
        examples: images of the best units.
    """
    import xarray

    columns = [_columns(u, least) for u in units]
    merged = {name: np.concatenate([c[name] for c in columns]) for name in columns[0]}
    categories = list(concepts.categories)
    variables: dict[str, Any] = {name: ("unit", value) for name, value in merged.items()}
    variables["q"] = ("unit", _adjusted(merged["p"]))
    variables["concept_iou"] = (("unit", "concept"), np.concatenate([u.held[0].iou for u in units]))
    for name, unique in (("detectors", False), ("unique_detectors", True)):
        numbers = [_numbers(u, concepts, least, unique) for u in units]
        variables[name] = (("site", "category"), np.stack([n[0] for n in numbers]).astype(float))
        turns = min(len(n) - 1 for n in numbers)
        if turns:
            rotated = np.stack([n[1 : turns + 1] for n in numbers]).astype(float)
            label = name.replace("detectors", "").strip("_")
            variables[f"rotated_{label or 'detectors'}"] = (("site", "rotation", "category"), rotated)
    rotated_iou = [u.held_iou()[1:].ravel() for u in units]
    if min(map(len, rotated_iou)):
        most = min(map(len, rotated_iou))
        variables["rotated_iou"] = (("site", "control"), np.stack([r[:most] for r in rotated_iou]))
    coords: dict[str, Any] = {
        "unit": [name for u in units for name in u.names],
        "concept": concepts.names,
        "category": categories,
        "site": [u.site for u in units],
        "unit_site": ("unit", [u.site for u in units for _ in u.names]),
        "concept_category": ("concept", [categories[c] for c in concepts.category]),
    }
    coords["best_concept"] = ("unit", [concepts.names[b] for b in merged["best"]])
    if examples:
        coords["shown"] = examples["shown"]
        variables["row"] = (("shown", "example"), examples["row"])
        variables["picture"] = (("shown", "example", "y", "x", "colour"), examples["picture"])
        for name in ("lit", "labelled"):
            variables[name] = (("shown", "example", "y", "x"), examples[name])
    return xarray.Dataset(variables, coords)


def _columns(unit: Any, least: float) -> dict[str, np.ndarray]:
    """What is known of each unit of one site."""
    best, rows = unit.best[0], np.arange(len(unit.names))
    iou, error = unit.held[0].iou[rows, best], unit.held[0].error[rows, best]
    controls = unit.held_iou()[1:].ravel()
    p = (1 + (controls[None] >= iou[:, None]).sum(1)) / (1 + len(controls)) if len(controls) else np.full(len(iou), 1.0)
    return {
        "threshold": unit.thresholds[0].double().numpy(),
        "share": (unit.above / max(unit.places, 1)).numpy(),
        "find_iou": unit.found[0].iou[rows, best],
        "iou": iou,
        "iou_low": np.clip(iou - Z * error, 0, 1),
        "iou_high": np.clip(iou + Z * error, 0, 1),
        "best": best,
        "detector": iou > least,
        "p": p,
    }


def _adjusted(p: np.ndarray) -> np.ndarray:
    return np.asarray(benjamini_hochberg(p.tolist()))


def _numbers(unit: Any, concepts: Concepts, least: float, unique: bool) -> np.ndarray:
    """Of each basis, the detectors of each category, or the different concepts that they detect."""
    out = np.zeros((len(unit.bases), len(concepts.categories)))
    for number, (best, iou) in enumerate(zip(unit.best, unit.held_iou(), strict=True)):
        found = best[iou > least]
        found = np.unique(found) if unique else found
        out[number] = np.bincount(concepts.category[found], minlength=out.shape[1])
    return out
