"""A study that was invented, with every kind of value that a report has to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openwork.store import write_arrays, write_json
from openwork.studies.schema import Study

N_BLOCKS, N_HEADS = 4, 6
TOKENS = [
    "def",
    " area",
    "(",
    "width",
    ",",
    " height",
    "):",
    "\n   ",
    " return",
    " width",
    " *",
    " height",
    "\n",
    "def",
]
CIRCUIT = {"blocks.0.attn.z[2]": 0.9, "blocks.0.mlp.out": 0.4, "blocks.1.attn.z[0]": 0.5, "blocks.2.attn.z[3]": 1.7,
           "blocks.2.attn.z[5]": 1.1, "blocks.3.attn.z[1]": 0.6}  # fmt: skip
ROLES = {"blocks.0.attn.z[2]": "previous token", "blocks.2.attn.z[3]": "induction", "blocks.2.attn.z[5]": "induction"}
EDGES = [("blocks.0.attn.z[2]", "blocks.2.attn.z[3]"), ("blocks.0.attn.z[2]", "blocks.2.attn.z[5]"),
         ("blocks.0.mlp.out", "blocks.1.attn.z[0]"), ("blocks.1.attn.z[0]", "blocks.3.attn.z[1]"),
         ("blocks.2.attn.z[3]", "logits"), ("blocks.2.attn.z[5]", "logits"),
         ("blocks.3.attn.z[1]", "logits")]  # fmt: skip


def interval(value: float, half: float = 0.1, n: int = 32) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "level": 0.95, "n": n}


def control(name: str, value: float = 0.05, p_value: float | None = 0.002) -> dict[str, Any]:
    return {"name": name, "value": value, "low": value - 0.1, "high": value + 0.2, "n": 500, "p_value": p_value}


def places() -> list[tuple[str, str, int, int | None]]:
    heads = [(f"blocks.{b}.attn.z[{h}]", "head", b, h) for b in range(N_BLOCKS) for h in range(N_HEADS)]
    return sorted([*heads, *((f"blocks.{b}.mlp.out", "mlp", b, None) for b in range(N_BLOCKS))])


def node(site: str) -> dict[str, Any]:
    _, kind, layer, index = next(place for place in places() if place[0] == site)
    return {
        "site": site, "kind": kind, "layer": layer, "index": index, "score": CIRCUIT[site], "role": ROLES.get(site)
    }  # fmt: skip


def effects(rng: np.random.Generator) -> dict[str, Any]:
    def judged(value: float, method: str) -> dict[str, Any]:
        significant = abs(value) > 0.2
        return {
            "method": method, "effect": interval(value), "p_value": 0.001 if significant else 0.4,
            "q_value": 0.004 if significant else 0.6, "significant": significant, "controls": [control("random sites")],
        }  # fmt: skip

    components = [
        {"site": site, "kind": kind, "layer": layer, "index": index}
        | judged(CIRCUIT.get(site, 0.0) + float(rng.normal(0, 0.06)), method)
        for method in ("mean ablation", "denoising")
        for site, kind, layer, index in places()
    ]
    positions = ["first use", "after first use", "between", "second use"]
    residual = [
        {"site": f"blocks.{min(layer, N_BLOCKS - 1)}.resid_pre", "layer": layer, "position": position}
        | judged(float(np.clip(2.5 * (layer > 0) * (column == 1) * (layer < 3) + 2.8 * (layer > 2) * (column == 3)
                               + rng.normal(0, 0.1), -0.4, 3)), "denoising")
        for layer in range(N_BLOCKS + 1)
        for column, position in enumerate(positions)
    ]  # fmt: skip
    return {
        "clean": interval(3.4), "corrupted": interval(-0.6), "identity": 0.0, "components": components,
        "layers": list(range(N_BLOCKS + 1)), "positions": positions, "residual": residual,
    }  # fmt: skip


def clusters() -> dict[str, Any]:
    one = {
        "name": "heads A", "members": ["blocks.2.attn.z[3]", "blocks.2.attn.z[5]"], "cohesion": 0.71, "p_value": 0.01,
        "stability": 0.93, "interesting": True, "effect": 2.8, "tokens": [" width", " height", "<b>"],
    }  # fmt: skip
    dull = one | {"name": "heads B", "members": ["blocks.3.attn.z[0]", "blocks.3.attn.z[4]"], "interesting": False,
                  "p_value": 0.4, "stability": 0.2, "effect": None, "tokens": []}  # fmt: skip
    clustering = {
        "of": "heads", "by": "co-activation over text", "n_items": 24, "n_observations": 3072, "n_clusters": 2,
        "statistic": 0.31, "null": control("shuffled activations"), "p_value": 0.01, "stability": interval(0.8),
        "interesting": True, "clusters": [one, dull],
    }  # fmt: skip
    return {"clusterings": [clustering, clustering | {"of": "units", "interesting": False, "p_value": 0.3}]}


def validation(verdict: str) -> dict[str, Any]:
    good = verdict == "supported"
    criteria = [
        {"name": "better than random circuits", "asked": "p < 0.01 of 500", "found": "p = 0.002", "passed": good},
        {"name": "faithful", "asked": "lower end > 0.5", "found": "0.84 to 0.97", "passed": True},
        {"name": "better than the best rival", "asked": "p < 0.05", "found": "p = 0.03", "passed": None},
    ]  # fmt: skip
    rivals = [
        {"name": "the strongest head alone", "nodes": ["blocks.2.attn.z[3]"], "faithfulness": interval(0.55),
         "difference": interval(0.33), "p_value": 0.001, "best": True},
        {"name": "all MLPs", "nodes": [f"blocks.{b}.mlp.out" for b in range(4)], "faithfulness": interval(0.1),
         "difference": interval(0.7), "p_value": 0.0002, "best": False},
    ]  # fmt: skip
    return {
        "circuit": "top effects", "ablation": "components outside carry their mean",
        "full": interval(3.3), "empty": interval(-0.5),
        "faithfulness": interval(0.91, 0.06), "completeness": interval(0.88, 0.07),
        "random": control("random circuits of the same size and layer profile", 0.12),
        "random_quantiles": {"0.5": 0.1, "0.95": 0.45, "1.0": 0.7}, "n_distinct": 480,
        "profile": "block 0: 1 head, 1 MLP; block 1: 1 head; block 2: 2 heads; block 3: 1 head", "rivals": rivals,
        "detectable": 0.08, "verdict": verdict, "criteria": criteria,
        "reason": "faithful on held-out examples, and no random circuit equals it",
    }  # fmt: skip


def roles() -> dict[str, Any]:
    names = ["previous token", "duplicate token", "induction"]

    def scores(site: str) -> list[dict[str, Any]]:
        return [
            {"role": name, "score": 0.82 if ROLES.get(site) == name else 0.07, "null": 0.05, "threshold": 0.25,
             "p_value": 0.01 if ROLES.get(site) == name else 0.5, "passed": ROLES.get(site) == name}
            for name in names
        ]  # fmt: skip

    heads = [
        {"site": site, "layer": layer, "index": index, "role": ROLES.get(site), "in_circuit": site in CIRCUIT,
         "scores": scores(site)}
        for site, kind, layer, index in places() if kind == "head"
    ]  # fmt: skip
    attention = [
        {"site": site, "tokens": TOKENS, "array": f"attention/{k}"} for k, site in enumerate(sorted(ROLES))
    ]  # fmt: skip
    definitions = {name: f"share of attention that goes to the {name}" for name in names}
    return {"definitions": definitions, "least": 0.25, "heads": heads, "attention": attention}


def make_study(verdict: str = "supported", **changes: Any) -> dict[str, Any]:
    """A study record as JSON; `verdict` is also ``cannot do the task`` or ``running``."""
    rng = np.random.default_rng(0)
    passed = verdict != "cannot do the task"
    split = {"clean": interval(3.4), "corrupted": interval(-0.6), "passed": passed}
    gate = {
        "chance": 0.1, "margin": 0.1, "needed": 0.2, "passed": passed, "reason": "accuracy clears what was asked",
        "splits": [split | {"split": name, "accuracy": interval(0.86 if passed else 0.12)}
                   for name in ("find", "held-out")],
    }  # fmt: skip
    example = {
        "split": "find", "clean": [*TOKENS, " area"], "corrupted": [*TOKENS[:3], "depth", *TOKENS[4:], " area"],
        "answer": "(", "wrong": "<script>alert(1)</script>", "at": 14, "groups": {"first use": [1], "second use": [14]},
    }  # fmt: skip
    study: dict[str, Any] = {
        "schema_version": 1, "openwork": "0.1.0", "key": "k" * 64,
        "model": {"name": "py-4l", "sha256": "ab" * 32, "parameters": 2_300_000, "n_blocks": N_BLOCKS,
                  "heads": [N_HEADS] * N_BLOCKS, "dtype": "float32", "device": "cpu"},
        "task": {"name": "induction", "description": "After A B … A, predict B, in real code.",
                 "metric": "logit difference", "unit": "nats", "chance": 0.1, "n_find": 32, "n_held_out": 32,
                 "sha256": "cd" * 32, "groups": ["first use", "second use"], "examples": [example]},
        "text_sha256": "ef" * 32, "text_name": "the source of openwork", "seed": 0, "threads": 2, "torch": "2.13.0",
        "command": "openwork study py-4l --task induction --seed 0",
        "settings": {"alpha": 0.05, "random_circuits": 500, "ablation": "corrupted"}, "status": verdict,
        "summary": "Six components of 28 carry induction in py-4l: two induction heads fed by a previous-token head.",
        "gate": gate, "arrays": {}, "timestamps": {"started": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:02:00Z",
                                                   "seconds": {"gate": 1.5, "effects": 60.0}},
    }  # fmt: skip
    if passed:
        candidate = {
            "name": "top effects", "how": "components by effect until faithful", "nodes": [node(s) for s in CIRCUIT],
            "faithfulness": 0.93, "completeness": 0.9, "selected": True,
        }  # fmt: skip
        edges = [
            {"sender": a, "receiver": b, "score": interval(0.2 + 0.2 * k), "p_value": 0.001, "q_value": 0.003,
             "significant": k != 2}
            for k, (a, b) in enumerate(EDGES)
        ]  # fmt: skip
        side = {"slice": "names seen before", "n_tokens": 900, "loss": 2.1, "change": interval(0.8),
                "random": control("random circuits", 0.1)}  # fmt: skip
        study |= {
            "effects": effects(rng), "clusters": clusters(), "validation": validation(verdict), "roles": roles(),
            "candidates": {
                "candidates": [candidate, candidate | {"name": "cluster heads A", "selected": False}],
                "selected": "top effects", "edges": edges, "reason": "smallest that is faithful enough",
            },
            "side_effects": {"ablation": "the components carry their mean", "n_texts": 32,
                             "slices": [side, side | {"slice": "all tokens", "change": interval(0.05, 0.02)}]},
        }  # fmt: skip
    return study | changes


def make_arrays() -> dict[str, np.ndarray]:
    """The arrays of the study: attention patterns, and the faithfulness of random circuits."""
    rng = np.random.default_rng(1)
    size = len(TOKENS)
    weights = np.tril(rng.exponential(size=(3, size, size)) ** 3)
    weights /= weights.sum(-1, keepdims=True)
    arrays = {f"attention/{k}": weights[k].astype(np.float32) for k in range(3)}
    return arrays | {"validation/random": rng.normal(0.12, 0.16, 500).astype(np.float32)}


@pytest.fixture
def study() -> Study:
    return Study.model_validate(make_study())


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return make_arrays()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a study with its arrays and gives the folder."""

    def write(verdict: str = "supported", **changes: Any) -> Path:
        write_json(tmp_path / "study.json", make_study(verdict, **changes))
        if verdict != "cannot do the task":
            write_arrays(tmp_path / "arrays.npz", make_arrays())
        return tmp_path

    return write
