"""Concepts that patches of many images share, fitted so that they also say what the network says of the image.

    patch_concepts(net, "blocks.5.resid_post", pictures)

Each patch's activation is drawn from one of a few Gaussian concepts, each image mixes these as a Dirichlet draw, and
the mean assignment of an image's patches is to predict the network's own output. The fit goes through the images in
batches: assignments of a batch, nudged towards the network's output, then running sums for means and covariances. An
explanation of a new image uses no output of the network.

Source: Wang, Tan and Wang 2024, Probabilistic Conceptual Explainers (PACE), section 3. Here the nudge is a step of
mirror ascent on the same log-likelihood, so that assignments stay probabilities; the places of an image weigh alike;
stability under small shifts is measured and not fitted; no hidden factor tempers the distances.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import digamma, log_softmax, softmax

from openwork.errors import BadInput
from openwork.finding import Criteria
from openwork.network.measure import Tick, silent
from openwork.pictures import Pictures
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.concepts.rewriting import Change, Rewriting, require_maps
from openwork.vision.corpora import Split, claims_about, grid_of
from openwork.vision.halves import read
from openwork.vision.passes import maps

if TYPE_CHECKING:
    from openwork.network import Network

REMOVED = "as many random places of the same images"
SHUFFLED = "explanations of other images"
BATCH = 64
Places = Float[np.ndarray, "image place channel"]
Assigned = Float[np.ndarray, "image place concept"]


@dataclass(frozen=True)
class PatchConcepts:
    """How to fit.

    Args:
        concepts: how many Gaussians.
        dims: principal components of the activations that they live in.
        rounds: of assignments and mixtures, in turn; the paper's 10.
        epochs: passes over the find images.
        forget: weight of the running sums against a new batch; the paper's 0.75.
        mixture: the Dirichlet's concentration.
        nudge: step of the assignments towards the network's output while fitting; 0 leaves it out.
        images: held-out ones that places are taken out of, at most.
        standard: what a claim must meet.
        seed: of everything drawn at random.
    """

    concepts: int = 10
    dims: int = 8
    rounds: int = 10
    epochs: int = 3
    forget: float = 0.75
    mixture: float = 1.0
    nudge: float = 0.5
    images: int = 64
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.concepts, self.images) < 2 or min(self.dims, self.rounds, self.epochs) < 1:
            raise BadInput(f"expected two concepts and images, and a dimension, round and epoch or more; got {self}")
        if not 0 < self.forget < 1 or self.mixture <= 0 or self.nudge < 0:
            raise BadInput(f"expected 0 < forget < 1, mixture > 0 and nudge >= 0; got {self}")


@dataclass(eq=False)
class Explainer:
    """Concepts of places, and what mixtures of them say of classes.

    Args:
        centre: (channel,) mean of all places.
        axes: (component, channel) principal components.
        spread: (component,) the standard deviation along each; places are divided by it.
        means: (concept, component).
        covariances: (concept, component, component).
        weights: (class, concept) of the mean assignment in the logits of the class.
        bias: (class,).
        method: how it was fitted.
    """

    centre: Float[np.ndarray, " channel"]
    axes: Float[np.ndarray, "component channel"]
    spread: Float[np.ndarray, " component"]
    means: Float[np.ndarray, "concept component"]
    covariances: Float[np.ndarray, "concept component component"]
    weights: Float[np.ndarray, "class concept"]
    bias: Float[np.ndarray, " class"]
    method: PatchConcepts

    def reduced(self, places: Places) -> Float[np.ndarray, "image place component"]:
        """Places in the components that concepts live in."""
        return ((places - self.centre) @ self.axes.T) / self.spread

    def assigned(self, places: Places, output: Float[np.ndarray, "image class"] | None = None) -> Assigned:
        """The chance that each place shows each concept.

        Args:
            places: activations.
            output: the network's probabilities, towards which assignments are nudged; only while fitting.
        """
        fit = densities(self.reduced(places), self.means, self.covariances)
        mixture = np.full((len(places), len(self.means)), self.method.mixture + places.shape[1] / len(self.means))
        assigned = np.zeros_like(fit)
        for _ in range(self.method.rounds):
            share = digamma(mixture) - digamma(mixture.sum(1, keepdims=True))
            score = fit + share[:, None]
            if output is not None and self.method.nudge:
                said = softmax(self.logits(softmax(score, axis=2)), axis=1)
                score = score + self.method.nudge * ((output - said) @ self.weights)[:, None]
            assigned = softmax(score, axis=2)
            mixture = self.method.mixture + assigned.sum(1)
        return assigned

    def logits(self, assigned: Assigned) -> Float[np.ndarray, "image class"]:
        """What the mean assignment says of the classes."""
        return assigned.mean(1) @ self.weights.T + self.bias


def densities(
    x: Float[np.ndarray, "image place component"],
    means: Float[np.ndarray, "concept component"],
    covariances: Float[np.ndarray, "concept component component"],
) -> Assigned:
    """Log density of each place under each Gaussian, less a constant."""
    out = []
    for mean, covariance in zip(means, covariances, strict=True):
        factor = np.linalg.cholesky(covariance)
        z = np.linalg.solve(factor, (x - mean).reshape(-1, x.shape[2]).T)
        distance = (z**2).sum(0).reshape(x.shape[:2])
        out.append(-0.5 * distance - np.log(np.diag(factor)).sum())
    return np.stack(out, 2)


def patch_concepts(
    net: Network,
    site: str | Site,
    pictures: Pictures,
    method: PatchConcepts = PatchConcepts(),
    *,
    held_out: Pictures | None = None,
    tick: Tick = silent,
) -> Result:
    """Fit patch concepts on find images, and test on held-out ones whether they say, and carry, what the network says.

    Args:
        net: a network with logits (image, class).
        site: one site of maps or tokens.
        pictures: images; classes are not needed.
        method: how.
        held_out: images that nothing is fitted on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        two findings: the explanation of an image predicts the network's output better than always saying its mean
        (observed; against explanations of other images), and taking out the places of the concept that speaks most for
        the predicted class lowers its logit (against as many random places). A table: ``weight`` (class, concept),
        ``share`` (concept) of all places, ``gain`` (held_out_example) in nats; examples ``assignment`` (shown, concept,
        row, column) with their ``image``; attrs ``agreement`` (how often both say the same class) and ``stability``
        (the cosine of an image's mixture with that of the image shifted by two pixels).

    Raises:
        BadInput: for a site without maps, too few places, or activations that are not finite.
        UnknownName: for a site that does not exist.
    """
    places = net.map.resolve(site)
    if len(places) != 1:
        raise BadInput(f"expected one site; {site} selects {[str(p) for p in places]}")
    path = places[0].path
    require_maps(net.map.info(path).axes)
    split = Split.of(pictures, held_out, method.seed)
    explainer, base = fit(net, path, split.find, split.find_rows, method, lambda x: tick(0.6 * x))
    seen = _seen(net, path, split, explainer, base, lambda x: tick(0.6 + 0.1 * x))
    settings = {**asdict(method), "site": path, "pictures": pictures.name}
    claims, standard = claims_about(net, split, settings, method.seed), method.standard
    told = Candidate(
        f"{method.concepts} concepts of the places at {path} tell what {net.name} says of an image",
        seen.gain, seen.others, SHUFFLED,
    )  # fmt: skip
    findings = claimed(claims, standard.criteria(float(seen.entropy), "nats"), [told], intervened=False)
    carried, scale = _carried(net, path, split, explainer, base, lambda x: tick(0.7 + 0.3 * x))
    findings += claimed(claims, standard.criteria(scale, "logits"), [carried])
    table = _table(explainer, seen, split)
    table.attrs.update(network=net.name, unit="nats", site=path, pictures=pictures.name)
    return Result("patch concepts", findings, table, settings, tuple(split.remarks))


def fit(
    net: Network, site: str, corpus: Any, rows: Sequence[int], method: PatchConcepts, tick: Tick = silent
) -> tuple[Explainer, Float[np.ndarray, " class"]]:
    """Fit concepts on some images.

    Returns:
        the explainer, and the mean of the network's probabilities.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    first, output = next(iter(_batches(net, site, corpus, rows)))
    flat = first.reshape(-1, first.shape[2])
    dims = min(method.dims, flat.shape[1])
    if len(flat) < 10 * method.concepts:
        raise BadInput(f"expected {10 * method.concepts} places or more for {method.concepts} concepts; "
                       f"got {len(flat)}")  # fmt: skip
    pca = PCA(dims, random_state=method.seed).fit(flat)
    spread = np.maximum(np.sqrt(pca.explained_variance_), 1e-9)
    x = pca.transform(flat) / spread
    model = KMeans(method.concepts, n_init=1, random_state=method.seed)  # pyright: ignore[reportArgumentType]
    start = model.fit(x).cluster_centers_
    eye = np.tile(np.eye(dims), (method.concepts, 1, 1))
    classes = output.shape[1]
    middle, axes = np.asarray(pca.mean_), np.asarray(pca.components_)
    explainer = Explainer(middle, axes, spread, start, eye, np.zeros((classes, method.concepts)),
                          np.zeros(classes), method)  # fmt: skip
    sums = _Sums(start, dims)
    for epoch in range(method.epochs):
        mixed, said = [], []
        for places, output in _batches(net, site, corpus, rows):
            assigned = explainer.assigned(places, output if epoch else None)
            sums.add(explainer.reduced(places), assigned, method.forget)
            explainer.means, explainer.covariances = sums.gaussians()
            mixed.append(assigned.mean(1))
            said.append(output)
            tick((epoch + sum(map(len, mixed)) / len(rows)) / (method.epochs + 1))
        explainer.weights, explainer.bias = regressed(np.concatenate(mixed), np.concatenate(said))
    mixed = [explainer.assigned(places).mean(1) for places, _ in _batches(net, site, corpus, rows)]
    explainer.weights, explainer.bias = regressed(np.concatenate(mixed), np.concatenate(said))
    return explainer, np.concatenate(said).mean(0)


class _Sums:
    """Running sums of a streamed maximisation, with a weak prior at the first means and unit covariance."""

    def __init__(self, start: Float[np.ndarray, "concept component"], dims: int):
        self.start, self.prior = start, float(dims + 2)
        self.count = np.zeros(len(start))
        self.first, self.second = np.zeros_like(start), np.zeros((*start.shape, dims))

    def add(self, x: np.ndarray, assigned: Assigned, forget: float) -> None:
        flat, weight = x.reshape(-1, x.shape[2]), assigned.reshape(-1, assigned.shape[2])
        # the first batch counts in full: there is nothing yet to hold against it
        old, new = (forget, 1 - forget) if self.count.any() else (0.0, 1.0)
        self.count = old * self.count + new * weight.sum(0)
        self.first = old * self.first + new * weight.T @ flat
        self.second = old * self.second + new * np.einsum("nk,ni,nj->kij", weight, flat, flat)

    def gaussians(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and covariances, each with its prior."""
        means = (self.first + self.start) / (self.count[:, None] + 1)
        cross = np.einsum("ki,kj->kij", means, self.first)
        scatter = self.second - cross - cross.transpose(0, 2, 1)
        scatter += self.count[:, None, None] * np.einsum("ki,kj->kij", means, means)
        eye = np.eye(self.first.shape[1])
        return means, (scatter + self.prior * 0.1 * eye) / (self.count[:, None, None] + self.prior)


def regressed(
    x: Float[np.ndarray, "image concept"], output: Float[np.ndarray, "image class"], penalty: float = 1e-3
) -> tuple[Float[np.ndarray, "class concept"], Float[np.ndarray, " class"]]:
    """Softmax regression of probabilities on mixtures, by their cross-entropy with a small penalty (convex)."""
    given, wanted = torch.tensor(x), torch.tensor(output)
    weights = torch.zeros(output.shape[1], x.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(output.shape[1], dtype=torch.double, requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        said = torch.log_softmax(given @ weights.T + bias, 1)
        value = -(wanted * said).sum(1).mean() + penalty * (weights**2).sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach().numpy(), bias.detach().numpy()


def _batches(
    net: Network, site: str, corpus: Any, rows: Sequence[int], shift: int = 0
) -> Iterator[tuple[Places, Float[np.ndarray, "image class"]]]:
    """Activations of places and the network's probabilities, batch by batch."""
    grid, axes = grid_of(net, site, corpus), net.map.info(site).axes
    for start in range(0, len(rows), BATCH):
        x = read(net, corpus, list(rows[start : start + BATCH]))
        run = net.run({net.preparer.main: x.roll(shift, -1) if shift else x}, keep=site)
        if run.logits is None or run.logits.ndim != 2:
            raise BadInput(f"expected a network with logits (image, class); {net.name} has none such")
        values = maps(run[site], axes, grid).float().flatten(2).transpose(1, 2).cpu().double().numpy()
        if not np.isfinite(values).all():
            raise BadInput(f"expected finite activations at {site}; got NaN or infinity")
        yield values, run.logits.double().softmax(1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class _Seen:
    """What held-out images show.

    Args:
        gain: (image,) nats by which the explanation beats the mean output.
        others: (control,) mean gain of explanations of other images.
        entropy: of the mean output.
        agreement: how often explanation and network name the same class.
        stability: mean cosine of mixtures under a shift.
        assigned: of the first images.
        share: (concept,) of all places.
    """

    gain: np.ndarray
    others: np.ndarray
    entropy: float
    agreement: float
    stability: float
    assigned: Assigned
    share: np.ndarray


def _seen(net: Network, site: str, split: Split, explainer: Explainer, base: np.ndarray, tick: Tick) -> _Seen:
    assigned, outputs, shifted = [], [], []
    for places, output in _batches(net, site, split.held, split.held_rows):
        assigned.append(explainer.assigned(places))
        outputs.append(output)
        tick(sum(map(len, outputs)) / len(split.held_rows))
    for places, _ in _batches(net, site, split.held, split.held_rows, shift=2):
        shifted.append(explainer.assigned(places).mean(1))
    every, output = np.concatenate(assigned), np.concatenate(outputs)
    said = log_softmax(explainer.logits(every), axis=1)
    plain = output @ np.log(np.maximum(base, 1e-12))
    rng = np.random.default_rng(explainer.method.seed)
    needed = Criteria(1.0, "", explainer.method.standard.alpha).controls_needed
    others = [((output * said[rng.permutation(len(said))]).sum(1) - plain).mean() for _ in range(needed)]
    mixed, other = every.mean(1), np.concatenate(shifted)
    cosine = (mixed * other).sum(1) / (np.linalg.norm(mixed, axis=1) * np.linalg.norm(other, axis=1))
    return _Seen(
        (output * said).sum(1) - plain, np.array(others), float(-(base * np.log(np.maximum(base, 1e-12))).sum()),
        float((said.argmax(1) == output.argmax(1)).mean()), float(cosine.mean()), every[:8], mixed.mean(0),
    )  # fmt: skip


def _carried(
    net: Network, site: str, split: Split, explainer: Explainer, base: np.ndarray, tick: Tick
) -> tuple[Candidate, float]:
    """What the predicted class loses where the places of its strongest concept are set to the mean place."""
    rows = split.held_rows[: explainer.method.images]
    outputs = np.concatenate([output for _, output in _batches(net, site, split.held, rows)])
    rewriting = Rewriting(net, site, split.held, rows, outputs.argmax(1).tolist())
    found = rewriting.maps
    n, _, height, width = found.shape
    assigned = explainer.assigned(found.flatten(2).transpose(1, 2).double().cpu().numpy())
    said = explainer.weights - explainer.weights.mean(0)
    speaks = said[outputs.argmax(1)] * assigned.mean(1)
    own = np.take_along_axis(assigned, speaks.argmax(1)[:, None, None], 2)[..., 0] > 0.5
    mean = torch.tensor(explainer.centre, dtype=torch.float32)[None, :, None, None]
    rng = np.random.default_rng(explainer.method.seed)
    needed = Criteria(1.0, "", explainer.method.standard.alpha).controls_needed
    random = [np.stack([rng.permutation(row) for row in own]) for _ in range(needed)]

    def out(which: np.ndarray) -> Change:
        where = torch.tensor(which.reshape(n, 1, height, width))
        return lambda value: torch.where(where.to(value.device), mean.to(value), value)

    values = rewriting.values([out(which) for which in (own, *random)], tick)
    drop = rewriting.plain - values
    text = f"the places of the concept that speaks most for a class carry it: without them at {site} its logit falls"
    return Candidate(text, drop[0], drop[1:].mean(1), REMOVED), float(np.abs(rewriting.plain).mean())


def _table(explainer: Explainer, seen: _Seen, split: Split) -> Any:
    import xarray

    rows = split.held_rows[: len(seen.assigned)]
    side = round(seen.assigned.shape[1] ** 0.5)
    square = side * side == seen.assigned.shape[1]
    shape = (len(rows), side, side, -1) if square else (len(rows), 1, seen.assigned.shape[1], -1)
    images = split.held.pixels(rows).permute(0, 2, 3, 1).numpy()
    return xarray.Dataset(
        {
            "weight": (("class", "concept"), explainer.weights), "share": ("concept", seen.share),
            "gain": ("held_out_example", seen.gain),
            "assignment": (("shown", "concept", "row", "column"), seen.assigned.reshape(shape).transpose(0, 3, 1, 2)),
            "image": (("shown", "y", "x", "colour"), images),
        },
        {"concept": [f"concept {k}" for k in range(len(explainer.means))]},
        {"agreement": seen.agreement, "stability": seen.stability, "entropy": seen.entropy},
    )  # fmt: skip
