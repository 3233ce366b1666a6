"""Concepts of a class: parts of the activations of random crops, how much each matters, and where it is.

    craft(net, "module:layer3.out", pictures, target=3)

Random crops of images of the class are shown to the network. Their activations at a site, which must not be negative,
are factored into concepts. Masking a concept's coefficients all over an image says by its total Sobol index how much
the class depends on it. On held-out images the concept's part is taken out of the activations, against random
directions of equal size at the same places.

Source: Fel et al. 2023, CRAFT: Concept Recursive Activation FacTorization for Explainability, sections 3.1 to 3.4; the
factors are those of scikit-learn's NMF (Lee and Seung 1999; Cichocki and Phan 2009).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.finding import Criteria
from openwork.network.measure import Tick, silent
from openwork.pictures import Pictures
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.concepts.rewriting import Change, Rewriting, predictions
from openwork.vision.concepts.sobol import Design
from openwork.vision.corpora import Split, claims_about
from openwork.vision.passes import maps

if TYPE_CHECKING:
    from openwork.network import Network

ROUNDS = 1000
"""Of the fit of factors, at most."""
KIND = "random non-negative directions of equal size at the same places"


@dataclass(frozen=True)
class Craft:
    """How to extract concepts.

    Args:
        concepts: how many.
        crop: side of a crop, as a share of the shorter side of the image.
        crops: random ones of each image.
        images: of the class, at most, in each split.
        design: rows of the Sobol design; the paper's 32.
        claims: how many concepts, the most important on find images, to claim.
        examples: crops to show of each concept.
        standard: what a claim must meet, as a share of the class's logit above the mean of all.
        seed: of crops, factors, controls and intervals.
    """

    concepts: int = 10
    crop: float = 0.35
    crops: int = 10
    images: int = 32
    design: int = 32
    claims: int = 3
    examples: int = 6
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.concepts < 1 or not 0 < self.crop <= 1 or min(self.crops, self.images, self.examples) < 1:
            raise BadInput(f"expected a concept, a crop, an image and an example or more, 0 < crop <= 1; got {self}")
        if self.claims < 0:
            raise BadInput(f"expected no negative number of claims; got {self.claims}")


def craft(
    net: Network,
    site: str | Site,
    pictures: Pictures,
    target: int,
    method: Craft = Craft(),
    *,
    held_out: Pictures | None = None,
    tick: Tick = silent,
) -> Result:
    """Extract the concepts of a class at a site, and test the most important ones.

    Args:
        net: a network with logits (image, class).
        site: one site whose activations are not negative, such as one after a ReLU.
        pictures: images, of which those count that the network itself puts into the class.
        target: the number of the class.
        method: how.
        held_out: images on which no concept is found; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a finding for each claimed concept: taking it out of held-out images lowers the class's logit. A table:
        ``importance`` (concept), the mean total Sobol index, with ``importance_low`` and ``importance_high``; ``drop``
        (concept) of the class's logit where it is taken out of held-out images; ``basis`` (concept, channel);
        ``explained`` the share of the crops' squared activations; examples ``crop`` (concept, example, y, x, colour)
        and ``heat`` (concept, shown, row, column) of the coefficients in the ``image``s (shown, y, x, colour) that
        have most of the class.

    Raises:
        BadInput: for negative activations, too few images of the class, or a site without maps.
        UnknownName: for a site that does not exist.
    """
    places = net.map.resolve(site)
    if len(places) != 1:
        raise BadInput(f"expected one site; {site} selects {[str(p) for p in places]}")
    path = places[0].path
    split = Split.of(pictures, held_out, method.seed)
    sides = []
    for name, corpus, rows in (("find", split.find, split.find_rows), ("held-out", split.held, split.held_rows)):
        own = np.flatnonzero(predictions(net, corpus, rows) == target)[: method.images]
        if len(own) < 2:
            raise BadInput(
                f"expected at least two {name} images that {net.name} puts into class {target}; there are {len(own)} "
                f"of {len(rows)}"
            )
        sides.append([rows[i] for i in own])
    crops = _Crops.of(split.find, sides[0], method)
    factors = _Factors.of(net, path, crops.pixels, method)
    find = Rewriting(net, path, split.find, sides[0], [target] * len(sides[0]))
    importance = _importance(find, factors, method, lambda x: tick(0.7 * x))
    held = Rewriting(net, path, split.held, sides[1], [target] * len(sides[1]))
    drops, candidates, scale = _taken_out(held, factors, importance.mean(0), method, lambda x: tick(0.7 + 0.3 * x))
    settings = {**asdict(method), "site": path, "target": target, "pictures": pictures.name}
    criteria = method.standard.criteria(scale, "logits")
    findings = claimed(claims_about(net, split, settings, method.seed), criteria, candidates)
    table = _table(importance, drops, factors, crops, find, split, sides[0], method)
    table.attrs.update(network=net.name, unit="share of variance", site=path, target=target, pictures=pictures.name,
                       explained=factors.explained)  # fmt: skip
    side = crops.pixels.shape[-1]
    remarks = [f"crops of {crops.side} px are enlarged to {side} px, as the method has it", *split.remarks]
    if not factors.converged:
        remarks.append(f"the factors still moved after {ROUNDS} rounds; fewer concepts would come to rest sooner")
    return Result("CRAFT concepts", findings, table, settings, tuple(remarks))


@dataclass(frozen=True, eq=False)
class _Crops:
    """Random crops of images, enlarged to the images' size.

    Args:
        pixels: (crop, channel, y, x) in [0, 1].
        side: of a crop before it was enlarged.
    """

    pixels: Float[Tensor, "crop channel y x"]
    side: int

    @classmethod
    def of(cls, corpus: Any, rows: Sequence[int], method: Craft) -> _Crops:
        pixels = corpus.pixels(rows).float() / 255
        height, width = pixels.shape[-2:]
        side = max(2, round(method.crop * min(height, width)))
        rng = np.random.default_rng(method.seed)
        found = []
        for image in pixels:
            for _ in range(method.crops):
                top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
                found.append(image[:, top : top + side, left : left + side])
        big = torch.nn.functional.interpolate(torch.stack(found), (height, width), mode="bilinear", align_corners=False)
        return cls(big.clamp(0, 1), side)


@dataclass(frozen=True, eq=False)
class _Factors:
    """Non-negative factors of activations.

    Args:
        model: scikit-learn's.
        basis: (concept, channel).
        coefficients: (crop, concept) of the crops it was fitted on.
        explained: share of their squared activations.
        converged: whether the fit came to an end before its last round.
    """

    model: Any
    basis: Float[np.ndarray, "concept channel"]
    coefficients: Float[np.ndarray, "crop concept"]
    explained: float
    converged: bool

    @classmethod
    def of(cls, net: Network, site: str, pixels: Tensor, method: Craft) -> _Factors:
        from sklearn.decomposition import NMF

        assert net.images is not None
        height, width = pixels.shape[-2:]
        grid, axes, parts = net.grid(site, (height, width)), net.map.info(site).axes, []
        for some in pixels.split(64):
            run = net.run({net.preparer.main: net.images.encode(some).to(net.device)}, keep=site, until=site)
            parts.append(maps(run[site], axes, grid).float().mean((2, 3)).cpu().double().numpy())
        values = np.concatenate(parts)
        _require_positive(values, site)
        if method.concepts > min(values.shape):
            raise BadInput(
                f"expected no more concepts than crops and channels; got {method.concepts} of {values.shape}"
            )
        model = NMF(
            method.concepts,  # pyright: ignore[reportArgumentType]
            init="nndsvda", max_iter=ROUNDS, tol=1e-4, random_state=method.seed,
        )  # fmt: skip
        coefficients = _quietly(model.fit_transform, values)
        rest = ((values - coefficients @ model.components_) ** 2).sum()
        explained = 1 - float(rest / max((values**2).sum(), 1e-30))
        return cls(model, model.components_, coefficients, explained, model.n_iter_ < ROUNDS)

    def of_maps(self, found: Float[Tensor, "image channel y x"]) -> Float[np.ndarray, "image concept y x"]:
        """How much of each concept is at each place."""
        flat = found.permute(0, 2, 3, 1).reshape(-1, found.shape[1]).cpu().double().numpy()
        _require_positive(flat, "the site")
        n, _, height, width = found.shape
        return _quietly(self.model.transform, flat).reshape(n, height, width, -1).transpose(0, 3, 1, 2)


def _quietly(fit: Callable[[np.ndarray], np.ndarray], values: np.ndarray) -> np.ndarray:
    """Without a warning of rounds that came to their end, which a remark says."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(values)


def _require_positive(values: np.ndarray, site: str) -> None:
    if not np.isfinite(values).all() or values.min() < 0:
        raise BadInput(
            f"expected activations of {site} that are not negative, as the factors need; the least is "
            f"{values.min():.3g}. Choose a site after a ReLU"
        )


def _importance(find: Rewriting, factors: _Factors, method: Craft, tick: Tick) -> Float[np.ndarray, "image concept"]:
    """The total Sobol index of each concept in each image, its coefficients masked all over the image.

    Each image has a design of its own, so that the interval over images holds the error of so small a design too.
    """
    designs = [Design.of(method.concepts, method.design, (method.seed, i)) for i in range(len(find.maps))]
    amount = torch.tensor(factors.of_maps(find.maps), dtype=torch.float32)
    basis = torch.tensor(factors.basis, dtype=torch.float32)

    def masked(masks: Float[np.ndarray, "image concept"]) -> Change:
        part = torch.einsum("nkhw,nk,kc->nchw", amount, torch.tensor(masks, dtype=torch.float32), basis)
        return lambda value: part.to(value)

    values = find.values([masked(masks) for masks in np.stack([d.points for d in designs], 1)], tick)
    return np.stack([design.total(column) for design, column in zip(designs, values.T, strict=True)])


def _taken_out(
    held: Rewriting, factors: _Factors, importance: np.ndarray, method: Craft, tick: Tick
) -> tuple[np.ndarray, list[Candidate], float]:
    """What the class's logit loses without each concept, and the claims about the most important ones."""
    amount = torch.tensor(factors.of_maps(held.maps), dtype=torch.float32)
    basis = torch.tensor(factors.basis, dtype=torch.float32)
    rng = np.random.default_rng(method.seed)
    needed = Criteria(1.0, "", method.standard.alpha).controls_needed
    chosen = np.argsort(-importance, kind="stable")[: method.claims]

    def less(concept: int, direction: Tensor) -> Change:
        size = amount[:, concept, None] * basis[concept].norm()
        part = size * (direction / direction.norm())[None, :, None, None]
        return lambda value: value - part.to(value)

    changes = [less(k, basis[k]) for k in range(len(basis))]
    for concept in chosen:
        directions = np.abs(rng.normal(size=(needed, basis.shape[1])))
        changes += [less(int(concept), torch.tensor(d, dtype=torch.float32)) for d in directions]
    values = held.values(changes, tick)
    drop = held.plain - values
    candidates = []
    for place, concept in enumerate(chosen):
        start = len(basis) + place * needed
        controls = drop[start : start + needed].mean(1)
        text = f"concept {concept} of the activations carries the class: without it the class's logit falls"
        candidates.append(Candidate(text, drop[concept], controls, KIND))
    return drop[: len(basis)], candidates, float(np.abs(held.plain).mean())


def _table(
    importance: np.ndarray, drops: np.ndarray, factors: _Factors, crops: _Crops, find: Rewriting, split: Split,
    rows: Sequence[int], method: Craft,
) -> Any:  # fmt: skip
    import xarray

    mean, error = importance.mean(0), 1.96 * importance.std(0, ddof=1) / np.sqrt(len(importance))
    best = np.argsort(-factors.coefficients, axis=0, kind="stable")[: method.examples].T
    pixels = (crops.pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()
    strongest = np.argsort(-find.plain, kind="stable")[: method.examples]
    heat = factors.of_maps(find.maps[torch.as_tensor(strongest.copy())])
    images = split.find.pixels([rows[i] for i in strongest]).permute(0, 2, 3, 1).numpy()
    return xarray.Dataset(
        {
            "importance": ("concept", mean), "importance_low": ("concept", mean - error),
            "importance_high": ("concept", mean + error), "drop": ("concept", drops.mean(1)),
            "basis": (("concept", "channel"), factors.basis),
            "crop": (("concept", "example", "y", "x", "colour"), pixels[best]),
            "heat": (("concept", "shown", "row", "column"), heat.transpose(1, 0, 2, 3)),
            "image": (("shown", "y", "x", "colour"), images),
        },
        {"concept": [f"concept {k}" for k in range(len(mean))]},
    )  # fmt: skip
