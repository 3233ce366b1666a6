"""Words for units: which word's similarity to images goes with what a unit responds to.

    describe(net, "module:layer3.out", pictures, MaskBank(pictures))             # masks say exactly what is there
    describe(net, "blocks.*.mlp.hidden", pictures, TextBank(words, texts, encode))  # any image and text encoder

A bank is data: words, and how similar each image is to each word. The word of a unit is chosen on find images. Whether
it describes the unit is measured on held-out ones, as the correlation of the unit's response with that similarity,
against the same procedure on shuffled images.

Source: Oikarinen and Weng 2023, CLIP-Dissect: Automatic Description of Neuron Representations in Deep Vision Networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openwork.errors import BadInput, UnknownName
from openwork.finding import Criteria
from openwork.network.measure import Tick, silent
from openwork.pictures import Masked, Pictures, Rows
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.store.files import read_arrays, write_arrays
from openwork.store.hashing import hash_json, hash_state
from openwork.vision.corpora import Split, claims_about, columns_of, grid_of
from openwork.vision.dissection.wordings import WAYS, scored
from openwork.vision.passes import maps, passes

if TYPE_CHECKING:
    from openwork.network import Network

KIND = "words chosen and measured with the images shuffled"
POOLS = ("mean", "max")
BATCH = 64


@runtime_checkable
class Bank(Protocol):
    """Words, and how similar images are to them."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words."""
        ...

    @property
    def digest(self) -> str:
        """A sha256 that changes when any similarity may."""
        ...

    def similarity(self, pictures: Pictures, rows: Rows) -> Float[np.ndarray, "image word"]:
        """Of some images to every word."""
        ...


@dataclass(frozen=True, eq=False)
class TextBank:
    """Words and images in the space of a pair of encoders.

    Args:
        words: the words.
        texts: (word, dimension) their embeddings.
        images: from bytes (image, channel, y, x) to embeddings (image, dimension): any image encoder.
        name: of the pair of encoders: part of the digest, since a function cannot be hashed.
    """

    words: tuple[str, ...]
    texts: Float[Tensor, "word dimension"]
    images: Callable[[UInt8[Tensor, "image channel y x"]], Float[Tensor, "image dimension"]]
    name: str

    def __post_init__(self) -> None:
        if len(self.words) != len(self.texts) or len(self.words) < 2 or not self.name:
            raise BadInput(
                f"expected two words or more with an embedding each, and a name; got {len(self.words)} words and "
                f"{len(self.texts)} embeddings"
            )

    @property
    def digest(self) -> str:
        """Of words, embeddings and the name."""
        return hash_json([list(self.words), hash_state({"texts": self.texts}), self.name])

    def similarity(self, pictures: Pictures, rows: Rows) -> Float[np.ndarray, "image word"]:
        """The cosine of image and text embeddings."""
        with torch.no_grad():
            seen = self.images(pictures.pixels(rows)).float().cpu()
        if seen.ndim != 2 or seen.shape[1] != self.texts.shape[1]:
            raise BadInput(f"expected image embeddings (image, {self.texts.shape[1]}); got {tuple(seen.shape)}")
        both = (torch.nn.functional.normalize(x.float(), dim=-1) for x in (seen, self.texts))
        first, second = both
        return (first @ second.T).numpy()


@dataclass(frozen=True, eq=False)
class MaskBank:
    """The concepts of a corpus with masks: an image is as similar to a concept as it shows it.

    Args:
        pictures: whose concepts.
        covered: the share of an image that makes a similarity of one; any labelled pixel does unless given.
    """

    pictures: Masked
    covered: float | None = None

    def __post_init__(self) -> None:
        if sum(map(len, self.pictures.concepts.values())) < 2:
            raise BadInput("expected pictures with masks of at least two concepts; these have none")

    @property
    def words(self) -> tuple[str, ...]:
        """Each concept with its category."""
        return tuple(f"{category} {name}" for category, names in self.pictures.concepts.items() for name in names)

    @property
    def digest(self) -> str:
        """Of the corpus's masks and the knob."""
        return hash_json(["masks", list(self.words), self.covered])

    def similarity(self, pictures: Pictures, rows: Rows) -> Float[np.ndarray, "image word"]:
        """How much of each image shows each concept, at most 1.

        Raises:
            BadInput: for pictures without masks of these concepts.
        """
        if not isinstance(pictures, Masked) or dict(pictures.concepts) != dict(self.pictures.concepts):
            raise BadInput("expected pictures with masks of the bank's concepts")
        found = []
        for category, mask in pictures.masks(rows).items():
            size = len(self.pictures.concepts[category])
            share = torch.stack([(mask == k + 1).flatten(1).float().mean(1) for k in range(size)], 1)
            found.append((share > 0).float() if self.covered is None else (share / self.covered).clamp(max=1))
        return torch.cat(found, 1).numpy()


def paired_bank(net: Network, words: Sequence[str], name: str = "") -> TextBank:
    """The bank of a network that embeds texts and images in one space, such as a CLIP opened from a folder.

    Args:
        net: whose module has ``get_text_features`` and ``get_image_features``, opened with its tokenizer.
        words: the words, or sentences.
        name: of the pair; the network's and a hash of its weights unless given.

    Raises:
        BadInput: if it embeds no texts or no images, or has no tokenizer or image format.
    """
    texts, images = (getattr(net.root, f"get_{kind}_features", None) for kind in ("text", "image"))
    if not callable(texts) or not callable(images) or net.tokenizer is None or net.images is None:
        raise BadInput(
            f"expected a network that embeds texts and images in one space, with its tokenizer and image format; "
            f"{net.name} does not. Give TextBank(words, texts, images) with encoders of your own"
        )
    read = net.images
    with torch.no_grad():
        rows = [texts(input_ids=torch.tensor([net.encode(word)], device=net.device)) for word in words]

    def embed(pixels: UInt8[Tensor, "image channel y x"]) -> Float[Tensor, "image dimension"]:
        return _features(images(pixel_values=read.encode(pixels.to(net.device, net.dtype) / 255)))

    embedded = torch.cat([_features(row).float().cpu() for row in rows])
    return TextBank(tuple(words), embedded, embed, name or f"{net.name} {hash_state(net.root.state_dict())}")


def _features(found: Any) -> Tensor:
    """Features as a tensor; some versions of the library wrap them."""
    return found if isinstance(found, Tensor) else found.pooler_output


@dataclass(frozen=True)
class Description:
    """How to describe.

    Args:
        way: ``soft-wpmi``, ``wpmi``, ``cos-cubed`` or ``rank-reorder``.
        pool: ``mean`` or ``max`` of a unit over the places of an image.
        least: the smallest correlation that matters.
        claims: how many units, the best on find images, to claim.
        standard: what a claim must meet.
        seed: of split, shuffles and intervals.
    """

    way: str = "soft-wpmi"
    pool: str = "mean"
    least: float = 0.1
    claims: int = 5
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.way not in WAYS:
            raise UnknownName.among("way to score words", self.way, WAYS)
        if self.pool not in POOLS or not 0 < self.least < 1 or self.claims < 0:
            raise BadInput(f"expected a pool of {POOLS}, 0 < least < 1 and no negative number of claims; got {self}")


def describe(
    net: Network,
    site: str | Site,
    pictures: Pictures,
    bank: Bank,
    method: Description = Description(),
    *,
    held_out: Pictures | None = None,
    cache: str | Path | None = None,
    tick: Tick = silent,
) -> Result:
    """Choose a word for every unit on find images, and test it on held-out ones.

    Args:
        net: a network that reads images.
        site: one site; an index selects some of its units.
        pictures: images.
        bank: words, and how similar images are to them.
        method: how.
        held_out: images on which nothing is chosen; a random half of `pictures` unless given.
        cache: a folder for activations and similarities, by a hash of all that they depend on.
        tick: told the share that is done.

    Returns:
        a finding for each of the best units, observed; a table with the axis ``unit``: ``word`` (its number, the
        coordinate ``best_word`` says it), ``score`` on find images, ``correlation`` on held-out ones with
        ``correlation_low`` and ``correlation_high``, ``p`` against shuffled images, ``again`` whether held-out images
        alone choose the same word; ``word_score`` (unit, word); and ``shuffled_correlation`` (unit, control).
        ``attrs["agreement"]`` is the share of units whose word is chosen again, ``attrs["shuffled_agreement"]`` that
        of shuffled images.

    Raises:
        BadInput: for a network that reads no images, or values that are not finite.
        UnknownName: for a site that does not exist.
    """
    places = net.map.resolve(site)
    if len(places) != 1:
        raise BadInput(f"expected one site; {site} selects {[str(p) for p in places]}")
    place = places[0]
    split = Split.of(pictures, held_out, method.seed)
    total = len(split.find_rows) + len(split.held_rows)
    kept = _Cache(cache, net, bank, method.pool)
    names, columns = columns_of(net, place)
    sides = []
    for number, (corpus, rows) in enumerate(((split.find, split.find_rows), (split.held, split.held_rows))):
        before = number * len(split.find_rows)
        response = kept.responses(corpus, rows, place.path, lambda n, b=before: tick(min(1.0, (b + n) / total)))
        sides.append((kept.similarity(corpus, rows), response[:, columns]))
    table, candidates = _described(names, bank.words, sides[0], sides[1], method)
    settings = {**asdict(method), "site": str(place), "pictures": pictures.name, "bank": bank.digest}
    criteria = Criteria(method.least, "correlation", method.standard.alpha, min_examples=method.standard.min_examples,
                        needs_rival=False)  # fmt: skip
    findings = claimed(claims_about(net, split, settings, method.seed), criteria, candidates, intervened=False)
    table.attrs.update(network=net.name, unit="correlation", pictures=pictures.name, site=place.path)
    return Result("description of units", findings, table, settings, tuple(split.remarks))


def correlations(
    response: Float[np.ndarray, "image unit"], similarity: Float[np.ndarray, "image unit"]
) -> Float[np.ndarray, "image unit"]:
    """What each image adds to the correlation of two columns, so that their mean is that correlation; 0 if constant."""
    scaled = []
    for values in (response, similarity):
        spread = values.std(0)
        scaled.append((values - values.mean(0)) / np.where(spread > 1e-12, spread, np.inf))
    return scaled[0] * scaled[1]


def _described(
    names: list[str], words: tuple[str, ...], find: tuple[Any, Any], held: tuple[Any, Any], method: Description
) -> tuple[Any, list[Candidate]]:
    import xarray

    score = scored(method.way, *find)
    word = score.argmax(1)
    each = correlations(held[1], held[0][:, word])
    value = each.mean(0)
    again = scored(method.way, *held).argmax(1) == word
    rng = np.random.default_rng(method.seed)
    shuffled, agreement = [], []
    for _ in range(Criteria(1.0, "", method.standard.alpha).controls_needed):
        orders = [rng.permutation(len(side[0])) for side in (find, held)]
        chance = scored(method.way, find[0][orders[0]], find[1]).argmax(1)
        other = held[0][orders[1]]
        shuffled.append(correlations(held[1], other[:, chance]).mean(0))
        agreement.append((scored(method.way, other, held[1]).argmax(1) == chance).mean())
    controls = np.stack(shuffled, 1)
    error = 1.96 * each.std(0, ddof=1) / np.sqrt(len(each))
    p = (1 + (controls >= value[:, None]).sum(1)) / (1 + controls.shape[1])
    table = xarray.Dataset(
        {
            "word": ("unit", word), "score": ("unit", score.max(1)), "correlation": ("unit", value),
            "correlation_low": ("unit", value - error), "correlation_high": ("unit", value + error), "p": ("unit", p),
            "again": ("unit", again), "word_score": (("unit", "word_of_bank"), score),
            "shuffled_correlation": (("unit", "control"), controls),
        },
        {"unit": names, "best_word": ("unit", [words[w] for w in word]), "word_of_bank": list(words)},
        {"agreement": float(again.mean()), "shuffled_agreement": float(np.mean(agreement))},
    )  # fmt: skip
    found = correlations(find[1], find[0][:, word]).mean(0)
    best = np.argsort(-found, kind="stable")[: method.claims]
    texts = [f"{names[u]} responds to what {words[word[u]]!r} describes" for u in best]
    return table, [Candidate(t, each[:, u], controls[u], KIND) for t, u in zip(texts, best, strict=True)]


class _Cache:
    """Responses and similarities, kept in a folder by a hash of everything that they depend on."""

    def __init__(self, folder: str | Path | None, net: Network, bank: Bank, pool: str):
        self.folder = None if folder is None else Path(folder)
        self.net, self.bank, self.pool = net, bank, pool
        self._weights = "" if folder is None else hash_state(net.root.state_dict())

    def _kept(self, key: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
        if self.folder is None:
            return make()
        path = self.folder / f"{hash_json(key)}.npz"
        if path.exists():
            return read_arrays(path)["values"]
        values = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_arrays(path, {"values": values})
        return values

    def similarity(self, corpus: Pictures, rows: list[int]) -> Float[np.ndarray, "image word"]:
        def make() -> np.ndarray:
            parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
            return np.concatenate([self.bank.similarity(corpus, part) for part in parts])

        return self._kept(["similarity", self.bank.digest, corpus.digest, rows], make)

    def responses(
        self, corpus: Pictures, rows: list[int], site: str, done: Callable[[int], None]
    ) -> Float[np.ndarray, "image unit"]:
        net = self.net

        def make() -> np.ndarray:
            return pooled(net, corpus, rows, site, self.pool, done)

        reads = None if net.images is None else net.images.to_json()
        return self._kept(["response", self._weights, reads, site, self.pool, corpus.digest, rows], make)


def pooled(
    net: Network, corpus: Pictures, rows: list[int], site: str, pool: str, done: Callable[[int], None] = lambda n: None
) -> Float[np.ndarray, "image unit"]:
    """Each unit's mean or largest activation in each image; what it is, at a site without places."""
    axes, parts, count = net.map.info(site).axes, [], 0
    grid = grid_of(net, site, corpus) if {"position", "y"} & set(axes) else None
    for one in passes(net, corpus, [site], rows=rows):
        value = one.values[site].float()
        found = (value.flatten(1)[..., None] if grid is None else maps(value, axes, grid)).flatten(2)
        parts.append((found.mean(2) if pool == "mean" else found.amax(2)).cpu().double().numpy())
        count += len(one.rows)
        done(count)
    return np.concatenate(parts)
