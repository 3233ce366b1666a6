"""Circuits read off weights: kernels between channels of distant layers, and whether they foretell interventions.

    expanded_weights(net, pictures, "module:conv1.in", "module:layer2.out[3,7]")
    expanded_weights(net, pictures, "module:layer1.out", "logits", Expanding(slopes="one"))

Source: Voss et al. 2021, Visualizing weights; Cammarata et al. 2020, Thread: circuits (excitation and inhibition).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Add
from openwork.errors import BadInput
from openwork.finding import Finding
from openwork.network import Behind
from openwork.pictures import Pictures
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.circuits.kernels import SLOPES, Kernels, kernels
from openwork.vision.corpora import Split, claims_about
from openwork.vision.halves import halves, read

if TYPE_CHECKING:
    from openwork.network import Network

CONTROL = "deals of the same kernels to other pairs of units"


@dataclass(frozen=True)
class Expanding:
    """How to read weights and how to test them.

    Args:
        slopes: ``mean`` for activation functions at their mean slope on the find images, ``one`` for the identity.
        images: of each half, at most; slopes are averaged over the find images, interventions made on the others.
        entries: how many entries of the kernels are tested, half of them the strongest, half at random.
        push: what is added at an entry's place, in standard deviations of the unit there.
        standard: what the claim must meet; its least share is the least correlation.
        seed: of the halves, the entries and the controls.
    """

    slopes: str = "mean"
    images: int = 48
    entries: int = 24
    push: float = 1.0
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.slopes not in SLOPES:
            raise BadInput(f"expected slopes of {', '.join(SLOPES)}; got {self.slopes!r}")
        if self.images < 2 or self.entries < 2 or not self.push:
            raise BadInput(
                "expected at least two images and entries, and a push; got "
                f"{self.images}, {self.entries} and {self.push:g}"
            )


def expanded_weights(
    net: Network,
    pictures: Pictures,
    sender: str | Site,
    receiver: str | Site,
    method: Expanding = Expanding(),
    *,
    held_out: Pictures | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Result:
    """Read the weights from one site's channels to another's, and claim on held-out images that they foretell changes.

    At the place of one entry of a kernel something is added to an in unit, and the change of every out unit is compared
    with what the kernels say of it.

    Args:
        net: the network.
        pictures: images on which slopes are averaged (one half) and interventions made (the other).
        sender: the earlier map; an index selects in units.
        receiver: the later map, or the logits; an index selects out units.
        method: how.
        held_out: images that nothing is found on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        one finding, the correlation over entries and out units of each image; and a table: ``kernel`` (out_unit,
        in_unit, dy, dx), ``excitation``, ``inhibition`` and ``strength`` (out_unit, in_unit); ``foretold`` and
        ``observed`` (entry, out_unit), ``agreement`` (held_out_image), ``agreement_control`` (control).

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for sites without channels, too few images, or a receiver that does not read the sender.
        SiteRefused: where a maximum has no average that could stand for it.

    Units:
        of a kernel, those of the out unit for each of the in unit; of the claim, a correlation.

    Source:
        Voss et al. 2021, the section on expanded weights.
    """
    split = halves(pictures, held_out, method.images, method.seed)
    found = kernels(
        net, sender, receiver, read(net, split.find, split.find_rows), method.slopes, lambda share: tick(0.4 * share)
    )
    entries = _entries(found, method)
    foretold, observed = _interventions(net, found, entries, split, method, lambda s: tick(0.4 + 0.6 * s))
    settings = {
        "sender": found.sender, "receiver": found.receiver, "pictures": pictures.name, **asdict(method),
    }  # fmt: skip
    finding, agreement, controls = _claim(net, found, entries, foretold, observed, split, method, settings)
    table = _table(found, entries, foretold, observed, agreement, controls)
    table.attrs.update(network=net.name, unit="correlation", sender=found.sender, receiver=found.receiver)
    remarks = []
    if found.clipped:
        remarks.append(
            f"the kernels reach an end of the map of {found.sender}, so they may be parts of larger ones; larger "
            "images would show them whole"
        )
    return Result("expanded weights", (finding,), table, settings, (*remarks, *split.remarks))


Entry = tuple[int, int, int]
"""Numbers of an in unit, a row and a column of the kernels."""


def _entries(found: Kernels, method: Expanding) -> list[Entry]:
    """Places of the kernels: the strongest ones over all out units, and random ones."""
    size = found.values.abs().amax(0).cpu().numpy()
    shape = size.shape
    reached = np.flatnonzero(size.ravel() > 0)
    random = np.random.default_rng(method.seed)
    order = reached[np.argsort(-size.ravel()[reached], kind="stable")]
    strongest = order[: (method.entries + 1) // 2]
    rest = order[len(strongest) :]
    more = random.choice(rest, min(len(rest), method.entries - len(strongest)), replace=False) if len(rest) else rest
    return [tuple(int(i) for i in np.unravel_index(n, shape)) for n in [*strongest, *more]]  # pyright: ignore


def _interventions(
    net: Network,
    found: Kernels,
    entries: Sequence[Entry],
    split: Split,
    method: Expanding,
    tick: Callable[[float], None],
) -> tuple[Float[np.ndarray, "entry out_unit"], Float[np.ndarray, "image entry out_unit"]]:
    """What kernels say that the out units change by, and what they do."""
    spread = net.run(read(net, split.find, split.find_rows), keep=found.sender, until=found.sender)[found.sender]
    spread = spread.float().std((0, 2, 3))[list(found.in_units)]
    # a unit that never changes on these images is pushed like the others
    typical = float(spread[spread > 0].mean()) if bool((spread > 0).any()) else 1.0
    push = method.push * torch.where(spread > 0, spread, torch.full_like(spread, typical))
    inputs = read(net, split.held, split.held_rows)
    later = Behind(net, inputs, found.sender)
    base = found.read(later.run(keep=found.receiver, until=found.receiver)[found.receiver])
    width = net.grid(found.sender).width
    foretold, observed = [], []
    for number, (unit, row, column) in enumerate(entries, 1):
        place = (found.under[0] + found.dy[row]) * width + found.under[1] + found.dx[column]
        amount = float(push[unit])
        edit = Add(Site(found.sender, (found.in_units[unit],)), where=place, vector=amount)
        run = later.run(edits=edit, keep=found.receiver, until=found.receiver)
        observed.append((found.read(run[found.receiver]) - base).float().cpu().numpy())
        foretold.append(amount * found.values[:, unit, row, column].float().cpu().numpy())
        tick(number / len(entries))
    return np.stack(foretold), np.stack(observed, axis=1)


def _claim(
    net: Network,
    found: Kernels,
    entries: Sequence[Entry],
    foretold: Float[np.ndarray, "entry out_unit"],
    observed: Float[np.ndarray, "image entry out_unit"],
    split: Split,
    method: Expanding,
    settings: dict[str, Any],
) -> tuple[Finding, Float[np.ndarray, " image"], Float[np.ndarray, " control"]]:
    criteria = method.standard.criteria(1.0, "correlation")
    agreement = correlations(observed, foretold)
    size = foretold / _weights(found.values, entries)
    controls = []
    random = np.random.default_rng(method.seed)
    for _ in range(criteria.controls_needed):
        other = _weights(dealt(found.values, random), entries)
        controls.append(float(correlations(observed, size * other).mean()))
    claims = claims_about(net, split, settings, method.seed)
    text = (
        f"kernels from {found.sender} to {found.receiver} foretell what a change at one place of a channel does to "
        f"{len(found.out_units)} later channels"
    )
    means = np.array(controls)
    return claims.claim(text, agreement, criteria, "held-out", means, CONTROL), agreement, means


def _weights(values: Tensor, entries: Sequence[Entry]) -> Float[np.ndarray, "entry out_unit"]:
    weights = np.stack([values[:, unit, row, column].float().cpu().numpy() for unit, row, column in entries])
    return np.where(weights == 0, 1e-12, weights)


def dealt(values: Float[Tensor, "out_unit in_unit dy dx"], random: np.random.Generator) -> Tensor:
    """The kernels of all pairs of units in a random order; with few pairs, their entries in a random order."""
    pairs = values.shape[0] * values.shape[1]
    flat = values.flatten(0, 1) if pairs >= 6 else values.flatten()
    order = torch.from_numpy(random.permutation(len(flat))).to(flat.device)
    return flat[order].reshape(values.shape)


def correlations(
    observed: Float[np.ndarray, "image entry out_unit"], foretold: Float[np.ndarray, "entry out_unit"]
) -> Float[np.ndarray, " image"]:
    """Pearson correlation over entries and out units, image by image; 0 where nothing changes."""
    seen = observed.reshape(len(observed), -1).astype(float)
    said = foretold.ravel().astype(float)
    seen = seen - seen.mean(1, keepdims=True)
    said = said - said.mean()
    size = np.linalg.norm(seen, axis=1) * np.linalg.norm(said)
    return np.divide(seen @ said, size, out=np.zeros(len(seen)), where=size > 0)


def _table(
    found: Kernels,
    entries: Sequence[Entry],
    foretold: np.ndarray,
    observed: np.ndarray,
    agreement: np.ndarray,
    controls: np.ndarray,
) -> Any:
    import xarray

    names = [f"{found.in_units[u]} at ({found.dy[r]:+d}, {found.dx[c]:+d})" for u, r, c in entries]
    pairs = ("out_unit", "in_unit")
    return xarray.Dataset(
        {
            "kernel": ((*pairs, "dy", "dx"), found.values.float().cpu().numpy()),
            **{name: (pairs, getattr(found, name).float().cpu().numpy())
               for name in ("excitation", "inhibition", "strength")},
            "foretold": (("entry", "out_unit"), foretold),
            "observed": (("entry", "out_unit"), observed.mean(0)),
            "agreement": ("held_out_image", agreement),
            "agreement_control": ("control", controls),
        },
        {
            "out_unit": list(found.out_units), "in_unit": list(found.in_units), "dy": list(found.dy),
            "dx": list(found.dx), "entry": names,
        },
    )  # fmt: skip
