"""Answer metrics against sums written out from their definitions."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.errors import BadInput
from openwork.metrics import PAD, accuracy, entropy, log_probability, logit_difference, probability, rank


def test_logit_difference_is_the_log_odds_of_the_two_answers():
    logits = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.0, 4.0]])
    answer, wrong = torch.tensor([1, 2]), torch.tensor([0, 1])
    assert logit_difference(logits, answer, wrong).tolist() == [2.0, 4.0]
    odds = probability(logits, answer).log() - probability(logits, wrong).log()
    assert torch.allclose(odds, torch.tensor([2.0, 4.0]))


def test_sets_of_unequal_size():
    logits = torch.tensor([[1.0, 3.0, -2.0, 0.0], [0.5, 0.0, 4.0, 2.0]])
    answer, wrong = torch.tensor([1, 2]), torch.tensor([[0, 2, 3], [3, PAD, PAD]])
    assert torch.allclose(logit_difference(logits, answer, wrong), torch.tensor([3.0 - (1 - 2 + 0) / 3, 2.0]))
    assert logit_difference(logits, answer, wrong, reduce="max").tolist() == [2.0, 2.0]
    whole = logits.softmax(-1)
    assert torch.allclose(probability(logits, wrong), torch.stack((whole[0, [0, 2, 3]].sum(), whole[1, 3])))
    assert torch.allclose(log_probability(logits, wrong), probability(logits, wrong).log())


def test_rank_and_accuracy_do_not_reward_ties():
    flat = torch.zeros(1, 5)
    first = torch.tensor([0])
    assert rank(flat, first).item() == 2.0
    assert accuracy(flat, first).item() == 0.0
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    assert [rank(logits, torch.tensor([i])).item() for i in range(3)] == [0.0, 2.0, 1.0]
    assert accuracy(logits, torch.tensor([2]), torch.tensor([1])).item() == 1.0
    assert accuracy(logits, torch.tensor([2]), torch.tensor([[1, 0]])).item() == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=2, max_size=8))
def test_entropy_and_log_probability_match_the_sum(row):
    logits = torch.tensor([row], dtype=torch.float64)
    top = max(row)
    weights = [math.exp(v - top) for v in row]
    p = [w / sum(weights) for w in weights]
    assert entropy(logits).item() == pytest.approx(-sum(q * math.log(q) for q in p if q), abs=1e-9)
    assert log_probability(logits, torch.tensor([0])).item() == pytest.approx(math.log(p[0]), abs=1e-9)


def test_masked_ids_have_no_entropy_and_finite_gradients():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
    value = entropy(logits)
    assert value.item() == pytest.approx(math.log(2))
    value.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert log_probability(logits, torch.tensor([2])).item() == -math.inf


def test_position_axes_pass_through_and_half_precision_is_widened():
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    answer = torch.arange(6).reshape(2, 3)
    assert probability(logits, answer).shape == (2, 3)
    assert probability(logits, answer).dtype == torch.float32
    assert torch.allclose(probability(logits, answer), probability(logits.float(), answer))


@pytest.mark.parametrize(
    ("metric", "arguments", "says"),
    [
        (logit_difference, (torch.zeros(2, 4), torch.tensor([0, 1, 2]), torch.tensor([1, 1])), "expected ids of shape"),
        (logit_difference, (torch.zeros(2, 4), torch.tensor([0, 4]), torch.tensor([1, 1])), "0..3"),
        (logit_difference, (torch.zeros(2, 4), torch.tensor([0, PAD]), torch.tensor([1, 1])), "only padding"),
        (probability, (torch.zeros(1, 4), torch.tensor([[1, 1]])), "distinct"),
        (logit_difference, (torch.full((1, 4), torch.nan), torch.tensor([0]), torch.tensor([1])), "NaN"),
        (accuracy, (torch.full((1, 4), torch.nan), torch.tensor([0])), "NaN"),
        (entropy, (torch.full((1, 4), -torch.inf),), "row of only -inf"),
        (rank, (torch.zeros(1, 4), torch.tensor([[1, 2]])), "one id an example"),
        (entropy, (torch.zeros(2, 0),), "vocabulary"),
    ],
)
def test_bad_input_says_what_came(metric, arguments, says):
    # unwrapped: users run without the annotation checks that pytest installs, and must meet our message
    with pytest.raises(BadInput, match=says):
        inspect.unwrap(metric)(*arguments)
