from __future__ import annotations

import numpy as np
import pytest

from openwork.faithfulness import Component
from openwork.studies.roles import DRAWS, Signature, bracket_targets, name, repeated_targets, score

SPAN = 6
HEADS = tuple(Component(0, "head", i) for i in range(4))


def patterns() -> np.ndarray:
    """Heads that look at the previous token, at the induction target, everywhere, and at the first token."""
    length = 1 + 2 * SPAN
    out = np.zeros((2, 4, length, length))
    for q in range(length):
        out[:, 0, q, max(q - 1, 0)] = 1
        out[:, 1, q, q - SPAN + 1 if q > SPAN else 0] = 1
        out[:, 2, q, : q + 1] = 1 / (q + 1)
        out[:, 3, q, 0] = 1
    return out


def test_scores_of_known_patterns() -> None:
    targets = repeated_targets(2, 1, SPAN)
    rng = np.random.default_rng(0)
    assert score(patterns(), targets["previous token"], rng)[0][[0, 1, 3]] == pytest.approx([1, 0, 0])
    assert score(patterns(), targets["induction"], rng)[0][[0, 1, 3]] == pytest.approx([0, 1, 0])
    assert score(patterns(), targets["first token"], rng)[0][3] == 1
    assert score(patterns(), targets["duplicate token"], rng)[0][1] == 0


def test_targets_lie_in_the_second_copy_and_point_to_the_right_places() -> None:
    ids = [99, *range(SPAN), *range(SPAN)]
    for _, q, k in repeated_targets(1, 1, SPAN)["induction"]:
        assert ids[k - 1] == ids[q]
        assert k - 1 < SPAN + 1 <= q
    for _, q, k in repeated_targets(1, 1, SPAN)["duplicate token"]:
        assert ids[k] == ids[q]


def test_null_of_an_even_pattern_is_its_score() -> None:
    own, null = score(patterns(), repeated_targets(2, 1, SPAN)["previous token"], np.random.default_rng(0))
    assert null.shape == (4, DRAWS)
    assert null[2] == pytest.approx(np.full(DRAWS, own[2]))
    assert own[0] > null[0].max()


def test_brackets_match_over_others_and_across_tokens() -> None:
    rows = [["f", "(", "a", "[", "b", "]", " )"], ["x", ")", "(", "]", ")"], ["((", "a", ")", ")"]]
    assert bracket_targets(rows) == [(0, 5, 3), (0, 6, 1), (2, 2, 0), (2, 3, 0)]


def signature(scores: list[list[float]]) -> Signature:
    names = ("previous token", "induction", "copying")
    nulls = np.tile(np.linspace(0, 0.2, DRAWS), (len(scores), 3, 1))
    return Signature(HEADS[: len(scores)], names, np.array(scores), nulls)


def test_names_are_earned() -> None:
    roles, named = name(signature([[0.9, 0.3, 0], [0.1, 0.8, 2.0], [0.24, 0.1, 3.0], [0.1, 0.9, 0.1]]), HEADS[:1], 0.25)
    assert [r.role for r in roles] == ["previous token", "induction, copying", None, "induction"]
    assert named == {
        str(HEADS[0]): "previous token", str(HEADS[1]): "induction, copying", str(HEADS[3]): "induction",
    }  # fmt: skip
    assert [r.in_circuit for r in roles] == [True, False, False, False]


def test_a_score_that_shuffled_keys_reach_earns_no_name() -> None:
    made = signature([[0.3, 0, 0]])
    high = Signature(made.heads, made.names, made.scores, made.nulls + 0.2)
    assert name(high, (), 0.25)[0][0].role is None
    assert name(made, (), 0.25)[0][0].role == "previous token"


def test_mlps_have_no_attention_signature() -> None:
    table = signature([[0.9, 0.3, 0.1]]).of([HEADS[0], Component(0, "mlp")])
    assert table.tolist() == [[0.9, 0.3, 0.1], [0, 0, 0]]
