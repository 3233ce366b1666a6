"""What a paired design could have seen."""

from __future__ import annotations

import math

from scipy import stats

from openwork.errors import BadInput


def minimum_detectable_effect(
    sd: float, n: int, alpha: float = 0.01, power: float = 0.8, two_sided: bool = False
) -> float:
    """Smallest true mean of n paired differences that a test at `alpha` finds with chance `power`.

    The formula is (t₁₋α,ₙ₋₁ + t_power,ₙ₋₁) · sd / √n, with α/2 in place of α when two-sided: within a few per cent of
    the solution with the noncentral t from about ten examples on.

    Args:
        sd: standard deviation of the differences.
        n: number of examples.
        alpha: level of the test.
        power: chance of finding it.
        two_sided: whether the test is.

    Raises:
        BadInput: fewer than two examples, a negative sd, or a probability outside its range.

    Units:
        those of sd.

    Source:
        Bloom 1995, Minimum detectable effects.
    """
    if n < 2 or not (math.isfinite(sd) and sd >= 0):
        raise BadInput(f"expected n >= 2 and a finite sd >= 0, got n {n} and sd {sd}")
    if not 0 < alpha < 0.5 or not 0.5 <= power < 1:
        raise BadInput(f"expected 0 < alpha < 0.5 <= power < 1, got alpha {alpha} and power {power}")
    tail = alpha / 2 if two_sided else alpha
    return float((stats.t.ppf(1 - tail, n - 1) + stats.t.ppf(power, n - 1)) * sd / math.sqrt(n))


def examples_needed(sd: float, effect: float, alpha: float = 0.01, power: float = 0.8, two_sided: bool = False) -> int:
    """Smallest n at which `minimum_detectable_effect` is at most `effect`.

    Args:
        sd: standard deviation of the differences.
        effect: to be found, above 0.
        alpha: level of the test.
        power: chance of finding it.
        two_sided: whether the test is.

    Raises:
        BadInput: as `minimum_detectable_effect`, or an effect that is not above 0.

    Units:
        examples.
    """
    if not (math.isfinite(effect) and effect > 0):
        raise BadInput(f"effect: expected a finite number above 0, got {effect}")

    def enough(n: int) -> bool:
        return minimum_detectable_effect(sd, n, alpha, power, two_sided) <= effect

    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(2, high)
