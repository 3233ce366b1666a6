"""Chosen on the find split, claimed on the held-out one: what a method does with its candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from openwork.evidence import benjamini_hochberg, judge
from openwork.finding import Criteria, Finding
from openwork.results.claims import Claims

RESAMPLES = 1999


@dataclass(frozen=True, eq=False)
class Candidate:
    """A claim before it is judged.

    Args:
        text: the claim in words.
        effects: of the intervention on each held-out example that it reaches, larger for more of what is claimed.
        controls: the mean effect of each matched control on the same examples.
        kind: what its controls are matched in, where that differs from those of other candidates.
        rivals: effects of rival explanations on the same examples.
        also: the p-value of another test that the claim must pass as well.
        limits: the least and the greatest effect on one example, where they are known.
    """

    text: str
    effects: Float[np.ndarray, " example"]
    controls: Float[np.ndarray, " control"]
    kind: str = ""
    rivals: Mapping[str, Float[np.ndarray, " example"]] = field(default_factory=dict)
    also: float = 0.0
    limits: tuple[float, float] | None = None


def judged(
    claims: Claims,
    criteria: Criteria,
    candidates: Sequence[Candidate],
    control_kind: str = "",
    intervened: bool = True,
) -> list[Finding]:
    """Judge candidates together: p-values are adjusted for all of them.

    Args:
        claims: about which network and task.
        criteria: what each must meet.
        candidates: chosen on the find split, measured on the held-out one.
        control_kind: what the controls are matched in, where a candidate does not say.
        intervened: whether the network was edited; what was only looked at is never supported.

    Returns:
        the finding of each, in their order.

    Source:
        Benjamini and Hochberg 1995, of the intersection-union p-values of the candidates.
    """
    if not candidates:
        return []
    kinds = [c.kind or control_kind for c in candidates]
    p = []
    for one, kind in zip(candidates, kinds, strict=True):
        found = judge(
            one.effects, criteria, "held-out", one.controls, kind, one.rivals, intervened, limits=one.limits,
            resamples=RESAMPLES, seed=claims.seed,
        )  # fmt: skip
        p.append(max(found.measurement.joint_p, one.also))
    return [
        claims.claim(
            c.text, c.effects, criteria, "held-out", c.controls, kind, c.rivals, float(q), intervened, c.limits
        )
        for c, kind, q in zip(candidates, kinds, benjamini_hochberg(p), strict=True)
    ]


def claimed(
    claims: Claims,
    criteria: Criteria,
    candidates: Sequence[Candidate],
    control_kind: str = "",
    intervened: bool = True,
) -> tuple[Finding, ...]:
    """The findings of `judged`, supported ones first and larger effects before smaller ones."""
    return ranked(judged(claims, criteria, candidates, control_kind, intervened))


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Supported findings first, and larger effects before smaller ones."""
    return tuple(sorted(findings, key=lambda f: (f.verdict != "supported", -f.estimate)))


def held_out_table(texts: Sequence[str], effects: Any, controls: Any) -> dict[str, Any]:
    """Variables of a table for what was claimed: the effect on every held-out example and of every control."""
    return {
        "claimed_effect": (("claim", "held_out_example"), np.asarray(effects)),
        "control_effect": (("claim", "control"), np.asarray(controls)),
        "claimed": ("claim", np.asarray(list(texts), dtype=str)),
    }
