"""A study as one page: which sections there are, which pictures, and the policy that keeps the page to itself."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from openwork.reports import words
from openwork.reports.attention import LEVELS, attention_view
from openwork.reports.evidence import Bar, intervals, random_circuits
from openwork.reports.graph import circuit_graph, role_colours
from openwork.reports.heatmap import component_map, residual_map
from openwork.reports.style import PAGE, SCRIPT, STYLE
from openwork.studies.schema import Candidate, Study

RANDOM = "validation/random"
"""The array with the faithfulness of every random circuit."""

SECTIONS: tuple[tuple[str, str], ...] = (
    ("verdict", "Verdict"),
    ("why", "Why"),
    ("circuit", "Circuit"),
    ("validation", "Controls"),
    ("roles", "Roles"),
    ("attention", "Attention"),
    ("effects", "Effects"),
    ("elsewhere", "Elsewhere"),
    ("clusters", "Clusters"),
    ("gate", "Gate"),
    ("repeat", "Repeat"),
)


@dataclass(frozen=True)
class Fact:
    """A number worth reading first."""

    name: str
    value: str
    note: str


def page(study: Study, arrays: Mapping[str, np.ndarray]) -> str:
    """The whole page as HTML.

    Args:
        study: the record.
        arrays: the arrays that it names.

    Raises:
        CorruptFile: if an array that the record names is missing or does not fit.
    """
    style = STYLE + PAGE
    selected = selected_candidate(study)
    roles = study.roles
    return (
        environment()
        .get_template("report.html")
        .render(
            study=study,
            summary=study.summary.removeprefix(f"{study.status}: "),
            verdict=words.VERDICTS[study.status],
            csp=policy(style, SCRIPT),
            style=style,
            script=SCRIPT,
            contents=[(name, title) for name, title in SECTIONS if _has(study, name)],
            facts=facts(study),
            selected=selected,
            colours=role_colours(selected.nodes) if selected else {},
            role_of={head.site: head.role for head in roles.heads} if roles else {},
            n_components=len({effect.site for effect in study.effects.components}) if study.effects else 0,
            pictures=pictures(study, arrays),
            attention=[attention_view(example, arrays) for example in roles.attention] if roles else [],
        )
    )


def selected_candidate(study: Study) -> Candidate | None:
    """The candidate that was validated, with the roles that its heads have earned since."""
    found = next((c for c in study.candidates.candidates if c.selected), None) if study.candidates else None
    if found is None or study.roles is None:
        return found
    earned = {head.site: head.role for head in study.roles.heads}
    nodes = [node.model_copy(update={"role": earned.get(node.site, node.role)}) for node in found.nodes]
    return found.model_copy(update={"nodes": nodes})


def pictures(study: Study, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Every picture that the study has data for, by section; effects come as lists of (method, picture)."""
    unit, drawn = study.task.unit, {}
    if gate := study.gate:
        bars = [Bar(split.split, split.accuracy, "found") for split in gate.splits]
        drawn["gate"] = intervals(bars, "accuracy", "Accuracy on the task", limit=("needed", gate.needed))
    selected = selected_candidate(study)
    if study.candidates and selected and selected.nodes:
        drawn["circuit"] = circuit_graph(selected.nodes, study.candidates.edges, unit)
    if effects := study.effects:
        circuit = [node.site for node in selected.nodes] if selected else []
        methods = dict.fromkeys(effect.method for effect in effects.components)
        drawn["components"] = [(method, component_map(effects, method, circuit, unit)) for method in methods]
        methods = dict.fromkeys(effect.method for effect in effects.residual)
        drawn["residual"] = [(method, residual_map(effects, method, unit)) for method in methods]
    if found := study.validation:
        values = arrays.get(RANDOM)
        drawn["random"] = None if values is None else random_circuits(values, found.faithfulness, found.random)
        bars = [Bar("the circuit", found.faithfulness, "found")]
        bars += [Bar(rival.name, rival.faithfulness) for rival in found.rivals]
        bars.append(Bar("random circuits", found.random, "control"))
        drawn["rivals"] = intervals(bars, "faithfulness (1 = the whole network)", "Faithfulness beside its controls")
    if side := study.side_effects:
        bars = []
        for part in side.slices:
            bars += [Bar(part.slice, part.change, "found"), Bar("random circuits", part.random, "control")]
        drawn["elsewhere"] = intervals(
            bars, "change of the loss, nats per token", "What knocking it out breaks elsewhere"
        )
    return drawn


def facts(study: Study) -> list[Fact]:
    """The numbers that stand next to the verdict."""
    if v := study.validation:
        held_out = f"{words.between(v.faithfulness)}, {v.faithfulness.n} held-out examples"
        found = [
            Fact("Faithfulness", words.number(v.faithfulness.value), held_out),
            Fact(
                "Random circuits",
                words.number(v.random.value),
                f"{v.random.n} drawn, {words.p_value(v.random.p_value)}",
            ),
        ]
        found += [Fact("Best rival", words.number(r.faithfulness.value), r.name) for r in v.rivals if r.best]
        selected = selected_candidate(study)
        return [*found, Fact("Components", str(len(selected.nodes)), v.profile)] if selected else found
    if gate := study.gate:
        found = [
            Fact(
                f"Accuracy, {part.split}",
                words.number(part.accuracy.value),
                f"{words.between(part.accuracy)}, {part.accuracy.n} examples",
            )
            for part in gate.splits
        ]
        return [*found, Fact("Needed", words.number(gate.needed), f"chance is {words.number(gate.chance)}")]
    return []


def _has(study: Study, section: str) -> bool:
    selected = selected_candidate(study)
    return {
        "why": study.validation is not None,
        "circuit": selected is not None and bool(selected.nodes),
        "validation": study.validation is not None,
        "roles": study.roles is not None,
        "attention": study.roles is not None and bool(study.roles.attention),
        "effects": study.effects is not None and bool(study.effects.components),
        "elsewhere": study.side_effects is not None and bool(study.side_effects.slices),
        "clusters": study.clusters is not None,
        "gate": study.gate is not None,
    }.get(section, True)


def environment() -> Environment:
    """The templates, with everything escaped, and the words of a report as filters."""
    environment = Environment(
        loader=PackageLoader("openwork.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "number": words.number,
        "between": words.between,
        "p_value": words.p_value,
        "tiny": words.tiny,
        "component": words.component,
        "visible": words.visible,
        "sentence": words.sentence,
        "shade": lambda share: round(min(1.0, max(0.0, share)) * LEVELS),
    }
    environment.tests["contains"] = lambda positions, position: position in positions
    return environment


def policy(style: str, script: str) -> str:
    """Nothing may be loaded, no image but those within the page, and no style or script runs but these two."""

    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; img-src data:; style-src {allowed(style)}; script-src {allowed(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
