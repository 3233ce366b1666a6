"""A representation in two dimensions, coloured by label: PCA with its explained variance, or UMAP.

    project(net, texts, "blocks.2.resid_post", labels)
    project(net, texts, "blocks.2.resid_post", labels, method=Projection("umap"))

A picture persuades more than it proves, so it comes with a number: how well the labels of held-out texts are told by
the places of find texts in the same picture, beside shuffled labels.

Source: Pearson 1901 (PCA); McInnes, Healy and Melville 2018 (UMAP), by `umap-learn`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.errors import BadInput
from openwork.finding import Criteria
from openwork.geometry.observed import Observations, Seen
from openwork.geometry.samples import Material, Places, Samples, Sampling
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network

HOWS = ("pca", "umap")
Labels = Sequence[str] | Sequence[Sequence[str]]
Placed = tuple[Float[np.ndarray, "sample axis"], Float[np.ndarray, " axis"] | None]


@dataclass(frozen=True)
class Projection:
    """How to draw.

    Args:
        how: ``pca`` or ``umap``; both are fitted on find texts, and held-out ones are placed among them.
        neighbours: of UMAP: how many neighbours a place is to keep.
        spread: of UMAP: the least distance between places (its ``min_dist``).
        sampling: which places are looked at.
        standard: what a claim must meet.
        seed: of UMAP, controls and intervals.
    """

    how: str = "pca"
    neighbours: int = 15
    spread: float = 0.1
    sampling: Sampling = field(default_factory=Sampling)
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.how not in HOWS or self.neighbours < 2 or not 0 <= self.spread <= 1:
            raise BadInput(f"expected how of {HOWS}, 2 neighbours or more, spread from 0 to 1; got {self}")


def project(
    net: Network, material: Material, site: str | Site, labels: Labels, method: Projection = Projection()
) -> Result:
    """Draw one site in two dimensions.

    Args:
        net: the network.
        material: texts, rows of token ids, or tensors; half of them are held out.
        site: one site.
        labels: of each text, or of each token of each text.
        method: how.

    Returns:
        a table with ``place`` (sample, axis), ``label``, ``held_out`` and ``text`` of each sample and, for PCA,
        ``explained``, the share of the variance of find texts by axis. The finding: how much better than chance the
        nearest centre of find texts tells the label of held-out places, rare labels weighing as much as common ones;
        each example is a text, the controls have shuffled labels.

    Raises:
        BadInput: labels that do not fit the texts, fewer than two kinds of them, several sites, values that do not
            vary, NaN, or ``umap`` where umap-learn is not installed.
        UnknownName: for a site that does not exist.

    Units:
        ``place``: those of the site for PCA, none for UMAP.

    Source:
        Pearson 1901; McInnes, Healy and Melville 2018.
    """
    names = net.select(site)
    if len(names) != 1:
        raise BadInput(f"expected one site; {site} selects {len(names)}: draw one at a time")
    places = Places.of([net], material, method.sampling, [names])
    samples = places.read(net, names[0])
    kinds = _labels(labels, places, samples)
    held = samples.held
    matrix = samples.matrix(names[0]).double().numpy()
    if not matrix[~held].std(0).any():
        raise BadInput(f"expected values that vary at {names[0]}; they are the same at all places")
    placed, explained = METHODS[method.how](matrix, held, method)
    seen = _told(placed, kinds, samples, method, f"{method.how.upper()} of {names[0]} of {net.name}")
    settings = {**asdict(method), "site": names[0]}
    standard = method.standard
    criteria = Criteria(
        standard.min_share,
        "balanced accuracy above chance",
        standard.alpha,
        min_examples=standard.min_examples,
        needs_rival=False,
    )
    finding = Observations([net], places, settings, method.seed).claim(seen, criteria)
    import xarray

    variables: dict[str, Any] = {
        "place": (("sample", "axis"), placed), "label": ("sample", kinds), "held_out": ("sample", held),
        "text": ("sample", samples.text),
    }  # fmt: skip
    if explained is not None:
        variables["explained"] = ("axis", explained)
    table = xarray.Dataset(variables, attrs={"network": net.name, "site": names[0], "how": method.how})
    return Result(f"{method.how} picture", (finding,), table, settings)


def _pca(matrix: np.ndarray, held: np.ndarray, method: Projection) -> Placed:
    from sklearn.decomposition import PCA

    if min(matrix.shape[1], (~held).sum()) < 2:
        raise BadInput(f"expected two dimensions and two find places or more to draw; got {matrix.shape}")
    fitted: Any = PCA(2, svd_solver="full").fit(matrix[~held])
    # the sign of a direction is arbitrary: the largest weight is positive, whatever the library's version
    signs = np.sign(fitted.components_[np.arange(2), np.abs(fitted.components_).argmax(1)])
    return fitted.transform(matrix) * signs, np.asarray(fitted.explained_variance_ratio_)


def _umap(matrix: np.ndarray, held: np.ndarray, method: Projection) -> Placed:
    try:
        import umap
    except ImportError as error:
        raise BadInput("UMAP needs umap-learn, which is not installed: pip install 'openwork[umap]'") from error
    if (~held).sum() <= method.neighbours:
        raise BadInput(f"expected more find places than {method.neighbours} neighbours; got {int((~held).sum())}")
    fitted = umap.UMAP(
        n_neighbors=method.neighbours, min_dist=method.spread, random_state=method.seed, n_jobs=1
    )  # fmt: skip
    out = np.empty((len(matrix), 2))
    out[~held] = fitted.fit_transform(matrix[~held])
    out[held] = fitted.transform(matrix[held])
    return out, None


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, Projection], Placed]] = {"pca": _pca, "umap": _umap}


def _labels(labels: Labels, places: Places, samples: Samples) -> np.ndarray:
    """The label of each sample."""
    if len(labels) != len(places.material):
        raise BadInput(f"expected labels of each of {len(places.material)} texts; got {len(labels)}")
    if all(isinstance(label, str) for label in labels):
        found = [str(labels[text]) for text in samples.text]
    elif places.positions:
        found = []
        for text, at in enumerate(places.positions[0]):
            own = labels[text]
            if isinstance(own, str) or (at and max(at) >= len(own)):
                raise BadInput(f"expected a label of every token of text {text}, which has {max(at) + 1} or more")
            found += [str(own[i]) for i in at]
    else:
        raise BadInput("expected one label for each example, since tensors and images have no tokens")
    kinds = np.array(found)
    for name, part in (("find", ~samples.held), ("held-out", samples.held)):
        if len(np.unique(kinds[part])) < 2:
            raise BadInput(f"expected two kinds of labels or more among {name} places; got {sorted({*kinds[part]})}")
    return kinds


def _told(placed: np.ndarray, kinds: np.ndarray, samples: Samples, method: Projection, what: str) -> Seen:
    """How well centres of find places tell held-out labels above chance, with labels that all weigh the same."""
    held = samples.held
    text = samples.text[held]
    texts = np.unique(text)

    def accuracy(labels: np.ndarray) -> np.ndarray:
        names = np.unique(labels[~held])
        centres = np.stack([placed[~held & (labels == name)].mean(0) for name in names])
        near = names[((placed[held][:, None] - centres[None]) ** 2).sum(-1).argmin(1)]
        there, index, counts = np.unique(labels[held], return_inverse=True, return_counts=True)
        # the mean over places of right times this weight is the mean over labels of the share that is right
        weight = len(index) / (len(there) * counts[index])
        right = weight * (near == labels[held])
        return np.array([right[text == t].mean() for t in texts]) - 1 / len(there)

    rng = np.random.default_rng((method.seed, 6))
    by_text = all(len({*kinds[samples.text == t]}) == 1 for t in np.unique(samples.text))
    controls = []
    for _ in range(Criteria(1.0, "", method.standard.alpha).controls_needed):
        # labels of texts are exchanged whole, so that what is the same within a text counts once
        drawn = _exchanged(kinds, samples, rng) if by_text else _permuted(kinds, held, rng)
        controls.append(float(accuracy(drawn).mean()))
    kind = "labels shuffled among texts" if by_text else "labels shuffled among places"
    return Seen(f"{what} tells the labels of places", accuracy(kinds), np.array(controls), kind)


def _permuted(kinds: np.ndarray, held: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = kinds.copy()
    for part in (held, ~held):
        out[part] = rng.permutation(kinds[part])
    return out


def _exchanged(kinds: np.ndarray, samples: Samples, rng: np.random.Generator) -> np.ndarray:
    out = kinds.copy()
    for part in (samples.held, ~samples.held):
        texts = np.unique(samples.text[part])
        of = {t: kinds[samples.text == t][0] for t in texts}
        for t, label in zip(texts, rng.permutation([of[t] for t in texts]), strict=True):
            out[samples.text == t] = label
    return out
