"""Class prompts of a vision transformer: one learned token a class, whose attention shows what it knows the class by.

The backbone stays frozen. Each class has a token of its own that comes in behind the patches, and one scorer, shared by
all classes, reads the logit of a class off the token's last state. So the true class's token must look at what tells
its class from the others.

    prompts = learn_prompts(net, pictures, ClassPrompts())
    traits(net, prompts, pictures)              # openwork.vision.tokens.traits

Source: Chowdhury et al. 2025, Prompt-CAM, section 3 (shallow: prompts at the input; deep: fresh ones at every block).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from openwork.edit import Drop, Edit, Insert
from openwork.errors import BadInput, Diverged
from openwork.pictures import Masked, Pictures
from openwork.vision.passes import encoded

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.run import Run

Tick = Callable[[float], None]
SPARE = 32
"""How many more prompts than classes are drawn to begin with."""
BEGUN_ON = 256
"""Images on which it is seen which prompts the classes move."""
TO_SD = 1.4826
"""The median absolute deviation of a normal distribution times this is its standard deviation."""


@dataclass(frozen=True)
class ClassPrompts:
    """How class prompts are learned.

    Args:
        deep: fresh prompts at every block, of which the last ones are read, rather than at the input alone.
        steps: of AdamW, with a cosine schedule.
        batch: images of a step.
        rate: of learning.
        seed: of the first prompts and of the order of images.
    """

    deep: bool = True
    steps: int = 300
    batch: int = 32
    rate: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or not self.rate > 0:
            raise BadInput(f"expected a step, an image and a rate above 0; got {self}")


@dataclass(frozen=True, eq=False)
class Prompts:
    """Learned class prompts of one network.

    Args:
        tokens: block -> (class, channel), what comes in before it.
        scorer: (channel,) what reads a class's logit off the last state of its prompt.
        patches: how many tokens the network has without them.
        readout: the site that the scorer reads.
    """

    tokens: dict[int, Float[Tensor, "class channel"]]
    scorer: Float[Tensor, " channel"]
    patches: int
    readout: str

    @property
    def classes(self) -> int:
        """How many classes they tell apart."""
        return next(iter(self.tokens.values())).shape[0]

    def edits(self) -> list[Edit]:
        """What puts them into a run; those of a block replace those of the block before."""
        out: list[Edit] = []
        for number, block in enumerate(sorted(self.tokens)):
            site = f"blocks.{block}.resid_pre"
            if number:
                out.append(Drop(site, positions=list(range(self.patches, self.patches + self.classes))))
            out.append(Insert(site, tokens=self.tokens[block]))
        return out

    def logits(self, run: Run) -> Float[Tensor, "image class"]:
        """The logits of the classes in a run that kept `readout`."""
        return run[self.readout][:, self.patches :] @ self.scorer.to(run[self.readout])

    def position(self, label: int) -> int:
        """The position of a class's prompt."""
        return self.patches + label


def learn_prompts(
    net: Network,
    pictures: Masked,
    method: ClassPrompts = ClassPrompts(),
    rows: Sequence[int] | None = None,
    *,
    tick: Tick = lambda share: None,
) -> Prompts:
    """Learn one prompt a class, the network as it is.

    Args:
        net: a vision transformer; its weights are not touched.
        pictures: images with classes.
        method: how.
        rows: the images to learn from; all unless given.
        tick: told the share that is done.

    Raises:
        BadInput: if the network has no blocks of patch tokens, or fewer than two classes come up.
        Diverged: if the loss is no number.

    Source:
        Chowdhury et al. 2025, equations 4 to 7.
    """
    rows = list(range(len(pictures)) if rows is None else rows)
    labels = pictures.classes(rows)
    classes = len(pictures.class_names) or int(labels.max()) + 1
    if len(labels.unique()) < 2:
        raise BadInput(f"expected images of two classes or more; got {len(labels.unique())} among {len(rows)} images")
    first, generator = (torch.Generator().manual_seed(method.seed + 10_000 * i) for i in range(2))
    blocks = range(net.n_blocks) if method.deep else range(1)
    patches, readout = _shape(net, pictures, rows)
    order = torch.randperm(len(rows), generator=first)
    mixed = [rows[i] for i in order.tolist()]
    prompts = _begin(net, pictures, mixed, labels[order], blocks, classes, (patches, readout), method.batch, first)
    parameters = [*prompts.tokens.values(), prompts.scorer]
    optimiser = torch.optim.AdamW(parameters, lr=method.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, method.steps)
    for step in range(method.steps):
        picked = torch.randint(len(rows), (min(method.batch, len(rows)),), generator=generator).tolist()
        loss = _descend(net, prompts, encoded(net, pictures.pixels([rows[i] for i in picked])), labels[picked])
        if not torch.isfinite(loss):
            raise Diverged(f"the loss of the prompts became {float(loss)} at step {step}; choose a lower rate")
        optimiser.step()
        schedule.step()
        tick((step + 1) / method.steps)
    return Prompts({b: t.detach() for b, t in prompts.tokens.items()}, prompts.scorer.detach(), patches, readout)


def _shape(net: Network, pictures: Pictures, rows: Sequence[int]) -> tuple[int, str]:
    """How many tokens the network has, and where its last states are read."""
    first, last = "blocks.0.resid_pre", f"blocks.{net.n_blocks - 1}.resid_post"
    missing = [name for name in (first, last, f"blocks.{net.n_blocks - 1}.attn.scores") if name not in net.sites]
    if missing or net.sites[first].axes != ("batch", "position", "channel"):
        raise BadInput(
            f"expected a vision transformer with blocks of patch tokens; {net.name} has no such "
            f"{missing[0] if missing else first}"
        )
    readout = "final_norm" if "final_norm" in net.sites else last
    run = net.run(encoded(net, pictures.pixels(rows[:1])), keep=[first, readout])
    if run[readout].ndim != 3 or run[readout].shape[1] != run[first].shape[1]:
        readout = last
    return run[first].shape[1], readout


def _begin(
    net: Network,
    pictures: Pictures,
    rows: Sequence[int],
    labels: Int[Tensor, " image"],
    blocks: Sequence[int],
    classes: int,
    place: tuple[int, str],
    batch: int,
    generator: torch.Generator,
) -> Prompts:
    """Prompts that begin, of many drawn ones, as those that each class moves most, and a scorer along those moves.

    A class may be told by what it has, which its own prompt looks at, or by what it lacks, which the others' look at. A
    scorer drawn at random leaves that to chance; and only in the first case do looks show a trait.
    """
    drawn = _drawn(net, pictures, rows[:batch], blocks, classes + SPARE, *place, generator)
    sums, counts = torch.zeros(classes, classes + SPARE, len(drawn.scorer)), torch.zeros(classes)
    for start in range(0, min(len(rows), BEGUN_ON), batch):
        at = slice(start, min(start + batch, BEGUN_ON))
        images = encoded(net, pictures.pixels(rows[at]))
        run = net.run(images, keep=drawn.readout, edits=drawn.edits())
        sums.index_add_(0, labels[at].long(), run[drawn.readout][:, drawn.patches :].float().cpu())
        counts += labels[at].long().bincount(minlength=classes)
    others = (sums.sum(0) - sums) / (counts.sum() - counts).clamp_min(1)[:, None, None]
    moves = (sums / counts.clamp_min(1)[:, None, None] - others) * (counts > 0)[:, None, None]
    size = moves.norm(dim=-1)
    margin = size - (size.sum(0) - size) / max(1, classes - 1)
    _, best = linear_sum_assignment(margin.numpy(), maximize=True)
    scorer = moves[range(classes), best].sum(0)
    scorer = (scorer / scorer.norm().clamp_min(1e-12)).to(drawn.scorer)
    tokens = {block: token[best].clone().requires_grad_() for block, token in drawn.tokens.items()}
    return Prompts(tokens, scorer.requires_grad_(), *place)


def _drawn(
    net: Network,
    pictures: Pictures,
    rows: Sequence[int],
    blocks: Sequence[int],
    count: int,
    patches: int,
    readout: str,
    generator: torch.Generator,
) -> Prompts:
    """Prompts drawn with the median and the robust spread of the tokens that they come in beside.

    A few tokens of outlying norm (see `openwork.vision.tokens.registers`) would have them begin far from all others.
    """
    sites = {block: f"blocks.{block}.resid_pre" for block in blocks}
    run = net.run(encoded(net, pictures.pixels(rows)), keep=[*sites.values(), readout])
    tokens = {}
    for block, site in sites.items():
        seen = run[site].float().flatten(0, 1)
        middle = seen.median(0).values
        spread = TO_SD * (seen - middle).abs().median(0).values
        tokens[block] = middle + spread * torch.randn(count, seen.shape[1], generator=generator).to(seen)
    return Prompts(tokens, run[readout].new_zeros(run[readout].shape[-1]).float(), patches, readout)


def _descend(net: Network, prompts: Prompts, images: Tensor, labels: Int[Tensor, " image"]) -> Tensor:
    """Leave the gradients of the mean cross-entropy at the prompts and the scorer; the network's stay out of it."""
    labels = labels.long().to(prompts.scorer.device)
    sites = {block: f"blocks.{block}.resid_pre" for block in prompts.tokens}
    held = Prompts(
        {b: t.detach() for b, t in prompts.tokens.items()}, prompts.scorer.detach(), prompts.patches, prompts.readout
    )
    run = net.run(
        images,
        keep=[*sites.values(), prompts.readout],
        edits=held.edits(),
        grads=lambda run: F.cross_entropy(held.logits(run), labels, reduction="none"),
    )
    for block, token in prompts.tokens.items():
        token.grad = run.grads[sites[block]][:, prompts.patches :].sum(0) / len(labels)
    logits = run[prompts.readout][:, prompts.patches :].float() @ prompts.scorer
    loss = F.cross_entropy(logits, labels)
    (prompts.scorer.grad,) = torch.autograd.grad(loss, prompts.scorer)
    return loss.detach()
