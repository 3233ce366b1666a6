"""KL and cross-entropy against torch.distributions and the written-out sum."""

import inspect
import math

import pytest
import torch
from torch.distributions import Categorical
from torch.distributions import kl_divergence as oracle

from openwork.errors import BadInput
from openwork.metrics import cross_entropy, kl_divergence, token_cross_entropy


def pair(dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(3, 4, 50, generator=generator, dtype=torch.float64)
    other = reference + scale * torch.randn(3, 4, 50, generator=generator, dtype=torch.float64)
    return reference.to(dtype), other.to(dtype)


def test_kl_matches_torch_distributions_and_its_direction():
    reference, other = pair()
    expected = oracle(Categorical(logits=reference), Categorical(logits=other))
    assert torch.allclose(kl_divergence(reference, other), expected, atol=1e-6)
    assert not torch.allclose(kl_divergence(other, reference), expected, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_nothing_but_the_rounding_of_the_logits(dtype):
    reference, other = pair(dtype, scale=0.05)
    exact = kl_divergence(reference.double(), other.double())
    assert torch.allclose(kl_divergence(reference, other).double(), exact, rtol=1e-3)


def test_kl_with_excluded_ids():
    full, partial = torch.zeros(1, 3), torch.tensor([[0.0, 0.0, -torch.inf]])
    assert kl_divergence(partial, full).item() == pytest.approx(math.log(1.5))
    assert kl_divergence(full, partial).item() == math.inf
    assert kl_divergence(partial, partial).item() == 0
    logits = full.clone().requires_grad_()
    kl_divergence(partial, logits).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_cross_entropy_is_minus_log_probability_over_counted_tokens():
    logits, _ = pair()
    targets = torch.arange(12).reshape(3, 4)
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    targets[~mask] = -100
    losses = token_cross_entropy(logits, targets, mask)
    for i in range(3):
        by_hand = []
        for j in range(4):
            if mask[i, j]:
                p = logits[i, j].double().exp() / logits[i, j].double().exp().sum()
                by_hand.append(-math.log(p[targets[i, j]]))
                assert losses[i, j].item() == pytest.approx(by_hand[-1], rel=1e-5)
            else:
                assert losses[i, j].item() == 0
        assert cross_entropy(logits, targets, mask)[i].item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


def test_gradient_reaches_only_counted_tokens():
    logits = pair()[0].requires_grad_()
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[:, 2] = True
    cross_entropy(logits, torch.zeros(3, 4, dtype=torch.long), mask).sum().backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(-1) > 0).equal(mask)


def test_uniform_loss_is_log_vocab():
    assert cross_entropy(torch.zeros(1, 5, 8), torch.zeros(1, 5, dtype=torch.long)).item() == pytest.approx(math.log(8))


@pytest.mark.parametrize(
    ("metric", "arguments", "says"),
    [
        (kl_divergence, (torch.zeros(1, 3), torch.zeros(1, 4)), "one shape"),
        (kl_divergence, (torch.zeros(1, 3), torch.full((1, 3), torch.nan)), "NaN"),
        (token_cross_entropy, (torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long)), "targets and mask of shape"),
        (cross_entropy, (torch.zeros(1, 2, 3), torch.full((1, 2), -100)), "mask out padding"),
        (cross_entropy, (torch.zeros(1, 2, 3), torch.zeros(1, 2).long(), torch.zeros(1, 2).bool()), "none; drop it"),
    ],
)
def test_bad_input_says_what_came(metric, arguments, says):
    with pytest.raises(BadInput, match=says):
        inspect.unwrap(metric)(*arguments)
