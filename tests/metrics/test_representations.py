"""Reconstruction, similarity and recovery against closed forms and slow sums."""

import inspect

import pytest
import torch

from openwork.errors import BadInput
from openwork.metrics import cka, cosine, faithfulness, recovery, variance_explained, variance_unexplained


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_constant_mean_explains_nothing_and_a_wrong_bias_costs():
    x = normal(500, 64) + 3
    mean = x.mean(0).expand_as(x)
    assert variance_unexplained(x, mean).item() == pytest.approx(1, abs=1e-5)
    assert variance_explained(x, x).item() == 1
    biased = x + 2
    expected = 64 * 4 / ((x.square().sum(-1).mean() - x.mean(0).square().sum()).item())
    assert variance_unexplained(x, biased).item() == pytest.approx(expected, rel=1e-4)


def test_unexplained_variance_matches_its_formula_over_any_leading_axes():
    x, guess = normal(4, 6, 5).double(), normal(4, 6, 5, seed=1).double()
    flat_x, flat_guess = x.reshape(-1, 5), guess.reshape(-1, 5)
    top = sum(float((a - b).square().sum()) for a, b in zip(flat_x, flat_guess, strict=True)) / 24
    bottom = sum(float(a.square().sum()) for a in flat_x) / 24 - float((flat_x.sum(0) / 24).square().sum())
    assert variance_unexplained(x, guess).item() == pytest.approx(top / bottom)


def test_a_large_mean_does_not_eat_the_variance():
    x = normal(200, 8) * 0.01 + 1000
    assert variance_unexplained(x, x.mean(0).expand_as(x)).item() == pytest.approx(1, abs=1e-2)


def test_cosine():
    a = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    b = torch.tensor([[0.0, 2.0], [-2.0, -2.0]])
    assert torch.allclose(cosine(a, b), torch.tensor([0.0, -1.0]))


def test_cka_is_blind_to_rotation_and_scale():
    x = normal(40, 6) + 5
    rotation, _ = torch.linalg.qr(normal(6, 6, seed=1))
    for debiased in (True, False):
        assert cka(x, 7 * x @ rotation, debiased=debiased).item() == pytest.approx(1, abs=1e-6)


def test_plain_cka_matches_the_feature_space_form():
    x, y = normal(30, 5).double(), (normal(30, 5) @ normal(5, 7, seed=2) + normal(30, 7, seed=3)).double()
    a, b = x - x.mean(0), y - y.mean(0)
    expected = (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert cka(x, y, debiased=False).item() == pytest.approx(expected.item())


def test_debiased_cka_matches_the_u_statistic_and_ignores_unrelated_data():
    x, y = normal(8, 3).double() + 2, normal(8, 4, seed=1).double()

    def u_centred(samples):
        k, n = samples @ samples.T, 8
        k.fill_diagonal_(0)
        k = k - k.sum(0) / (n - 2) - (k.sum(1) / (n - 2))[:, None] + k.sum() / ((n - 1) * (n - 2))
        return k.fill_diagonal_(0)

    a, b = u_centred(x), u_centred(y)
    expected = (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()
    assert cka(x, y).item() == pytest.approx(expected.item())

    wide_x, wide_y = normal(50, 500), normal(50, 500, seed=1)
    assert cka(wide_x, wide_y, debiased=False) > 0.8
    assert cka(wide_x, wide_y).abs() < 0.1


def test_recovery_averages_to_faithfulness():
    empty, full, circuit = normal(20), normal(20, seed=1) + 3, normal(20, seed=2) + 2
    expected = (circuit.mean() - empty.mean()) / (full.mean() - empty.mean())
    assert faithfulness(circuit, empty, full).item() == pytest.approx(expected.item(), rel=1e-5)
    assert recovery(circuit, empty, full).shape == (20,)
    assert faithfulness(full, empty, full).item() == pytest.approx(1)
    assert faithfulness(empty, empty, full).item() == 0


@pytest.mark.parametrize(
    ("metric", "arguments", "says"),
    [
        (variance_unexplained, (torch.ones(3, 2), torch.zeros(3, 2)), "variance 0"),
        (variance_unexplained, (torch.ones(3, 2), torch.zeros(2, 2)), "one shape"),
        (variance_unexplained, (normal(3, 2), torch.full((3, 2), torch.inf)), "reconstruction"),
        (cosine, (torch.zeros(1, 3), torch.ones(1, 3)), "zero vector"),
        (cka, (normal(3, 2), normal(3, 2)), "4 or more"),
        (cka, (torch.ones(5, 2), normal(5, 2)), "repeated 5 times"),
        (recovery, (normal(3), torch.ones(3), torch.ones(3)), "nothing was lost"),
        (recovery, (normal(3), normal(4), normal(3)), "one shape"),
        (recovery, (torch.ones(0), torch.ones(0), torch.ones(0)), "at least one"),
        (faithfulness, (torch.full((3,), torch.nan), torch.zeros(3), torch.ones(3)), "value"),
    ],
)
def test_bad_input_says_what_came(metric, arguments, says):
    with pytest.raises(BadInput, match=says):
        inspect.unwrap(metric)(*arguments)
