"""Representations of the same places of the same texts in one network or several, split by text into find and held-out.

    places = Places.of([net, other], texts, Sampling())
    mine, theirs = places.read(net, "blocks.*.resid_post"), places.read(other, "blocks.*.resid_post", 1)

Two networks that cut texts into different tokens are compared at the last tokens of words: there both have read the
same characters. Networks that see are compared at the same points of the same images, whatever the grids of their maps;
what is said of a text is meant of an image then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from openwork.errors import BadInput
from openwork.geometry.views import Patterns, Points, Views, grids, laid_out, points, positions, views_of
from openwork.metrics.checks import require_finite
from openwork.network.image_format import needs_images
from openwork.pictures import ImageFormat, Pictures
from openwork.site import Site
from openwork.store.hashing import hash_json, hash_state
from openwork.task import Inputs, Split, Tensors

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

Material = Sequence[str] | Inputs | Tensors | Pictures | Views
"""What networks read: texts, rows of token ids, tensors, or images; `Views` where they read these at other sizes."""
FEWEST = 4
"""Texts below this number cannot be split and resampled."""


@dataclass(frozen=True)
class Sampling:
    """Which places of the texts are looked at.

    Args:
        tokens: at most so many places of each text, chosen at random; of an image, as many as the coarsest map has.
        skip: tokens at the start of each text to leave out: the first often carries a state of its own, many times as
            large as all others, that would decide every similarity.
        longest: tokens of a text beyond this, or beyond what a network reads, are not read.
        batch: texts that run at once.
        seed: of the choice of places and of the split.
        pooled: of images: compare the mean over all places of each image, and not places. So it is anyway where a site
            that is compared has no places, such as the logits.

    Raises:
        BadInput: a knob outside its range.
    """

    tokens: int = 32
    skip: int = 1
    longest: int = 128
    batch: int = 16
    seed: int = 0
    pooled: bool = False

    def __post_init__(self) -> None:
        if min(self.tokens, self.batch, self.longest - self.skip) < 1 or self.skip < 0:
            raise BadInput(f"expected tokens and batch of at least 1 and skip from 0 below longest; got {self}")


@dataclass(frozen=True, eq=False)
class Samples:
    """Representations at some sites; row i of each is the same place of the same text.

    Args:
        values: site -> (sample, ...), float32 on the CPU; the further axes are those of the site.
        text: the text that each sample comes from.
        held: whether that text is held out.
    """

    values: dict[str, Tensor]
    text: Int[np.ndarray, " sample"]
    held: Bool[np.ndarray, " sample"]

    def __len__(self) -> int:
        return len(self.text)

    @property
    def sites(self) -> list[str]:
        """The sites, in order of the network."""
        return list(self.values)

    def split(self, split: Split) -> Samples:
        """Those of one split."""
        return self.take(np.flatnonzero(self.held == (split == "held-out")))

    def take(self, rows: Sequence[int] | np.ndarray) -> Samples:
        """Some samples, in the order given."""
        at = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return Samples({site: value[at] for site, value in self.values.items()}, self.text[rows], self.held[rows])

    def matrix(self, site: str) -> Tensor:
        """One site as (sample, channel); heads and positions in space are laid side by side."""
        return self.values[site].flatten(1)

    def groups(self, most: int) -> list[np.ndarray]:
        """The rows of whole texts in at most so many groups of about equal size, for intervals."""
        texts = np.unique(self.text)
        return [np.flatnonzero(np.isin(self.text, part)) for part in np.array_split(texts, min(most, len(texts)))]


@dataclass(frozen=True, eq=False)
class Places:
    """The places at which networks are compared, and which texts are held out.

    Args:
        rows: of each network: the token ids of each text; None for tensors.
        positions: of each network: the chosen positions of each text.
        material: what is read, as it was given.
        held: the texts that are held out.
        by_word: whether tokens differ, so that the places are ends of words.
        sampling: what chose them.
        points: of images: the chosen points; None where each image is one place, or the material is something else.
        formats: of images: what each network wants of them.
    """

    rows: tuple[tuple[tuple[int, ...], ...], ...] | None
    positions: tuple[tuple[tuple[int, ...], ...], ...]
    material: Material
    held: frozenset[int]
    by_word: bool
    sampling: Sampling
    points: Points | None = None
    formats: tuple[ImageFormat, ...] = ()

    @classmethod
    def of(
        cls, nets: Sequence[Network], material: Material, sampling: Sampling = Sampling(),
        sites: Sequence[Patterns] = (),
    ) -> Places:  # fmt: skip
        """Choose them.

        Args:
            nets: the networks that are to be compared.
            material: what they read.
            sampling: how to choose.
            sites: of images: the sites or patterns that will be read in each network.

        Raises:
            BadInput: too few texts, none with a place to look at, token ids for networks of different vocabularies, or
                different tokens without a tokenizer that tells which characters each stands for; images for a network
                that reads none, or of which it is not said which sites will be read.
            UnknownName: of images, for a site that does not exist.
        """
        if isinstance(material, str) or len(material) < FEWEST:
            raise BadInput(f"expected at least {FEWEST} texts, half of them held out; got {_counted(material)}")
        order = np.random.default_rng((sampling.seed, 7)).permutation(len(material))
        held = frozenset(order[: len(material) // 2].tolist())
        views = views_of(material, nets)
        if views is not None:
            chosen = _pointed(nets, views, sampling, sites)
            return cls(None, (), views, held, False, sampling, chosen, tuple(needs_images(net) for net in nets))
        if sampling.pooled:
            raise BadInput("expected images to take the mean over all places of each; texts are compared by token")
        if isinstance(material, Tensors):
            return cls(None, (), material, held, False, sampling)
        by_word = False
        longest = min(sampling.longest, *(net.preparer.longest or sampling.longest for net in nets))
        if isinstance(material, Inputs):
            _require_one_vocabulary(nets)
            rows = tuple(tuple(row[:longest] for row in material.ids) for _ in nets)
            free = [[tuple(range(len(row))) for row in own] for own in rows]
        else:
            texts = cast("Sequence[str]", material)
            ids = [[tuple(net.encode(text)) for text in texts] for net in nets]
            by_word = any(own != ids[0] for own in ids)
            rows = tuple(tuple(row[:longest] for row in own) for own in ids)
            everywhere = [[tuple(range(len(row))) for row in own] for own in rows]
            free = _words(nets, texts, rows) if by_word else everywhere
        return cls(rows, _chosen(free, sampling), material, held, by_word, sampling)

    @property
    def hash(self) -> str:
        """sha256 of what is read and where."""
        if isinstance(self.material, Views):
            at = None if self.points is None else self.points.tolist()
            return hash_json([self.material.digests, at, sorted(self.held)])
        if isinstance(self.material, Tensors):
            return hash_json([hash_state(dict(self.material.values)), sorted(self.held), self.sampling.seed])
        return hash_json([self.rows, self.positions, sorted(self.held)])

    @property
    def kind(self) -> str:
        """What a place is, in words."""
        if self.formats:
            return "images" if self.points is None else "points of images"
        return "last tokens of words" if self.by_word else "tokens"

    @property
    def shifted(self) -> str:
        """What a pairing that means nothing pairs, in words."""
        if self.formats and self.points is None:
            return "pairings of different images"
        return f"pairings of places of different {'images' if self.formats else 'texts'}"

    def texts(self, split: Split) -> list[int]:
        """The numbers of the texts of one split."""
        return [i for i in range(len(self.material)) if (i in self.held) == (split == "held-out")]

    def lie(self, net: Network, sites: Patterns, number: int = 0) -> Mapping[str, Grid | None]:
        """Of images: site -> its places in them, or None where it has none; of everything else nothing."""
        return grids(net, sites, self.material.size(number)) if isinstance(self.material, Views) else {}

    def inputs(
        self, texts: Sequence[int], number: int = 0, dtype: torch.dtype = torch.float32
    ) -> Inputs | Tensors | Tensor:
        """Some texts as a network reads them; images in this dtype."""
        if isinstance(self.material, Views):
            return self.material.encoded(self.formats[number], texts, number).to(dtype)
        if self.rows is None:
            assert isinstance(self.material, Tensors)
            return self.material.take(texts)
        return Inputs(tuple(self.rows[number][i] for i in texts))

    def read(self, net: Network, sites: str | Site | Iterable[str | Site], number: int = 0) -> Samples:
        """Run a network over all texts and keep what it has at the places.

        Args:
            net: the network.
            sites: sites or patterns whose values have an axis for examples first.
            number: which of the networks it is that the places were made for.

        Raises:
            UnknownName: for a site that does not exist.
            BadInput: for a site whose values do not belong to places of the text, or NaN or infinity.
        """
        patterns = [sites] if isinstance(sites, str | Site) else list(sites)
        names = list(dict.fromkeys(name for pattern in patterns for name in net.select(pattern)))
        if not names:
            raise BadInput("expected at least one site")
        # which of a module's site and a certified one is computed last, their names do not say
        last = max(names, key=net.map.order) if len({name in net.sites for name in names}) == 1 else None
        lying = self.lie(net, names, number)
        kept: dict[str, list[Tensor]] = {name: [] for name in names}
        owner: dict[str, list[int]] = {name: [] for name in names}
        for start in range(0, len(self.material), self.sampling.batch):
            texts = range(start, min(start + self.sampling.batch, len(self.material)))
            with torch.no_grad():
                run = net.run(self.inputs(list(texts), number, net.dtype), keep=names, until=last)
            for name in names:
                found = self._seen(run, name, texts, lying[name]) if lying else self._at(run, name, texts, number)
                for text, value in zip(texts, found, strict=True):
                    kept[name].append(value)
                    owner[name] += [text] * len(value)
        first = names[0]
        if any(owner[name] != owner[first] for name in names):
            raise BadInput(f"expected sites with values at the same places; {names} differ: compare them one at a time")
        values = {name: torch.cat(parts) for name, parts in kept.items()}
        for name, value in values.items():
            require_finite(value, f"{net.name}, {name}")
        text = np.array(owner[first])
        return Samples(values, text, np.isin(text, sorted(self.held)))

    def _at(self, run: Any, name: str, texts: Sequence[int], number: int) -> list[Tensor]:
        """The values of one batch at the places of each text: (place, ...) each."""
        axes = _axes(run, name)
        if axes[1:2] != ("position",):
            if self.rows is not None:
                raise BadInput(f"expected a site with values at each position; {name} has axes {axes}")
            return [row[None].detach().float().cpu() for row in run[name]]
        rows = [row.detach().float().cpu() for row in run.rows(name)]
        if self.positions:
            places = [self.positions[number][text] for text in texts]
        else:
            draws = [np.random.default_rng((self.sampling.seed, text)) for text in texts]
            places = [
                tuple(sorted(rng.permutation(len(row))[: self.sampling.tokens].tolist()))
                for rng, row in zip(draws, rows, strict=True)
            ]
        return [row[list(at)] for row, at in zip(rows, places, strict=True)]

    def _seen(self, run: Any, name: str, images: Sequence[int], grid: Grid | None) -> list[Tensor]:
        """The values of one batch at the points of each image, or their mean over all places: (place, ...) each."""
        value = laid_out(run[name].detach(), _axes(run, name))
        if self.points is None:
            first = 0 if grid is None else grid.prefix
            count = value.shape[1] if grid is None else len(grid)
            return list(value[:, first : first + count].float().mean(1, keepdim=True).cpu())
        if grid is None:
            raise BadInput(
                f"expected sites with places in the image, as these places were chosen for; {name} has none: compare "
                "the mean over each image (pooled=True)"
            )
        at = torch.as_tensor(positions(grid, self.points[list(images)]), device=value.device)
        return [row[own].float().cpu() for row, own in zip(value, at, strict=True)]


def _axes(run: Any, name: str) -> tuple[str, ...]:
    axes = run.axes(name)
    if axes[:1] != ("batch",) or {"query", "key"} & {*axes}:
        raise BadInput(f"expected a site with values of each example, such as resid_post; {name} has axes {axes}")
    return axes


def _pointed(nets: Sequence[Network], views: Views, sampling: Sampling, sites: Sequence[Patterns]) -> Points | None:
    """Points of each image, or None where images are compared as a whole."""
    if len(sites) != len(nets):
        raise BadInput(f"expected the sites that will be read in each of {len(nets)} networks; got {len(sites)}")
    lying = [
        grid
        for number, (net, patterns) in enumerate(zip(nets, sites, strict=True))
        for grid in grids(net, patterns, views.size(number)).values()
    ]
    placed = [grid for grid in lying if grid is not None]
    if sampling.pooled or len(placed) < len(lying):
        return None
    return points(placed, len(views), sampling.tokens, sampling.seed)


def _counted(material: Any) -> str:
    return "one text as a string: give a list" if isinstance(material, str) else f"{len(material)}"


def _chosen(free: list[list[tuple[int, ...]]], sampling: Sampling) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """At most `tokens` of the places of each text, the same ones for every network."""
    chosen: list[list[tuple[int, ...]]] = [[] for _ in free]
    for text in range(len(free[0])):
        count = len(free[0][text])
        # a place that any of the networks has among its first tokens is left out for all
        open_to = [i for i in range(count) if all(own[text][i] >= sampling.skip for own in free)]
        rng = np.random.default_rng((sampling.seed, text))
        picked = sorted(rng.permutation(open_to)[: sampling.tokens].tolist()) if open_to else []
        for own, out in zip(free, chosen, strict=True):
            out.append(tuple(own[text][int(i)] for i in picked))
    if not any(chosen[0]):
        raise BadInput(
            f"expected texts with places beyond the first {sampling.skip} tokens; got none: give longer texts"
        )
    return tuple(map(tuple, chosen))


def _require_one_vocabulary(nets: Sequence[Network]) -> None:
    """Raise `BadInput` where the same token ids mean different things to the networks."""
    words = [net.tokenizer.get_vocab() if net.tokenizer is not None else net.vocabulary for net in nets]
    for net, other in zip(nets[1:], words[1:], strict=True):
        if other != words[0]:
            raise BadInput(
                f"expected networks that read the same tokens; {nets[0].name} and {net.name} have different "
                "vocabularies: give texts, which are then compared word by word"
            )


def _words(
    nets: Sequence[Network], texts: Sequence[str], rows: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[tuple[int, ...]]]:
    """For each network and text: the last token of each word that ends with a token in all networks."""
    out: list[list[tuple[int, ...]]] = [[] for _ in nets]
    for number, text in enumerate(texts):
        ends = [match.end() for match in re.finditer(r"\S+", text)]
        last = []
        for net, own in zip(nets, rows, strict=True):
            if net.tokenizer is None or not getattr(net.tokenizer, "is_fast", False):
                raise BadInput(
                    f"{net.name} cuts the texts into other tokens, and its tokenizer does not tell which characters "
                    "they stand for: open it with a fast tokenizer, or compare networks with the same one"
                )
            spans = net.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
            last.append({stop: i for i, (start, stop) in enumerate(spans[: len(own[number])]) if stop > start})
        shared = [end for end in ends if all(end in own for own in last)]
        for own, found in zip(out, last, strict=True):
            own.append(tuple(found[end] for end in shared))
    return out
