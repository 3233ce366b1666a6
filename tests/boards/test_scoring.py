"""What a method says, held against what is true."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from openwork.boards.scoring import Answer, scored
from openwork.finding import Verdict

SCORES = {"a": 3.0, "b": 2.0, "c": 2.0, "d": 0.0}


def test_auroc_is_the_share_of_pairs_in_the_right_order_with_ties_at_half() -> None:
    rng = np.random.default_rng(0)
    scores = {str(i): float(value) for i, value in enumerate(rng.integers(0, 6, 20))}
    true = {str(i) for i in rng.choice(20, 7, replace=False)}
    pairs = list(itertools.product(true, scores.keys() - true))
    right = sum((scores[t] > scores[f]) + 0.5 * (scores[t] == scores[f]) for t, f in pairs)
    assert scored(Answer(scores), true).auroc == pytest.approx(right / len(pairs))


def test_a_constant_score_is_chance() -> None:
    assert scored(Answer(dict.fromkeys("abcd", 1.0)), {"a"}).auroc == 0.5


@pytest.mark.parametrize(("true", "rank"), [({"a"}, 1), ({"b"}, 2.5), ({"c", "d"}, 2.5), ({"d"}, 4)])
def test_rank_is_that_of_the_first_true_item_with_ties_in_the_middle(true: set[str], rank: float) -> None:
    assert scored(Answer(SCORES), true).rank == rank


@pytest.mark.parametrize("true", [set(), {*SCORES}])
def test_items_of_one_kind_have_no_auroc(true: set[str]) -> None:
    assert scored(Answer(SCORES), true).auroc is None


def test_only_supported_claims_count_for_precision_and_recall() -> None:
    verdicts = {"a": Verdict.SUPPORTED, "b": Verdict.REJECTED, "d": Verdict.SUPPORTED, "c": Verdict.INCONCLUSIVE}
    found = scored(Answer(SCORES, verdicts), {"a", "b", "c"})
    assert (found.claims, found.supported, found.false) == (4, 2, 1)
    assert found.precision == 0.5
    assert found.recall == pytest.approx(1 / 3)


def test_what_a_method_cannot_name_is_not_held_against_it() -> None:
    found = scored(Answer(SCORES, {"a": Verdict.SUPPORTED}), {"a", "elsewhere"})
    assert (found.true, found.recall) == (1, 1.0)


def test_without_claims_there_is_neither_precision_nor_a_false_one() -> None:
    found = scored(Answer(SCORES), {"a"})
    assert (found.precision, found.false, found.recall) == (None, 0, 0.0)
