"""Open a tiny random model of every architecture and hold what openwork says of it against plain torch.

`python bench/architectures.py [--types NAME ...] [--json FILE] [--markdown FILE]`

One line a type: certified, inert and refused sites with the reasons, whether every block and every head is certified,
and how many comparisons with plain hooks agreed. Goals stand beside the figures at the end. The exit code is 1 if
anything is silently wrong, a site that openwork offers and that plain torch contradicts, or if a type does not open.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import transformers

import openwork as ow
from architectures_check import Judge
from architectures_goals import MAINSTREAM, expected_sites, has_blocks, has_heads, missing_sites
from tiny_models import CannotBuild, Tiny, build, causal_types, further_types, plain_types


@dataclass
class Record:
    """What became of one type."""

    name: str
    group: str
    outcome: str = "opened"
    reason: str = ""
    certified: int = 0
    inert: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    blocks: bool = False
    heads: bool = False
    causal: bool = False
    exact: bool = False
    exact_kept: bool = False
    agreed: int = 0
    unverified: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    expected: int = 0
    missing: list[str] = field(default_factory=list)
    seconds: float = 0.0


def examine(name: str, group: str, seed: int, writes: int) -> Record:
    """Build, open and check one type."""
    record = Record(name, group)
    start = time.perf_counter()
    try:
        tiny = build(name)
    except CannotBuild as error:
        record.outcome, record.reason = "not built", str(error)
        return record
    if name in MAINSTREAM:
        record.expected, record.missing = len(expected_sites(name)), expected_sites(name)
    try:
        _open_and_judge(record, tiny, seed, writes)
    except Exception as error:
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__)]
        own = [p for p in places if (Path(ow.__file__).parent / "network" / p.split(":")[0]).exists()]
        record.outcome = "not opened" if record.outcome == "opened" and not record.certified else "not checked"
        message = " ".join(str(error).split())[:200]
        record.reason = f"{type(error).__name__}: {message} ({' < '.join(reversed(own[-2:] or places[-2:]))})"
    record.seconds = time.perf_counter() - start
    return record


def _open_and_judge(record: Record, tiny: Tiny, seed: int, writes: int) -> None:
    with torch.no_grad():
        tiny.module(**tiny.example)  # some models install hooks of their own at their first call
    net = ow.open(tiny.module, example=tiny.example, name=record.name)
    record.inert = sum(site.status == "inert" for site in net.sites.values())
    record.certified = len(net.sites) - record.inert
    record.refused = dict(Counter(_general(reason) for reason in net.refused.values()))
    record.blocks, record.heads, record.causal = has_blocks(net), has_heads(net), net.causal
    record.missing = missing_sites(record.name, net.sites) if record.expected else []
    findings = Judge(tiny, net, seed, writes).judge()
    record.exact, record.exact_kept, record.agreed = findings.exact, findings.exact_kept, findings.agreed
    record.unverified, record.wrong = dict(findings.unverified), findings.wrong
    record.failed, record.notes = findings.failed, findings.notes


def _general(reason: str) -> str:
    return re.sub(r"\d\.\de[+-]\d+|\([\d, ]+\)", "…", reason)


def line(record: Record) -> str:
    """One type as printed."""
    if record.outcome != "opened":
        return f"{record.name:34} {record.outcome}: {record.reason}"
    marks = " ".join(
        word if held else "-" * len(word)
        for word, held in (
            ("blocks", record.blocks),
            ("heads", record.heads),
            ("causal", record.causal),
            ("exact", record.exact),
        )
    )
    counts = f"{record.certified:4} certified {record.inert:3} inert {sum(record.refused.values()):3} refused"
    text = (
        f"{record.name:34} {counts}  {marks}  "
        f"{record.agreed:4} agree {sum(record.unverified.values()):3} unverified  {record.seconds:5.1f} s"
    )
    extra = [f"refused {n} × {reason}" for reason, n in record.refused.items()]
    extra += [f"grammar site missing: {site}" for site in record.missing[:6]]
    extra += [f"note: {note}" for note in record.notes]
    extra += [f"write failed: {failed}" for failed in record.failed]
    extra += [f"SILENTLY WRONG {wrong}" for wrong in record.wrong[:8]]
    extra += [f"SILENTLY WRONG … {len(record.wrong) - 8} more"] if len(record.wrong) > 8 else []
    return "\n".join([text, *(f"      {e}" for e in extra)])


def summary(records: list[Record]) -> list[tuple[str, str, str, bool]]:
    """(what, figure, goal, whether it is met) for each goal."""
    built = [r for r in records if r.outcome != "not built"]
    groups = Counter(r.group for r in built)
    blocks = sum(r.blocks for r in built)
    heads = sum(r.heads for r in built if r.group == "causal")
    expected, missing = sum(r.expected for r in built), sum(len(r.missing) for r in built)
    covered = (expected - missing) / max(1, expected)
    opened = [r for r in built if r.outcome == "opened"]
    wrong = [r for r in records if r.wrong]
    exact = sum(r.exact for r in opened)
    share = blocks / max(1, len(built))
    return [
        (
            "causal types built",
            f"{groups['causal']} of {sum(r.group == 'causal' for r in records)}",
            "≥ 165",
            groups["causal"] >= 165,
        ),
        ("further types built", str(groups["further"]), "≥ 40", groups["further"] >= 40),
        ("plain families built", str(groups["plain"]), "≥ 10", groups["plain"] >= 10),
        ("opened and checked", f"{len(opened)} of {len(built)}", "all", len(opened) == len(built)),
        ("block-level certificates", f"{blocks} of {len(built)} ({share:.1%})", "≥ 90 %", share >= 0.9),
        ("head-level certificates, causal", str(heads), "≥ 110", heads >= 110),
        (
            "grammar sites, mainstream types",
            f"{expected - missing} of {expected} ({covered:.1%})",
            "≥ 95 %",
            covered >= 0.95,
        ),
        ("unedited output bit for bit", f"{exact} of {len(opened)}", "all", exact == len(opened)),
        ("the same with every site kept", f"{sum(r.exact_kept for r in opened)} of {len(opened)}", "", True),
        (
            "types with a write that fails",
            str(sum(bool(r.failed) for r in records)),
            "0",
            not any(r.failed for r in records),
        ),
        ("comparisons that agree", str(sum(r.agreed for r in records)), "", True),
        ("sites without a plain counterpart", str(sum(sum(r.unverified.values()) for r in records)), "", True),
        ("types silently wrong", str(len(wrong)), "0", not wrong),
    ]


def markdown(records: list[Record]) -> str:
    """The figures and one row a type."""
    rows = ["| | figure | goal | |", "|---|---|---|---|"]
    rows += [
        f"| {what} | {figure} | {goal} | {'met' if met else 'missed'} |" for what, figure, goal, met in summary(records)
    ]
    rows += ["", "| type | certified | inert | refused | blocks | heads | causal | exact | agree | remarks |"]
    rows += ["|---|---|---|---|---|---|---|---|---|---|"]
    for r in records:
        remarks = [f"{r.outcome}: {r.reason}"] if r.outcome != "opened" else []
        remarks += (
            [f"{n} × {reason}" for reason, n in r.refused.items()] + r.notes + [f"**wrong** {w}" for w in r.wrong]
        )
        marks = " | ".join("✓" if held else "" for held in (r.blocks, r.heads, r.causal, r.exact))
        cells = f"{r.certified} | {r.inert} | {sum(r.refused.values())} | {marks} | {r.agreed}"
        rows.append(f"| {r.name} | {cells} | {'; '.join(remarks).replace('|', '/')} |")
    return "\n".join(rows) + "\n"


def main() -> int:
    """Examine the types asked for and print lines and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="*", help="types to examine (default: all)")
    parser.add_argument("--json", type=Path, help="write every record to this file")
    parser.add_argument("--markdown", type=Path, help="write a table to this file")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of sites and of the values written")
    parser.add_argument("--writes", type=int, default=12, help="kinds of sites at which each model is written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    groups = {"causal": causal_types(), "further": further_types(), "plain": plain_types()}
    everything = {name: group for group, names in groups.items() for name in names}
    unknown = [name for name in options.types or () if name not in everything]
    if unknown:
        parser.error(f"unknown types: {', '.join(unknown)}")
    records = []
    for name in options.types or everything:
        records.append(examine(name, everything[name], options.seed, options.writes))
        print(line(records[-1]), flush=True)
    print()
    for what, figure, goal, met in summary(records):
        print(f"{what:36} {figure:24} {goal:8} {'' if met or options.types else 'MISSED'}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in records], indent=1))
    if options.markdown:
        options.markdown.write_text(markdown(records))
    return 1 if any(r.wrong or r.outcome in ("not opened", "not checked") for r in records) else 0


if __name__ == "__main__":
    sys.exit(main())
