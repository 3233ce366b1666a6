"""openwork opens neural networks: find a mechanism, prove it, change it.

Importing it loads neither torch nor transformers: every name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openwork import (
        attribution,
        causal,
        control,
        errors,
        evidence,
        geometry,
        learning,
        lenses,
        metrics,
        network,
        probes,
        recipes,
        reports,
        results,
        store,
        studies,
        tasks,
        vision,
        weights,
        worlds,
        zoo,
    )
    from openwork.circuit import Circuit, Node
    from openwork.dictionary import Dictionary
    from openwork.direction import Direction
    from openwork.edit import (
        Ablate,
        Add,
        Array,
        Custom,
        Drop,
        Edit,
        Insert,
        KnockOut,
        Patch,
        Project,
        Scale,
        Set,
        Steer,
        Substitute,
        SwapAlong,
        Twin,
        edits_from_json,
        edits_to_json,
    )
    from openwork.finding import Finding
    from openwork.network.sweep import sweep
    from openwork.pictures import ImageFormat
    from openwork.rule import BackwardRule, Freeze
    from openwork.site import Edge, Site, Where
    from openwork.task import Inputs, Metric, Task
    from openwork.zoo.opening import open

    __version__: str

_EDITS = "Ablate Add Array Custom Drop Edit Insert KnockOut Patch Project Scale Set Steer Substitute SwapAlong Twin"
_HOMES: dict[str, str] = {
    "circuit": "Circuit Node",
    "dictionary": "Dictionary",
    "direction": "Direction",
    "edit": f"{_EDITS} edits_from_json edits_to_json",
    "finding": "Finding",
    "pictures": "ImageFormat",
    "rule": "BackwardRule Freeze",
    "site": "Edge Site Where",
    "task": "Inputs Metric Task",
    "network.sweep": "sweep",
    "zoo.opening": "open",
}
_HOME_OF = {name: f"openwork.{home}" for home, names in _HOMES.items() for name in names.split()}
_MODULES = (
    "attribution", "causal", "control", "errors", "evidence", "geometry", "learning", "lenses", "metrics", "network",
    "probes", "recipes", "reports", "results", "store", "studies", "tasks", "vision", "weights", "worlds", "zoo",
)  # fmt: skip

__all__ = [
    "Ablate",
    "Add",
    "Array",
    "BackwardRule",
    "Circuit",
    "Custom",
    "Dictionary",
    "Direction",
    "Drop",
    "Edge",
    "Edit",
    "Finding",
    "Freeze",
    "ImageFormat",
    "Inputs",
    "Insert",
    "KnockOut",
    "Metric",
    "Node",
    "Patch",
    "Project",
    "Scale",
    "Set",
    "Site",
    "Steer",
    "Substitute",
    "SwapAlong",
    "Task",
    "Twin",
    "Where",
    "__version__",
    "attribution",
    "causal",
    "control",
    "edits_from_json",
    "edits_to_json",
    "errors",
    "evidence",
    "geometry",
    "learning",
    "lenses",
    "metrics",
    "network",
    "open",
    "probes",
    "recipes",
    "reports",
    "results",
    "store",
    "studies",
    "sweep",
    "tasks",
    "vision",
    "weights",
    "worlds",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("openwork")
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    elif name in _MODULES:
        value = import_module(f"openwork.{name}")
    else:
        raise AttributeError(f"module 'openwork' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
