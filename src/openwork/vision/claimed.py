"""Claims about several units, judged together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from openwork.evidence import benjamini_hochberg, judge
from openwork.finding import Criteria, Finding
from openwork.results.claims import Claims

RESAMPLES = 1999


@dataclass(frozen=True, eq=False)
class Candidate:
    """A claim and what speaks for and against it on held-out examples.

    Args:
        text: the claim in words.
        effects: one an example.
        controls: the mean effect of each matched control on the same examples.
        kind: what the controls are.
        rivals: effects of rival explanations on the same examples.
    """

    text: str
    effects: Float[np.ndarray, " example"]
    controls: Float[np.ndarray, " control"]
    kind: str
    rivals: Mapping[str, Float[np.ndarray, " example"]] = field(default_factory=dict)


def claimed(
    claims: Claims, criteria: Criteria, candidates: Sequence[Candidate], intervened: bool = True
) -> tuple[Finding, ...]:
    """Judge candidates together: p-values are adjusted for all of them.

    Args:
        claims: about which network and images.
        criteria: what each must meet.
        candidates: chosen on the find split, measured on the held-out one.
        intervened: whether the network was edited; what was only looked at is never supported.

    Returns:
        their findings, supported ones first and larger effects before smaller ones.

    Source:
        Benjamini and Hochberg 1995, of the intersection-union p-values of the candidates.
    """
    if not candidates:
        return ()
    p = [
        judge(
            c.effects, criteria, "held-out", c.controls, c.kind, c.rivals, intervened, resamples=RESAMPLES,
            seed=claims.seed,
        ).measurement.joint_p
        for c in candidates
    ]  # fmt: skip
    findings = [
        claims.claim(c.text, c.effects, criteria, "held-out", c.controls, c.kind, c.rivals, float(q), intervened)
        for c, q in zip(candidates, benjamini_hochberg(p), strict=True)
    ]
    return tuple(sorted(findings, key=lambda f: (f.verdict != "supported", -f.estimate)))
