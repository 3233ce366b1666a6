"""Registers: patch tokens of outlying norm, which a vision transformer keeps for itself where the image says little.

    registers(net, Shapes(split="held-out", count=500))

Source: Darcet et al. 2024, Vision transformers need registers, section 2 (norms, redundant patches, local and global
information). The threshold here is a robust one for each block, not read off a histogram by eye; and what the tokens
are worth is tested by writing over them.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openwork.edit import Custom
from openwork.errors import BadInput
from openwork.network.measure import Tick, silent
from openwork.pictures import Pictures
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.vision.corpora import Split, claims_about
from openwork.vision.passes import encoded, passes

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.grid import Grid

RANDOM = "as many random patches of the same images"
TO_SD = 1.4826
"""The median absolute deviation of a normal distribution times this is its standard deviation."""


@dataclass(frozen=True)
class Registers:
    """How registers are looked for.

    Args:
        deviations: a token stands out if its norm lies so many robust standard deviations above the block's median.
        rare: a block has registers if some, and at most this share, of its tokens stand out.
        batch: images that run at once.
        standard: what the claim must meet: `min_share` is of the entropy of the network's answers.
        seed: of the split and the controls.
    """

    deviations: float = 6.0
    rare: float = 0.1
    batch: int = 64
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.deviations > 0 and 0 < self.rare < 1) or self.batch < 1:
            raise BadInput(f"expected deviations above 0, a share below 1 and a batch of 1 or more; got {self}")


def registers(
    net: Network,
    pictures: Pictures,
    method: Registers = Registers(),
    *,
    held_out: Pictures | None = None,
    tick: Tick = silent,
) -> Result:
    """Look for tokens of outlying norm, say what they hold, and test what they are worth.

    Args:
        net: a vision transformer.
        pictures: images.
        method: how.
        held_out: images that the claim is tested on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a table by ``block``, on held-out images: ``threshold`` (from find images) and ``median`` of norms, ``share`` of
        the patches that stand out, ``likeness`` of standing-out patches to their neighbours in the image and
        ``ordinary_likeness`` of the others; ``outliers`` by ``block``, ``y``, ``x``: how often each place stands out.
        If blocks have registers, the finding is about the first that has some in as many images as a claim needs:
        writing the mean of ordinary tokens over them changes the answer more than the same done to random patches.
        Without registers there is no finding.

    Raises:
        BadInput: for a network without blocks of patch tokens.

    Units:
        norms: of the stream; likeness: cosine; effect: nats of divergence.

    Source:
        Darcet et al. 2024, section 2.2.
    """
    sites = [s for s in net.sites if re.fullmatch(r"blocks\.\d+\.resid_post", s)]
    if not sites or net.sites[sites[0]].axes != ("batch", "position", "channel"):
        raise BadInput(f"expected a vision transformer with blocks of patch tokens; {net.name} has none")
    grid = net.grid(sites[0])
    split = Split.of(pictures, held_out, method.seed)
    found, _ = _norms(net, grid, sites, split.find, split.find_rows, method.batch, lambda s: tick(0.3 * s))
    flat = found.reshape(len(sites), -1)
    medians = np.median(flat, 1)
    spread = TO_SD * np.median(np.abs(flat - medians[:, None]), 1)
    thresholds = medians + method.deviations * np.maximum(spread, 1e-6 * medians)
    held, alike = _norms(net, grid, sites, split.held, split.held_rows, method.batch, lambda s: tick(0.3 + 0.3 * s))
    out = held > thresholds[:, None, None]
    settings = {**asdict(method), "sites": sites}
    claims = claims_about(net, split, settings, method.seed)
    share = (flat > thresholds[:, None]).mean(1)
    block = _first(share, (found > thresholds[:, None, None]).any(2).sum(1), method)
    findings: list[Any] = []
    remarks = list(split.remarks)
    if block is None or not out[block].any():
        remarks.append(f"no block has tokens {method.deviations:g} deviations above its median in at most "
                       f"{method.rare:.0%} of places: no registers")  # fmt: skip
    else:
        stage = _Stage(net, grid, sites[block], split, method, out[block])
        text = f"tokens of outlying norm behind block {block} carry what the answer needs"
        findings.append(stage.claim(claims, text, lambda s: tick(0.6 + 0.4 * s)))
        remarks.append(f"{share[block]:.2%} of the patches stand out behind block {block}")
    tick(1.0)
    table = _table(net, grid, out, alike, thresholds, medians)
    return Result("registers", tuple(findings), table, settings, tuple(remarks))


def _first(share: np.ndarray, images: np.ndarray, method: Registers) -> int | None:
    """The first block with registers in as many images as a claim needs, or else that with the most such images."""
    some = [b for b, s in enumerate(share) if 0 < s <= method.rare]
    enough = [b for b in some if images[b] >= method.standard.min_examples]
    return enough[0] if enough else max(some, key=lambda b: images[b], default=None)


def _norms(
    net: Network, grid: Grid, sites: list[str], pictures: Pictures, rows: list[int], batch: int, tick: Tick
) -> tuple[Float[np.ndarray, "block image patch"], Float[np.ndarray, "image patch"]]:
    """Norms of the patch tokens behind every block, and how alike each patch of pixels is to its neighbours."""
    norms, alike, done = [], [], 0
    for one in passes(net, pictures, sites, batch=batch, rows=rows):
        norms.append(torch.stack([one.values[s][:, grid.prefix :].float().norm(dim=-1).cpu() for s in sites]))
        alike.append(neighbourly(one.pixels.float().cpu(), grid))
        done += len(one.rows)
        tick(done / len(rows))
    return torch.cat(norms, 1).numpy(), torch.cat(alike).numpy()


def neighbourly(pixels: Float[Tensor, "image channel y x"], grid: Grid) -> Float[Tensor, "image patch"]:
    """The mean cosine between the centred pixels of each patch and those of the patches beside, above and below it.

    Source:
        Darcet et al. 2024, figure 5a, of pixels here, since a network's embeddings also hold the position.
    """
    height, width = pixels.shape[2] // grid.height, pixels.shape[3] // grid.width
    patches = pixels.unfold(2, height, height).unfold(3, width, width)[:, :, : grid.height, : grid.width]
    vectors = patches.permute(0, 2, 3, 1, 4, 5).flatten(3)
    vectors = torch.nn.functional.normalize(vectors - pixels.mean((1, 2, 3))[:, None, None, None], dim=-1)
    total, count = torch.zeros(2, *vectors.shape[:3])
    for axis in (1, 2):
        size = vectors.shape[axis] - 1
        if not size:
            continue
        cosine = (vectors.narrow(axis, 0, size) * vectors.narrow(axis, 1, size)).sum(-1)
        for start in (0, 1):
            total.narrow(axis, start, size).add_(cosine)
            count.narrow(axis, start, size).add_(1)
    return (total / count.clamp_min(1)).flatten(1)


@dataclass(eq=False)
class _Stage:
    """The held-out images in which a token stands out behind one block."""

    net: Network
    grid: Grid
    site: str
    split: Split
    method: Registers
    out: Bool[np.ndarray, "image patch"]

    def __post_init__(self) -> None:
        self.images = np.flatnonzero(self.out.any(1))
        self.base = self._answers(None)

    def _answers(self, over: Bool[np.ndarray, "image patch"] | None) -> Float[Tensor, "standing class"]:
        """Log-probabilities, with the mean of an image's ordinary tokens written over some."""
        answers = []
        for start in range(0, len(self.images), self.method.batch):
            at = self.images[start : start + self.method.batch]
            inputs = encoded(self.net, self.split.held.pixels([self.split.held_rows[i] for i in at]))
            edits = [] if over is None else [Custom(self.site, fn=self._written(at, over[at]))]
            answers.append(self.net.run(inputs, edits=edits).logits.double().log_softmax(-1).cpu())
        return torch.cat(answers)

    def _written(self, at: np.ndarray, over: np.ndarray):
        ordinary, chosen = (torch.from_numpy(x) for x in (~self.out[at], over))
        prefix = self.grid.prefix

        def write(value: Tensor) -> Tensor:
            keep = ordinary.to(value.device)[..., None]
            patches = value[:, prefix:]
            mean = (patches * keep).sum(1, keepdim=True) / keep.sum(1, keepdim=True).clamp_min(1)
            new = torch.where(chosen.to(value.device)[..., None], mean.to(value.dtype), patches)
            return torch.cat((value[:, :prefix], new), 1)

        return write

    def _divergence(self, over: np.ndarray) -> Float[np.ndarray, " standing"]:
        """How far the answers go from those of the images as they are: KL(as they are || written over)."""
        other = self._answers(over)
        return (self.base.exp() * (self.base - other)).sum(-1).numpy()

    def claim(self, claims: Any, text: str, tick: Tick) -> Any:
        """That what stands out is worth more than as many random patches."""
        effects = self._divergence(self.out)
        entropy = float(-(self.base.exp() * self.base).sum(-1).mean())
        criteria = self.method.standard.criteria(entropy, "nats")
        rng = np.random.default_rng((self.method.seed, 3))
        controls = []
        for number in range(criteria.controls_needed):
            over = np.zeros_like(self.out)
            for image in self.images:
                free = np.flatnonzero(~self.out[image])
                count = min(int(self.out[image].sum()), len(free))
                over[image, rng.choice(free, count, replace=False)] = True
            controls.append(float(self._divergence(over).mean()))
            tick((number + 1) / criteria.controls_needed)
        return claims.claim(text, effects, criteria, "held-out", np.array(controls), RANDOM)


def _table(
    net: Network, grid: Grid, out: np.ndarray, alike: np.ndarray, thresholds: np.ndarray, medians: np.ndarray
) -> Any:
    import xarray

    def among(chosen: np.ndarray) -> list[float]:
        return [float(alike[c].mean()) if c.any() else np.nan for c in chosen]

    variables = {
        "threshold": ("block", thresholds), "median": ("block", medians), "share": ("block", out.mean((1, 2))),
        "likeness": ("block", among(out)), "ordinary_likeness": ("block", among(~out)),
        "outliers": (("block", "y", "x"), out.mean(1).reshape(-1, grid.height, grid.width)),
    }  # fmt: skip
    table = xarray.Dataset(variables)
    table.attrs.update(network=net.name, unit="share of images", n=out.shape[1])
    return table
