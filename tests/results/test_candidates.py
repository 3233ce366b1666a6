"""Candidates judged together: adjusted for their number, in order, and held to every test they must pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import openwork as ow
from openwork.results.candidates import Candidate, claimed, judged
from openwork.results.claims import Claims, Standard

SMALL, LARGE, NONE = "a small effect", "a large effect", "no effect"


@pytest.fixture(scope="module")
def claims() -> Claims:
    return Claims(ow.open(torch.nn.Linear(2, 1).eval(), name="line"), {"rows": 40}, {}, 0)


@pytest.fixture(scope="module")
def candidates() -> list[Candidate]:
    rng = np.random.default_rng(0)
    made = {SMALL: rng.normal(0.5, 0.1, 40), NONE: rng.normal(0, 0.1, 40), LARGE: rng.normal(2, 0.1, 40)}
    return [Candidate(text, effects, rng.normal(0, 0.02, 100)) for text, effects in made.items()]


def test_findings_come_in_the_order_of_their_candidates(claims: Claims, candidates: list[Candidate]) -> None:
    found = judged(claims, Standard().criteria(1.0, "nats"), candidates, "random ones")
    assert [finding.claim for finding in found] == [SMALL, NONE, LARGE]
    assert [finding.verdict for finding in found] == ["supported", "rejected", "supported"]


def test_the_supported_and_the_larger_stand_first(claims: Claims, candidates: list[Candidate]) -> None:
    found = claimed(claims, Standard().criteria(1.0, "nats"), candidates, "random ones")
    assert [finding.claim for finding in found] == [LARGE, SMALL, NONE]


def test_p_values_are_adjusted_for_all_that_were_tested(claims: Claims, candidates: list[Candidate]) -> None:
    criteria = Standard().criteria(1.0, "nats")
    spread = candidates[1].effects - candidates[1].effects.mean()
    # two standard errors above the criterion: p is near 0.03
    just = criteria.min_effect + spread + 2 * spread.std(ddof=1) / len(spread) ** 0.5
    near = replace(candidates[0], effects=just)
    (alone,) = judged(claims, criteria, [near], "random ones")
    together = judged(claims, criteria, [near, candidates[1], candidates[1]], "random ones")[0]
    assert alone.verdict == "supported"
    assert together.verdict == "inconclusive"


def test_another_test_that_fails_keeps_a_claim_from_support(claims: Claims, candidates: list[Candidate]) -> None:
    failed = replace(candidates[2], also=0.5)
    (found,) = judged(claims, Standard().criteria(1.0, "nats"), [failed], "random ones")
    assert found.verdict != "supported"
