"""The result of one method as one page: verdicts, warnings, pictures, controls, and how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openwork.reports import words
from openwork.reports.dissection import dissection_pictures
from openwork.reports.evidence import Bar, intervals
from openwork.reports.exemplars import exemplar_pictures
from openwork.reports.judging import judging
from openwork.reports.labelled import Drawn, draw, rows_of
from openwork.reports.learning import AXIS, learning_pictures
from openwork.reports.page import Fact, environment, policy
from openwork.reports.patches import patch_pictures
from openwork.reports.pathways import path_graph
from openwork.reports.pictures import seen_pictures
from openwork.reports.probing import probe_curves
from openwork.reports.representations import representations
from openwork.reports.seeing import circuit_pictures
from openwork.reports.sheet import sheets
from openwork.reports.style import PAGE, SCRIPT, STYLE
from openwork.reports.token_grid import lens_pictures
from openwork.reports.token_scores import token_scores
from openwork.reports.tuning import tuning_pictures
from openwork.reports.weights import weights_pictures
from openwork.results.result import Result
from openwork.studies.schema import Control, Estimate

if TYPE_CHECKING:
    from openwork.finding import Finding

ALARM = "WARNING"
"""A remark that holds this word stands before the claims."""
SECTIONS = (
    ("verdict", "Verdict"),
    ("remarks", "Remarks"),
    ("pictures", "Pictures"),
    ("claims", "Claims"),
    ("numbers", "Numbers"),
    ("repeat", "Repeat"),
)


@dataclass(frozen=True)
class Outcome:
    """What the findings of a result come to.

    Args:
        status: of the strongest: ``supported``, ``inconclusive`` or ``rejected``; ``measured`` without claims.
        title: the same for a reader.
        sign: one that does not depend on colour.
        text: a sentence.
    """

    status: str
    title: str
    sign: str
    text: str

    @classmethod
    def of(cls, result: Result) -> Outcome:
        """Sum up the verdicts."""
        findings = result.findings
        if not findings:
            return cls("measured", "Nothing is claimed", "∅", "This result measures, and makes no claim.")
        verdicts = [str(finding.verdict) for finding in findings]
        status = next(v for v in ("supported", "inconclusive", "rejected") if v in verdicts)
        count = verdicts.count(status)
        held = {finding.split for finding in findings}
        where = " on held-out examples against matched controls" if held == {"held-out"} else ""
        what = (
            "The claim is"
            if len(findings) == 1
            else f"{count} of {len(findings)} claims {'is' if count == 1 else 'are'}"
        )
        title, sign = words.VERDICTS[status]
        title += " in part" * (status == "supported" and count < len(findings))
        return cls(status, title, sign, f"{what} {status}{where}.")


def result_page(result: Result | str | Path) -> str:
    """The whole page as HTML; it loads nothing.

    Args:
        result: of any method, or the folder that it was saved in.

    Raises:
        BadInput: if the folder holds no result.
        CorruptFile: if it is damaged or of another version.
    """
    if not isinstance(result, Result):
        result = Result.load(result)
    style = STYLE + PAGE
    alarms = [remark for remark in result.remarks if ALARM in remark]
    other = [remark for remark in result.remarks if ALARM not in remark]
    drawn, rows = result_pictures(result), rows_of(result.table)
    there = {"remarks": bool(other), "claims": bool(result.findings), "pictures": bool(drawn), "numbers": bool(rows)}
    settings = {name: value for name, value in result.settings.items() if name != "command"}
    return (
        environment()
        .get_template("result.html")
        .render(
            result=result, outcome=Outcome.of(result), heading=heading(result), alarms=alarms, remarks=other,
            facts=facts(result), contents=[item for item in SECTIONS if there.get(item[0], True)],
            claims=claims_pictures(result.findings), pictures=drawn, rows=rows,
            command=result.settings.get("command") or next((f.provenance.command for f in result.findings), ""),
            provenance=result.findings[0].provenance if result.findings else None,
            settings=[(name, _said(value)) for name, value in sorted(_flat(settings).items())],
            attributes=[(str(name), _said(value)) for name, value in sorted(result.table.attrs.items())],
            variables=[(str(name), ", ".join(map(str, x.dims)) or "one number", list(x.shape))
                       for name, x in sorted(result.table.data_vars.items())],
            verdicts=words.VERDICTS, csp=policy(style, SCRIPT), style=style, script=SCRIPT,
        )
    )  # fmt: skip


def result_pictures(result: Result) -> list[Drawn]:
    """Every picture that the table of a result has data for; the graph first where it holds edges."""
    table = result.table
    if AXIS in table.dims:
        return learning_pictures(table)
    shown, table = exemplar_pictures(table)
    tuned, table = tuning_pictures(table)
    drawn, table = representations(table)
    judged, table = judging(table)
    if {"sender", "receiver"} <= set(table.dims) and {"effect", "low", "high", "p", "total"} <= set(table.data_vars):
        graph = path_graph(table)
        if graph is not None:
            note = (
                "The strongest edges with p < 0.05 after correction for many comparisons; information flows upwards. "
                "The number in a node is its effect through everything, the width of an edge the effect through it "
                f"alone, both in {table.attrs.get('unit', '')}. Point at an edge for its number."
            )
            drawn.append(Drawn(graph, note))
    more = [
        *shown,
        *tuned,
        *judged,
        *token_scores(table),
        *lens_pictures(table),
        *drawn,
        *weights_pictures(table),
        *probe_curves(table),
    ]
    of_vision = circuit_pictures(table) or patch_pictures(table) or seen_pictures(table)
    return of_vision or sheets(table) or dissection_pictures(table) or [*more, *draw(table)]


def claims_pictures(findings: Sequence[Finding]) -> list[Drawn]:
    """Each claim with its interval beside its matched controls, in order; claims in one unit share a picture."""
    units = dict.fromkeys(finding.unit for finding in findings)
    return [_claims_picture(findings, unit) for unit in units]


def _claims_picture(findings: Sequence[Finding], unit: str) -> Drawn:
    bars: list[Bar] = []
    asked: set[float] = set()
    for place, finding in enumerate(findings, 1):
        if finding.unit != unit:
            continue
        name = f"claim {place}" if len(findings) > 1 else "the claim"
        i, value = finding.interval, finding.estimate
        ends = (i.low, i.high, i.level) if i else (value, value, 0.95)
        low, high = min(ends[0], value), max(ends[1], value)
        bars.append(Bar(name, Estimate(value=value, low=low, high=high, level=ends[2], n=finding.n), "found"))
        if c := finding.control:
            control = Control(name=c.kind, value=c.mean, low=c.low, high=c.high, n=c.n, p_value=c.p_value)
            bars.append(Bar("its controls", control, "control"))
        asked |= {finding.criteria.min_effect} if finding.criteria else set()
    note = "Claims with their intervals; in grey the mean of their matched controls, and where 95 % of these lie."
    limit = None
    if len(asked) == 1:
        (least,) = asked
        limit = ("asked for", least)
        note += f" The dashed line is the smallest effect that was stated to matter, {words.number(least)}."
    return Drawn(intervals(bars, unit, "Claims beside their controls", limit), note)


def heading(result: Result) -> str:
    """Method, task and network, as far as they are known."""
    task, network = result.settings.get("task"), _network(result)
    said = result.method[:1].upper() + result.method[1:]
    said += f": {task}" if isinstance(task, str) else ""
    return said + (f" in {network}" if network else "")


def facts(result: Result) -> list[Fact]:
    """The numbers that stand next to the verdict."""
    found: list[Fact] = []
    if result.findings:
        first = result.findings[0]
        i = first.interval
        ends = f"{words.number(i.low)} to {words.number(i.high)}, " if i else ""
        effect = Fact(
            "Strongest claim" if len(result.findings) > 1 else "The claim",
            f"{words.number(first.estimate)} {first.unit}",
            f"{ends}{first.n} {first.split}",
        )
        found.append(effect)
        if c := first.control:
            found.append(Fact("Its controls", words.number(c.mean), f"{c.n} drawn, {words.p_value(c.p_value)}"))
    attributes = result.table.attrs
    if "illusion" in attributes:
        found.append(Fact("Illusion check", str(attributes["illusion"]), "is it read where it works?"))
    if "dissociation" in attributes:
        p = attributes.get("interaction_p")
        found.append(Fact("Dissociation", str(attributes["dissociation"]), words.p_value(p)))
    if "metric" in attributes:
        found.append(Fact("Read off", str(attributes["metric"]), str(attributes.get("unit", ""))))
    return found


def _network(result: Result) -> str:
    named = result.table.attrs.get("network") or next((f.provenance.model for f in result.findings), "")
    return str(named)


def _flat(settings: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        full = f"{name}.{key}" if name else str(key)
        out |= _flat(value, full) if isinstance(value, Mapping) and value else {full: value}
    return out


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
