"""Gradients through silent units: the rule of Lucid, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from openwork.vision.synthesis.redirected import RedirectedRelu


def slope(function, x, loss=lambda y: -y.sum()):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(loss(function(x)), x)[0]


@pytest.mark.parametrize(
    "relu", [F.relu, torch.relu, nn.ReLU(), lambda x: x.relu(), lambda x: x.clamp(min=0), lambda x: x.clamp_min(0)]
)
def test_a_row_that_is_silent_gets_the_gradient_that_came(relu):
    x = torch.tensor([[-1.0, -2.0], [1.0, -2.0]])
    with RedirectedRelu():
        found = slope(relu, x)
    assert found.tolist() == [[-1.0, -1.0], [-1.0, 0.0]]


def test_gradients_that_would_push_lower_are_dropped():
    with RedirectedRelu():
        found = slope(F.relu, torch.tensor([[-1.0, -2.0]]), lambda y: (y * torch.tensor([1.0, -1.0])).sum())
    assert found.tolist() == [[0.0, -1.0]]


def test_what_is_computed_stays_the_same_bit_for_bit():
    x = torch.randn(4, 5, requires_grad=True)
    with RedirectedRelu():
        assert torch.equal(F.relu(x), F.relu(x.detach()))
        assert torch.equal(F.relu6(9 * x), F.relu6(9 * x.detach()))


@pytest.mark.parametrize("relu", [nn.ReLU(inplace=True), torch.relu_, lambda x: F.relu(x, inplace=True)])
def test_a_relu_that_writes_into_its_input_still_does(relu):
    x = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    with RedirectedRelu():
        value = x * 1
        relu(value)
        (grad,) = torch.autograd.grad(-value.sum(), x)
    assert value.tolist() == [[0.0, 0.0]]
    assert grad.tolist() == [[-1.0, -1.0]]


def test_relu6_is_silent_above_six_too():
    with RedirectedRelu():
        found = slope(F.relu6, torch.tensor([[7.0, 1.0], [7.0, -1.0]]))
    assert found.tolist() == [[0.0, -1.0], [-1.0, -1.0]]


def test_clamps_with_two_ends_are_no_relus():
    with RedirectedRelu():
        assert slope(lambda x: x.clamp(0, 1), torch.tensor([[-1.0]])).tolist() == [[0.0]]


def test_it_is_gone_when_the_context_exits():
    x = torch.tensor([[-1.0]])
    with RedirectedRelu():
        pass
    assert slope(F.relu, x).tolist() == [[0.0]]


def test_it_is_gone_after_an_exception_too():
    x = torch.tensor([[-1.0]])

    def fails(value):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), RedirectedRelu():
        slope(fails, x)
    assert slope(F.relu, x).tolist() == [[0.0]]
