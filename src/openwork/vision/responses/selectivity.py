"""What a tuning curve says: what is preferred, how selectively, how widely, with intervals over trials.

Source: Mazurek, Kager and Van Hooser 2014, Robust quantification of orientation selectivity and direction selectivity
(1 - circular variance, half-width); Ringach, Shapley and Hawken 2002.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Curves = Float[np.ndarray, "*any value"]
RESAMPLES = 499


@dataclass(frozen=True)
class Summary:
    """What a curve says of a unit; NaN where it does not say it.

    Args:
        preference: the value that is preferred, in the unit of the values.
        selectivity: 1 - circular variance, or for what is not circular 1 - mean / maximum: 0 flat, 1 for one value.
        half_width: half the width at half the height, in the unit of the values.
    """

    preference: Float[np.ndarray, "*any"]
    selectivity: Float[np.ndarray, "*any"]
    half_width: Float[np.ndarray, "*any"]


def raised(responses: Curves) -> Curves:
    """Responses above the least of each curve."""
    return responses - responses.min(-1, keepdims=True)


def summary(responses: Curves, values: Float[np.ndarray, " value"], period: float | None) -> Summary:
    """Preference, selectivity and half-width of curves, each above its own least response.

    Args:
        responses: mean responses.
        values: of the feature, increasing.
        period: of the feature, whose values then lie evenly in it; None if it is not circular.

    Source:
        Mazurek et al. 2014, equations 1 and 2 (vector sum); the peak of a parabola through the largest response and
        its neighbours where there is no circle.
    """
    curves = raised(np.asarray(responses, dtype=np.float64))
    if period is None:
        return Summary(*_straight(curves, values), half_widths(curves, values, None))
    total = curves.sum(-1)
    vector = (curves * np.exp(2j * np.pi * values / period)).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        selectivity = np.where(total > 0, np.abs(vector) / total, 0.0)
    preference = np.where(np.abs(vector) > 1e-9 * (total + 1e-300), np.angle(vector) * period / (2 * np.pi), np.nan)
    # a hair below 0 is 0, not the whole period
    preference = np.round(preference, 9) % period
    return Summary(np.asarray(preference), np.asarray(selectivity), half_widths(curves, values, period))


def gains(
    responses: Curves, at: Int[np.ndarray, "*some"], scale: Float[np.ndarray, "*some"]
) -> Float[np.ndarray, "*any"]:
    """How far each curve rises at one of its values above its mean, in units of a scale; 0 where that is 0.

    Args:
        responses: (..., value).
        at: which value, for each curve.
        scale: for each curve.
    """
    here = np.take_along_axis(responses, np.broadcast_to(at, responses.shape[:-1])[..., None], -1)[..., 0]
    rise = here - responses.mean(-1)
    return np.where(scale > 0, rise / np.where(scale > 0, scale, 1.0), 0.0)


def intervals(
    trials: Float[np.ndarray, "unit trial value"], values: np.ndarray, period: float | None, seed: int
) -> tuple[Summary, Summary, Summary]:
    """Of the mean curve of each unit: its summary, and the lower and upper ends of 95 % intervals over trials.

    The intervals are of the percentile bootstrap over trials; those of a circular preference lie around the estimate
    and may reach beyond the period.
    """
    rng = np.random.default_rng(seed)
    n = trials.shape[1]
    counts = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n
    found = summary(trials.mean(1), values, period)
    again = summary(np.einsum("rt,utv->urv", counts, trials), values, period)
    turned = again.preference - found.preference[:, None]
    if period is not None:
        turned = (turned + period / 2) % period - period / 2
    ends = []
    for q in (0.025, 0.975):
        preference = found.preference + _quantile(turned, q)
        ends.append(Summary(preference, _quantile(again.selectivity, q), _quantile(again.half_width, q)))
    return found, ends[0], ends[1]


def half_widths(curves: Curves, values: np.ndarray, period: float | None) -> Float[np.ndarray, "*any"]:
    """Half the distance between the crossings of half the height on both sides of the largest response.

    Where a curve that is not circular falls to half on one side only, the distance to that side; NaN where on none.
    """
    flat = curves.reshape(-1, curves.shape[-1])
    sides = np.stack([_reach(flat, values, period, step) for step in (-1, 1)])
    known = np.isfinite(sides)
    total = np.where(known, sides, 0.0).sum(0)
    out = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
    return out.reshape(curves.shape[:-1])


def _reach(
    curves: Float[np.ndarray, "curve value"], values: np.ndarray, period: float | None, step: int
) -> Float[np.ndarray, " curve"]:
    """From the largest response to half of it on one side, straight between values; NaN if it does not fall so far."""
    n = curves.shape[1]
    top = curves.argmax(1)
    steps = np.arange(n // 2 + 1 if period is not None else n)
    place = top[:, None] + step * steps
    if period is None:
        inside = (place >= 0) & (place < n)
        place = np.clip(place, 0, n - 1)
        distance = np.abs(values[place] - values[top][:, None])
    else:
        inside, distance = np.ones(place.shape, bool), np.broadcast_to(steps * period / n, place.shape)
        place = place % n
    heights = np.where(inside, np.take_along_axis(curves, place, 1), np.inf)
    half = heights[:, :1] / 2
    below = heights[:, 1:] <= half
    first = below.argmax(1)[:, None]
    before, after = (np.take_along_axis(heights, first + k, 1) for k in (0, 1))
    near, far = (np.take_along_axis(distance, first + k, 1) for k in (0, 1))
    reached = below.any(1, keepdims=True) & (half > 0)
    share = np.where(reached, (before - half) / np.where(reached, before - after, 1.0), 0.0)
    return np.where(reached, near + share * (far - near), np.nan)[:, 0]


def _straight(curves: Curves, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    largest = curves.max(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        selectivity = np.where(largest > 0, 1 - curves.mean(-1) / largest, 0.0)
    top = curves.argmax(-1)
    inner = np.clip(top, 1, len(values) - 2)
    before, here, after = (np.take_along_axis(curves, (inner + k)[..., None], -1)[..., 0] for k in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.where((top == inner) & (bend < 0), 0.5 * (before - after) / np.where(bend < 0, bend, 1.0), 0.0)
    preference = np.interp(top + shift, np.arange(len(values)), values)
    return np.where(largest > 0, preference, np.nan), np.asarray(selectivity)


def _quantile(values: np.ndarray, q: float) -> np.ndarray:
    known = np.isfinite(values).all(-1)
    return np.where(known, np.quantile(np.where(np.isfinite(values), values, 0.0), q, axis=-1), np.nan)
