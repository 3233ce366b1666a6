"""Synthetic tuning curves: what a unit does as orientation, curvature, colour or frequency of a drawn stimulus changes.

    tune(net, "module:conv1.out", "orientation")
    tune(net, "blocks.2.resid_post[3]", "curve")
    tune(net, units, Stimuli("line", "width", (1.0, 2.0, 3.0), unit="pixels"))

Source: Hubel and Wiesel 1962 for the question; Cammarata et al. 2020, Curve detectors (synthetic curves, radial tuning
curves); Mazurek, Kager and Van Hooser 2014 for the numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from openwork.errors import BadInput
from openwork.network.grid import Grid
from openwork.network.image_format import needs_images
from openwork.network.measure import Tick, silent
from openwork.results.candidates import Candidate, judged, ranked
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.vision.responses.redrawn import redrawn
from openwork.vision.responses.selectivity import gains, intervals
from openwork.vision.responses.stimuli import Stimuli, draw, stimuli
from openwork.vision.units import Unit, channels_of, grid_of, sites_of, units_of

if TYPE_CHECKING:
    import xarray

    from openwork.network import Network

UNTRAINED = "channels of this network with its weights in random order"
SMALLEST = 8
"""Pixels of an image, at least."""
MOST_CHANNELS, CONTROL_TRIALS = 64, 6
"""Channels of each copy with random weights that are looked at, and held-out trials of these."""
NOISE, FAINT = 128, 0.05
"""Images of noise; and the share of a unit's largest response that its gain is counted in at least, where noise leaves
it all but silent."""


@dataclass(frozen=True)
class Tuning:
    """How to measure tuning curves.

    Args:
        find: trials on which preferences, and what is scanned, are found.
        held_out: trials on which they are measured; each draws its own contrast, place and phase.
        claims: how many units, the most selective on find trials, to claim.
        size: (height, width) of the stimuli, for a network that reads any; that of its example unless given.
        standard: what a claim must meet; ``min_share`` is the least gain, in standard deviations of responses to noise.
        batch: images of one pass.
        seed: of trials, weights and intervals.
    """

    find: int = 4
    held_out: int = 24
    claims: int = 8
    size: tuple[int, int] | None = None
    standard: Standard = field(default_factory=lambda: Standard(min_share=0.5, alpha=0.1))
    batch: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.find, self.batch) < 1 or self.held_out < 2 or self.claims < 0:
            raise BadInput(f"expected find trials and two or more held-out ones; got {self.find} and {self.held_out}")


def tune(
    net: Network,
    units: Any,
    stimulus: str | Stimuli = "orientation",
    method: Tuning = Tuning(),
    *,
    untrained: Sequence[Network] | None = None,
    tick: Tick = silent,
) -> Result:
    """Measure the tuning curves of units.

    A unit is read at one place, its own or the one nearest the middle of the image, and stimuli are drawn at the pixel
    that this place is centred on. What the stimuli scan (a frequency, a width) is chosen for each unit on find trials,
    and so is its preference; curves, selectivity and claims are of held-out trials, whose contrast, place and phase
    are drawn anew. A response is the largest over what is pooled, such as phases.

    A claim says that a unit is tuned: at the value that find trials prefer, its held-out responses rise above their
    mean over all values. The rise, the gain, is counted in standard deviations of the unit's responses to white noise
    of the same contrast (or in a twentieth of its largest response, if that is more). Its control is the same,
    preference and all, of channels that have learned nothing: random filters prefer something too, and often as
    selectively, but a filter that was made for the stimulus gains more.

    Args:
        net: a network that reads images.
        units: see `openwork.vision.units.units_of`.
        stimulus: a name of `openwork.vision.responses.stimuli.KINDS`, sized by the largest receptive field, or stimuli.
        method: how.
        untrained: copies that have learned nothing, with the same sites; this network with its weights shuffled unless
            given.
        tick: told the share that is done.

    Returns:
        findings, the most selective first; and a table with the axes ``unit`` and ``stimulus`` (the values): mean
        ``response`` with its 95 % interval over trials as ``response_band``; ``preference``, ``selectivity`` and
        ``half_width`` of that mean curve with their ``_low`` and ``_high``; ``find_value``, preferred on find trials;
        ``gain`` by ``held_out_example``; ``untrained_gain`` by ``control``; ``shuffled_gain``, its mean where values
        are shuffled within trials; ``noise``, what gains are counted in;
        ``centre``, the pixel (y, x) that stimuli are drawn at; and ``chosen`` by
        ``scanned``.

    Raises:
        UnknownName: for a site or kind of stimuli that does not exist.
        BadInput: for a network that reads no images, images that are too small, or activations that are not finite.

    Units:
        ``preference`` and ``half_width`` in the stimuli's unit; selectivity is 1 - circular variance, or 1 - mean /
        maximum for what is not circular.
    """
    chosen = units_of(net, units)
    rig = _Rig.of(net, chosen, method)
    if isinstance(stimulus, str):
        stimulus = stimuli(stimulus, max(rig.fields))
    criteria = method.standard.criteria(1.0, "SD of responses to noise")
    each = [min(MOST_CHANNELS, rig.channels[site]) for site in rig.grids]
    copies = -(-criteria.controls_needed // min(each))
    measured = _measure(rig, chosen, stimulus, method, lambda share: tick(share * 2 / (2 + copies)))
    control: dict[str, list[float]] = {site: [] for site in rig.grids}
    nets, quick = list(untrained or ()), replace(method, held_out=min(method.held_out, CONTROL_TRIALS))
    for number in range(copies if not nets else len(nets)):
        own = _stand_ins(rig, chosen, method.seed + number)
        if nets:
            other = _Rig.of(nets[number], own, method)
            found = _measure(other, own, stimulus, quick, silent)
        else:
            with redrawn(net, method.seed + number):
                found = _measure(rig, own, stimulus, quick, silent)
        for unit, values in zip(own, found.gains.mean(1), strict=True):
            control[unit.site].append(float(values))
        tick((2 + number) / (2 + copies))
    controls = np.array([_sized(control[unit.site], criteria.controls_needed) for unit in chosen])
    settings = {**asdict(method), "stimuli": stimulus.to_json(), "units": [unit.name for unit in chosen],
                "untrained": [one.name for one in nets] or "weights in random order"}  # fmt: skip
    kind = UNTRAINED if not nets else "channels of networks that have learned nothing"
    candidates = [
        Candidate(_text(unit, stimulus, int(at)), gain, control, kind)
        for unit, at, gain, control in zip(chosen, measured.find_at, measured.gains, controls, strict=True)
    ]
    claims = Claims(net, {"stimuli": stimulus.to_json(), "seed": method.seed}, settings, method.seed)
    table = _table(rig, chosen, stimulus, measured, controls, method)
    tick(1.0)
    # a unit that gains much on find trials does so on all: among equals the best is no news, so all of them are judged
    findings = judged(claims, criteria, candidates)
    best = np.argsort(-measured.find_gains, kind="stable")[: method.claims]
    return Result(f"tuning to {stimulus.feature}", ranked(findings[i] for i in best), table, settings)


@dataclass(frozen=True, eq=False)
class _Measured:
    """What units did.

    Args:
        responses: (unit, trial, value) of held-out trials, at the chosen scan.
        scan: (unit,) which combination of what is scanned was chosen.
        find_at: (unit,) which value is preferred on find trials.
        find_gains: (unit,) how far the mean curve of find trials rises there.
        gains: (unit, trial) how far each held-out trial does.
        scale: (unit,) what gains are counted in.
    """

    responses: Float[np.ndarray, "unit trial value"]
    scan: Int[np.ndarray, " unit"]
    find_at: Int[np.ndarray, " unit"]
    find_gains: Float[np.ndarray, " unit"]
    gains: Float[np.ndarray, "unit trial"]
    scale: Float[np.ndarray, " unit"]


@dataclass(frozen=True, eq=False)
class _Rig:
    """Where units are read, and at which pixel their stimuli are drawn."""

    net: Network
    size: tuple[int, int]
    grids: dict[str, Grid]
    channels: dict[str, int]
    batch: int

    @classmethod
    def of(cls, net: Network, units: Sequence[Unit], method: Tuning) -> _Rig:
        door = needs_images(net)
        if method.size is not None and door.size not in (None, tuple(method.size)):
            raise BadInput(f"{net.name} reads images of {door.size} only; got the size {method.size}")
        size = method.size or door.size or image_size(net)
        if min(size) < SMALLEST:
            raise BadInput(f"expected images of {SMALLEST} pixels or more to draw stimuli in; got {size}")
        grids = {site: grid_of(net, site, size) for site in sites_of(units)}
        return cls(net, size, grids, {site: channels_of(net, site) for site in grids}, method.batch)

    @property
    def fields(self) -> list[float]:
        """The receptive field of each site, no larger than the image."""
        return [min(max(grid.field), *self.size) for grid in self.grids.values()]

    def place(self, unit: Unit) -> tuple[int, tuple[float, float]]:
        """The number of the place that a unit is read at, and its centre."""
        grid = self.grids[unit.site]
        middle = ((self.size[0] - 1) / 2, (self.size[1] - 1) / 2)
        if unit.position is not None:
            centre = middle if unit.position < grid.prefix else grid.centre(unit.position)
            return 0, centre
        centres = np.array([grid.centre(grid.prefix + k) for k in range(len(grid))])
        nearest = int(np.abs(centres - np.array(middle)).sum(1).argmin())
        return nearest, (float(centres[nearest, 0]), float(centres[nearest, 1]))

    def read(
        self, units: Sequence[Unit], n: int, drawn: Callable[[slice, tuple[float, float]], torch.Tensor]
    ) -> Float[np.ndarray, "unit image"]:
        """What units do, each at its place, on images that are drawn around it.

        Args:
            units: which.
            n: how many images.
            drawn: some of them around a pixel, as pixels (image, 3, y, x).

        Raises:
            BadInput: if a response is not finite.
        """
        out, door = np.zeros((len(units), n)), needs_images(self.net)
        places = [self.place(unit) for unit in units]
        for centre in dict.fromkeys(where for _, where in places):
            some = [i for i, (_, where) in enumerate(places) if where == centre]
            sites = sites_of([units[i] for i in some])
            last = max(sites, key=self.net.map.order)
            for start in range(0, n, self.batch):
                part = slice(start, min(n, start + self.batch))
                pixels = drawn(part, centre)
                pixels = pixels if door.channels == 3 else pixels.mean(1, keepdim=True)
                given = door.encode(pixels.to(self.net.device)).to(self.net.dtype)
                run = self.net.run(given, keep=sites, until=last)
                for i in some:
                    unit, grid = units[i], self.grids[units[i].site]
                    values = unit.read(run[unit.site], self.net.map.info(unit.site).axes, grid.prefix, grid.width)
                    out[i, part] = values.flatten(1)[:, places[i][0]].double().cpu().numpy()
        for unit, values in zip(units, out, strict=True):
            if not np.isfinite(values).all():
                raise BadInput(f"expected finite activations; {unit.name} is NaN or infinite on a stimulus")
        return out

    def noise(self, units: Sequence[Unit], seed: int) -> Float[np.ndarray, " unit"]:
        """The standard deviation of each unit's responses to white noise."""
        generator = torch.Generator().manual_seed(seed)
        shape = (NOISE, 3, *self.size)
        values = torch.rand(shape, generator=generator) - 0.5
        values = values * (0.5 + 0.5 * torch.rand((NOISE, 1, 1, 1), generator=generator)) + 0.5
        return self.read(units, NOISE, lambda part, centre: values[part]).std(1)


def image_size(net: Network) -> tuple[int, int]:
    """The size of the image that a network was opened with."""
    value, axes = net.example[net.preparer.main], net.preparer.axes
    assert isinstance(value, torch.Tensor)
    assert axes is not None  # units are of networks that read images
    return int(value.shape[axes.index("y")]), int(value.shape[axes.index("x")])


def _measure(rig: _Rig, units: Sequence[Unit], stimulus: Stimuli, method: Tuning, tick: Tick) -> _Measured:
    scans = list(itertools.product(*stimulus.scanned.values())) or [()]
    find, held = stimulus.trials(method.find, method.seed), stimulus.trials(method.held_out, method.seed + 7919)
    curves = []
    for number, scan in enumerate(scans):
        curves.append(_responses(rig, units, stimulus, scan, find))
        tick(0.5 * (number + 1) / len(scans))
    found = np.stack(curves, 1).mean(2)  # (unit, scan, value)
    scan = (found.max(-1) - found.min(-1)).argmax(1)
    best = found[np.arange(len(units)), scan]
    at = best.argmax(1)
    scale = np.maximum(rig.noise(units, method.seed), FAINT * np.abs(found).max((1, 2)))
    responses = np.zeros((len(units), method.held_out, len(stimulus.values)))
    different = sorted({*scan.tolist()})
    for number, k in enumerate(different):
        some = [i for i in range(len(units)) if scan[i] == k]
        responses[some] = _responses(rig, [units[i] for i in some], stimulus, scans[k], held)
        tick(0.5 + 0.5 * (number + 1) / len(different))
    held_gains = gains(responses, at[:, None], scale[:, None])
    return _Measured(responses, scan, at, gains(best, at, scale), held_gains, scale)


def _responses(
    rig: _Rig, units: Sequence[Unit], stimulus: Stimuli, scan: Sequence[float], trials: dict[str, np.ndarray]
) -> Float[np.ndarray, "unit trial value"]:
    """The largest response over what is pooled, of every trial and value."""
    pooled = list(itertools.product(*stimulus.pooled.values())) or [()]
    n, k, p = len(next(iter(trials.values()))), len(stimulus.values), len(pooled)
    shape = (n, k, p)
    parameters = {name: np.broadcast_to(x[:, None, None], shape) for name, x in trials.items()}
    parameters[stimulus.feature] = np.broadcast_to(np.array(stimulus.values)[None, :, None], shape)
    for name, value in zip(stimulus.scanned, scan, strict=True):
        parameters[name] = np.full(shape, value)
    for place, name in enumerate(stimulus.pooled):
        shift = parameters.get(name, 0.0)
        parameters[name] = np.broadcast_to(np.array([some[place] for some in pooled]), shape) + shift
    flat = {name: np.ascontiguousarray(x).reshape(-1) for name, x in parameters.items()}

    def drawn(part: slice, centre: tuple[float, float]) -> torch.Tensor:
        return draw(stimulus.shape, {name: x[part] for name, x in flat.items()}, rig.size, centre)

    return rig.read(units, n * k * p, drawn).reshape(len(units), *shape).max(-1)


def _stand_ins(rig: _Rig, units: Sequence[Unit], seed: int) -> list[Unit]:
    """Units of a copy that has learned nothing: channels of the same sites, or random directions for a direction."""
    rng, found = np.random.default_rng(seed), []
    for site in rig.grids:
        n = rig.channels[site]
        here = [unit for unit in units if unit.site == site]
        position = here[0].position
        if all(unit.vector is not None for unit in here):
            vectors = rng.normal(size=(min(MOST_CHANNELS, n), n))
            found += [
                Unit(site, vector=tuple(v), position=position, called=f"{site} {i}") for i, v in enumerate(vectors)
            ]
        else:
            chosen = rng.permutation(n)[:MOST_CHANNELS]
            found += [Unit(site, int(channel), position=position) for channel in chosen]
    return found


def _sized(values: Sequence[float], n: int) -> Float[np.ndarray, " control"]:
    """As many controls for each unit, from the first copies on."""
    return np.array(values[:n])


def _text(unit: Unit, stimulus: Stimuli, at: int) -> str:
    value = f"{stimulus.values[at]:.3g} {stimulus.unit}"
    return f"{unit.name} is tuned to the {stimulus.feature} of {stimulus.shape}s, most to about {value}"


def _table(
    rig: _Rig, units: Sequence[Unit], stimulus: Stimuli, measured: _Measured, controls: np.ndarray, method: Tuning
) -> xarray.Dataset:
    import xarray

    values = np.array(stimulus.values)
    found, low, high = intervals(measured.responses, values, stimulus.period, method.seed)
    rng = np.random.default_rng(method.seed)
    counts = rng.multinomial(method.held_out, np.full(method.held_out, 1 / method.held_out), 499) / method.held_out
    again = np.einsum("rt,utv->urv", counts, measured.responses)
    mixed = rng.permuted(measured.responses, axis=2)
    shuffled = gains(mixed, measured.find_at[:, None], measured.scale[:, None]).mean(1)
    scans = list(itertools.product(*stimulus.scanned.values())) or [()]
    variables: dict[str, Any] = {
        "response": (("unit", "stimulus"), measured.responses.mean(1)),
        "response_band": (("unit", "end", "stimulus"), np.quantile(again, (0.025, 0.975), axis=1).transpose(1, 0, 2)),
        "find_value": (("unit",), values[measured.find_at]),
        "gain": (("unit", "held_out_example"), measured.gains),
        "untrained_gain": (("unit", "control"), controls),
        "shuffled_gain": (("unit",), shuffled),
        "noise": (("unit",), measured.scale),
    }
    for name in ("preference", "selectivity", "half_width"):
        for suffix, one in (("", found), ("_low", low), ("_high", high)):
            variables[name + suffix] = (("unit",), getattr(one, name))
    if stimulus.scanned:
        chosen = np.array([scans[k] for k in measured.scan])
        variables["chosen"] = (("unit", "scanned"), chosen)
    places = np.array([rig.place(unit)[1] for unit in units])
    variables["centre"] = (("unit", "axis"), places)
    coords = {"unit": [unit.name for unit in units], "stimulus": values, "end": ["low", "high"], "axis": ["y", "x"],
              **({"scanned": list(stimulus.scanned)} if stimulus.scanned else {})}  # fmt: skip
    attrs = {"network": rig.net.name, "shape": stimulus.shape, "feature": stimulus.feature, "unit": stimulus.unit,
             "unit of selectivity": "0 flat, 1 one value alone", "period": stimulus.period or 0.0,
             "trials": method.held_out}  # fmt: skip
    return xarray.Dataset(variables, coords, attrs)
