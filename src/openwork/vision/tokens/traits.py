"""Which traits a vision transformer knows its classes by: the attention of class prompts, and the heads that matter.

In the last block, each head of the true class's prompt looks somewhere. Heads are blurred one by one (made to look
everywhere alike), each time the one whose loss hurts the class least; those that are left last look at its traits.

Source: Chowdhury et al. 2025, Prompt-CAM, section 3.4 (trait identification and localisation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import log_softmax
from torch import Tensor

from openwork.edit import Drop, Edit, Set
from openwork.errors import BadInput
from openwork.pictures import Masked
from openwork.results.claims import Claims, Standard
from openwork.results.result import Result
from openwork.site import Where
from openwork.vision.passes import encoded
from openwork.vision.tokens.own_class import own_class
from openwork.vision.tokens.prompts import Prompts

if TYPE_CHECKING:
    from openwork.network import Network

Tick = Callable[[float], None]
Blur = Callable[[slice], list[Edit]]
KIND_HEADS = "a random head of each class"
KIND_PATCHES = "as many random patches"
SHOWN = 8
"""Images whose maps are drawn."""


@dataclass(frozen=True)
class Traits:
    """How traits are looked for and tested.

    Args:
        share: of the patches that are taken away as the trait.
        batch: images that run at once.
        standard: what a claim must meet.
        seed: of the split and the controls.
    """

    share: float = 0.1
    batch: int = 64
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.batch < 1:
            raise BadInput(f"expected a share between 0 and 1 and a batch of 1 or more; got {self}")


def traits(
    net: Network,
    prompts: Prompts,
    pictures: Masked,
    method: Traits = Traits(),
    rows: Sequence[int] | None = None,
    *,
    tick: Tick = lambda share: None,
) -> Result:
    """Rank the heads of each class by greedy blurring, and test on held-out images what was found.

    Args:
        net: the network that the prompts were learned for.
        prompts: see `openwork.vision.tokens.prompts.learn_prompts`.
        pictures: images with classes that the prompts were not learned from.
        method: how.
        rows: which images; all unless given. A random half of each class is held out.
        tick: told the share that is done.

    Returns:
        a table by ``image``, ``head`` and place (``y``, ``x``): ``attention`` of the true class's prompt, ``left`` (how
        many heads were blurred before this one), ``correct``; by ``class``: ``trait`` (the head that is left last most
        often on find images), and where there are masks, by ``part``: ``lift`` (attention of the trait head within the
        part over that of equal attention everywhere, on held-out images). Two findings, both in nats
        that the image's own class loses beyond the class of another image: by blurring the trait head of its prompt,
        against random heads; and by taking away the patches that this looks at most, against as many random patches.

    Raises:
        BadInput: for prompts of another network, or no two images of a class.

    Source:
        Chowdhury et al. 2025, section 3.4.
    """
    rows = list(range(len(pictures)) if rows is None else rows)
    labels = pictures.classes(rows).long().numpy()
    held = _held_out(labels, method.seed)
    rng = np.random.default_rng(method.seed)
    stage = _Stage(net, prompts, pictures, rows, labels, _other_classes(labels, rng), method.batch)
    base, attention = stage.looks()
    correct = base.argmax(1) == labels
    tick(0.2)
    left = stage.ranks(lambda share: tick(0.2 + 0.5 * share))
    best = _trait_heads(left, labels, ~held, prompts.classes, stage.heads)
    claims = Claims(net, {"pictures": pictures.digest, "rows": rows}, _settings(method, prompts), method.seed)
    mine = np.flatnonzero(held)
    findings = [
        _heads_matter(stage, claims, best, base, mine, method, rng),
        _patches_matter(stage, claims, best, base, attention, mine, method, rng),
    ]
    tick(1.0)
    table = _table(net, stage, pictures, attention[0], left, correct, best, held)
    accuracy, n = float(correct[held].mean()), int(held.sum())
    remarks = (f"the prompts name the class of {accuracy:.1%} of {n} held-out images",)
    return Result("traits", tuple(findings), table, claims.settings, remarks)


class _Stage:
    """The images of one call, and the last block's heads."""

    def __init__(
        self, net: Network, prompts: Prompts, pictures: Masked, rows: Sequence[int], labels: np.ndarray,
        others: np.ndarray, batch: int,
    ):  # fmt: skip
        self.net, self.prompts, self.pictures = net, prompts, pictures
        self.rows, self.labels, self.others, self.batch = rows, labels, others, batch
        block = f"blocks.{net.n_blocks - 1}.attn"
        self.scores, self.pattern = f"{block}.scores", f"{block}.pattern"
        self.heads = net.parts(self.scores)
        self.grid = net.grid(f"blocks.{net.n_blocks - 1}.resid_pre")
        if prompts.patches != self.grid.prefix + self.grid.height * self.grid.width:
            raise BadInput(f"expected prompts of this network; they follow {prompts.patches} tokens")

    def logits(
        self, images: np.ndarray, blur: Blur = lambda at: [], dropped: np.ndarray | None = None
    ) -> Float[np.ndarray, "image class"]:
        """What the prompts say of some images.

        Args:
            images: which.
            blur: the edits of a batch, given which of `images` are in it; none may go with patches dropped.
            dropped: (image, count) the patches that are taken out before the first block, none unless given.
        """
        out = []
        for start in range(0, len(images), self.batch):
            at = slice(start, start + self.batch)
            gone = None if dropped is None else dropped[at] + self.grid.prefix
            edits, lost = self._prompted(gone)
            run = self.net.run(
                encoded(self.net, self.pictures.pixels([self.rows[i] for i in images[at]])),
                keep=self.prompts.readout,
                edits=[*edits, *blur(at)],
            )
            values = run[self.prompts.readout][:, self.prompts.patches - lost :].float()
            out.append((values @ self.prompts.scorer.to(values)).cpu().numpy())
        return np.concatenate(out).astype(np.float64)

    def blurred(self, head: int) -> Blur:
        """One head made to look everywhere alike, for all prompts."""
        first = self.prompts.position(0)
        where = Where(tuple(range(first, first + self.prompts.classes)))
        return lambda at: [Set(f"{self.scores}[{head}]", where, value=0.0)]

    def own_blurred(self, images: np.ndarray, heads: np.ndarray) -> Blur:
        """Some heads of each image, (image, head), made to look everywhere alike for the prompt of its class."""

        def edits(at: slice) -> list[Edit]:
            out: list[Edit] = []
            labels = self.labels[images[at]]
            for head in range(self.heads):
                for label in np.unique(labels):
                    rows = np.flatnonzero(heads[at][:, head] & (labels == label))
                    if len(rows):
                        where = Where((self.prompts.position(int(label)),), rows=rows.tolist())
                        out.append(Set(f"{self.scores}[{head}]", where, value=0.0))
            return out

        return edits

    def _prompted(self, gone: np.ndarray | None) -> tuple[list[Edit], int]:
        """The edits that bring the prompts in, with patches taken out first, and how many those are."""
        edits = self.prompts.edits()
        if gone is None:
            return edits, 0
        lost = gone.shape[1]
        shifted = [Drop(e.site, positions=e.positions.numpy() - lost) if isinstance(e, Drop) else e for e in edits]
        return [Drop("blocks.0.resid_pre", positions=gone), *shifted], lost

    def looks(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and where the prompts of the images' own class and of another look: (2, image, head, place)."""
        logits, attention = [], []
        last = self.grid.prefix + self.grid.height * self.grid.width
        for start in range(0, len(self.rows), self.batch):
            rows = self.rows[start : start + self.batch]
            images = encoded(self.net, self.pictures.pixels(rows))
            run = self.net.run(images, keep=[self.pattern, self.prompts.readout], edits=self.prompts.edits())
            logits.append(self.prompts.logits(run).float().cpu())
            at, pattern = torch.arange(len(rows)), run[self.pattern].cpu()
            asked = [torch.from_numpy(of[start : start + self.batch]) for of in (self.labels, self.others)]
            queries = torch.stack([pattern[at, :, self.prompts.patches + of] for of in asked])
            attention.append(queries[..., self.grid.prefix : last].float())
        return torch.cat(logits).numpy().astype(np.float64), torch.cat(attention, 1).numpy()

    def ranks(self, tick: Tick) -> Int[np.ndarray, "image head"]:
        """When each head is blurred: 0 for the first, the one that the class needs least."""
        n = len(self.rows)
        images, blurred = np.arange(n), np.zeros((n, self.heads), dtype=bool)
        left = np.zeros((n, self.heads), dtype=np.int64)
        for step in range(self.heads - 1):
            kept = np.full((n, self.heads), -np.inf)
            for head in range(self.heads):
                free = np.flatnonzero(~blurred[:, head])
                trial = blurred[free].copy()
                trial[:, head] = True
                if len(free):
                    said = log_softmax(self.logits(free, self.own_blurred(free, trial)), 1)
                    kept[free, head] = said[np.arange(len(free)), self.labels[free]]
            gone = kept.argmax(1)
            left[images, gone] = step
            blurred[images, gone] = True
            tick((step + 1) / (self.heads - 1))
        left[~blurred] = self.heads - 1
        return left


def _held_out(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random half of the images of each class; a single one is not held out."""
    rng = np.random.default_rng((seed, 1))
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held[rows[: len(rows) // 2]] = True
    if not held.any():
        raise BadInput(f"expected two images of some class, to find and to test; got one of each of {len(labels)}")
    return held


def _trait_heads(left: np.ndarray, labels: np.ndarray, find: np.ndarray, classes: int, heads: int) -> np.ndarray:
    """The head that is left last most often on find images; -1 of a class without images."""
    out = np.full(classes, -1)
    for label in np.unique(labels[find]):
        last = left[find & (labels == label)].argmax(1)
        out[label] = np.bincount(last, minlength=heads).argmax()
    return out


def _heads_matter(
    stage: _Stage, claims: Claims, best: np.ndarray, base: np.ndarray, held: np.ndarray, method: Traits,
    rng: np.random.Generator,
):  # fmt: skip
    labels = stage.labels[held]
    # a blurred prompt moves its own logit alone, so that all prompts are blurred at once, and controls pick of these
    costs = np.stack([base[held] - stage.logits(held, stage.blurred(head)) for head in range(stage.heads)])

    def effect(heads: np.ndarray) -> np.ndarray:
        return own_class(costs[heads, :, np.arange(len(heads))].T, labels)

    each = np.stack([effect(np.full(len(best), head)) for head in range(stage.heads)])
    criteria = method.standard.criteria(float(np.abs(each).sum(0).mean()), "nats")
    drawn = rng.integers(stage.heads, size=(criteria.controls_needed, len(best)))
    controls = np.array([effect(picked).mean() for picked in drawn])
    text = "each class is known by the head that is left last: blurring it costs the class on its own images"
    return claims.claim(text, effect(best), criteria, "held-out", controls, KIND_HEADS)


def _patches_matter(
    stage: _Stage, claims: Claims, best: np.ndarray, base: np.ndarray, attention: np.ndarray, held: np.ndarray,
    method: Traits, rng: np.random.Generator,
):  # fmt: skip
    places = attention.shape[-1]
    count = max(1, round(method.share * places))
    images, whole = np.arange(len(held)), log_softmax(base[held], 1)
    # wherever a prompt looks its class may lose, so that the class of another image is asked the same
    classes = [of[held] for of in (stage.labels, stage.others)]

    def cost(scores: Sequence[np.ndarray]) -> Float[np.ndarray, " image"]:
        gone = [np.argsort(-values, axis=1, kind="stable")[:, :count] for values in scores]
        own, other = (
            (whole - log_softmax(stage.logits(held, dropped=patches), 1))[images, of]
            for patches, of in zip(gone, classes, strict=True)
        )
        return own - other

    effects = cost([looks[held, best[of]] for looks, of in zip(attention, classes, strict=True)])
    own = whole[images, classes[0]]
    criteria = method.standard.criteria(float(np.abs(own).mean() + np.log(len(best))), "nats")
    controls = np.array(
        [cost(list(rng.random((2, len(held), places)))).mean() for _ in range(criteria.controls_needed)]
    )
    text = f"the {count} patches that the trait head of the true class looks at most carry its class"
    return claims.claim(text, effects, criteria, "held-out", controls, KIND_PATCHES)


def _other_classes(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each image the class of a random image of another class."""
    return np.array([rng.choice(labels[labels != label]) if (labels != label).any() else label for label in labels])


def _table(
    net: Network, stage: _Stage, pictures: Masked, attention: np.ndarray, left: np.ndarray, correct: np.ndarray,
    best: np.ndarray, held: np.ndarray,
):  # fmt: skip
    import xarray

    grid = stage.grid
    names = list(pictures.class_names) or [str(c) for c in range(stage.prompts.classes)]
    maps = attention.reshape(*attention.shape[:2], grid.height, grid.width)
    variables = {
        "attention": (("image", "head", "y", "x"), maps.astype(np.float32)),
        "left": (("image", "head"), left), "correct": ("image", correct), "held_out": ("image", held),
        "label": ("image", np.array(names)[stage.labels]), "trait": ("class", best),
    }  # fmt: skip
    coordinates: dict[str, list[str] | np.ndarray] = {"image": np.array(stage.rows), "class": names}
    chosen = _examples(stage.labels, held & correct)
    variables["picture"] = (
        ("shown", "row", "column", "colour"),
        pictures.pixels([stage.rows[i] for i in chosen]).permute(0, 2, 3, 1).numpy(),
    )
    coordinates["shown"] = chosen
    parts = pictures.concepts.get("part", ())
    if parts:
        variables["lift"] = (("class", "part"), _lift(stage, pictures, maps, best, held, len(parts)))
        coordinates["part"] = list(parts)
    table = xarray.Dataset(variables, coordinates)
    table.attrs.update(network=net.name, unit="share of attention", block=net.n_blocks - 1)
    return table


def _examples(labels: np.ndarray, good: np.ndarray) -> np.ndarray:
    """One image that is told right of each of the first classes, or any where none is."""
    first = [np.flatnonzero(good & (labels == label))[:1] for label in np.unique(labels)]
    found = np.concatenate(first)[:SHOWN]
    return found if len(found) else np.arange(min(SHOWN, len(labels)))


def _lift(
    stage: _Stage, pictures: Masked, maps: np.ndarray, best: np.ndarray, held: np.ndarray, parts: int
) -> Float[np.ndarray, "class part"]:
    """Attention of the trait heads within each part over that of equal attention to every patch."""
    inside, area = np.zeros((2, len(best), parts))
    for i in np.flatnonzero(held).tolist():
        label = int(stage.labels[i])
        mask: Tensor = pictures.masks([stage.rows[i]])["part"][0]
        look = maps[i, best[label]] / maps[i, best[label]].sum()
        for part in np.unique(mask[mask > 0]):
            cover = _cover(mask == int(part), *look.shape)
            inside[label, part - 1] += (look * cover).sum()
            area[label, part - 1] += cover.mean()
    return np.where(area > 0, inside / np.where(area > 0, area, 1), np.nan)


def _cover(mask: Tensor, height: int, width: int) -> np.ndarray:
    """The share of each patch that a mask of pixels covers."""
    return torch.nn.functional.adaptive_avg_pool2d(mask[None].float(), (height, width))[0].numpy()


def _settings(method: Traits, prompts: Prompts) -> dict[str, object]:
    own = {k: v for k, v in asdict(method).items() if k != "standard"}
    return {**own, "standard": asdict(method.standard), "blocks": sorted(prompts.tokens), "readout": prompts.readout}
