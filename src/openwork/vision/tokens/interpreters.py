"""Multi-head interpreters: small learned judges of which patches a vision transformer may drop.

Before each group of blocks, an interpreter scores every patch by how well it answers a learned policy token. Patches
below one half leave. They are trained by reward: being right counts, the more so the fewer patches are left.

    judges = learn_interpreters(net, pictures, Interpreters())
    drop_patches(net, judges, pictures)              # openwork.vision.tokens.patch_dropping

Source: Pan et al. 2021, IA-RED2: Interpretability-aware redundancy reduction for vision transformers, section 3. The
backbone stays frozen here, so that the scores say what this network needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openwork.edit import Custom, Edit
from openwork.errors import BadInput
from openwork.pictures import Masked
from openwork.vision.passes import encoded

if TYPE_CHECKING:
    from openwork.network import Network

Tick = Callable[[float], None]
KEEP = 0.5
"""Patches scored below this leave."""


@dataclass(frozen=True)
class Interpreters:
    """How interpreters are learned.

    Args:
        groups: of blocks, each with an interpreter before it.
        heads: of each interpreter.
        steps: of Adam for each group, one group after another.
        batch: images of a step.
        rate: of learning.
        penalty: the reward of a wrong answer is minus this.
        bound: sampled probabilities stay between ``1 - bound`` and ``bound``, so that both choices go on being tried.
        seed: of the weights, the images and the choices.
    """

    groups: int = 3
    heads: int = 4
    steps: int = 150
    batch: int = 32
    rate: float = 3e-3
    penalty: float = 1.0
    bound: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.groups, self.heads, self.steps, self.batch) < 1 or not self.rate > 0 or self.penalty < 0:
            raise BadInput(f"expected groups, heads, steps and images of at least 1 and a rate above 0; got {self}")
        if not KEEP < self.bound <= 1:
            raise BadInput(f"expected a bound above {KEEP} and up to 1; got {self.bound}")


class Interpreter(nn.Module):
    """Scores patches before one group of blocks: the mean over heads of sigmoid(policy's query . patch's key).

    Args:
        channels: of a token.
        heads: how many.
        generator: of the first weights.
        middle: what is taken off each token behind its layer norm. What all tokens share moves all scores alike, so
            that heads soon keep everything or drop everything; their mean leaves that to the bias.
    """

    middle: Tensor

    def __init__(
        self, channels: int, heads: int, generator: torch.Generator, middle: Float[Tensor, " channel"] | None = None
    ):
        super().__init__()
        self.register_buffer("middle", torch.zeros(channels) if middle is None else middle)
        self.width = max(1, channels // heads)
        self.policy = nn.Parameter(torch.randn(channels, generator=generator))
        shape = (heads, self.width, channels)
        self.query = nn.Parameter(torch.randn(shape, generator=generator) / channels**0.5)
        self.key = nn.Parameter(torch.randn(shape, generator=generator) / channels**0.5)
        # begins by keeping what looks ordinary, as a network needs to be right before it can learn what to drop
        self.bias = nn.Parameter(torch.full((heads,), 1.0))

    def forward(self, tokens: Float[Tensor, "image patch channel"]) -> Float[Tensor, "image patch"]:
        """Scores from 0 to 1."""
        tokens = normed(tokens) - self.middle
        query = self.query @ self.policy
        keys = torch.einsum("npc,hwc->nphw", tokens, self.key)
        logits = torch.einsum("nphw,hw->nph", keys, query) / self.width**0.5 + self.bias
        return logits.sigmoid().mean(-1)


def normed(tokens: Float[Tensor, "*place channel"]) -> Float[Tensor, "*place channel"]:
    """Tokens behind a plain layer norm."""
    return nn.functional.layer_norm(tokens.float(), tokens.shape[-1:])


@dataclass(frozen=True, eq=False)
class Judges:
    """Learned interpreters of one network.

    Args:
        at: block -> the interpreter before it.
        prefix: tokens that are no patches and always stay.
        rewards: (group, step) the mean reward of sampled choices.
    """

    at: dict[int, Interpreter]
    prefix: int
    rewards: Float[Tensor, "group step"]


class Policy:
    """Drops patches from one run by hiding them from all later attention, which for the others is the same.

    Args:
        net: the network.
        judges: interpreters by block.
        prefix: tokens that always stay.
        choose: (block, scores) -> which patches stay, (image, patch) bool.
    """

    def __init__(
        self, net: Network, judges: dict[int, Interpreter], prefix: int, choose: Callable[[int, Tensor], Tensor]
    ):
        self.net, self.judges, self.prefix, self.choose = net, judges, prefix, choose
        self.kept: dict[int, Bool[Tensor, "image patch"]] = {}
        self.tokens: dict[int, Tensor] = {}
        self._now: Tensor | None = None

    def edits(self) -> list[Edit]:
        """What makes a run follow the policy."""
        out: list[Edit] = []
        for block in range(min(self.judges), self.net.n_blocks):
            if block in self.judges:
                out.append(Custom(f"blocks.{block}.resid_pre", fn=lambda value, b=block: self._judge(b, value)))
            out.append(Custom(f"blocks.{block}.attn.scores", fn=self._hide))
        return out

    def _judge(self, block: int, value: Tensor) -> Tensor:
        patches = value[:, self.prefix :].detach()
        self.tokens[block] = patches
        with torch.no_grad():
            stay = self.choose(block, self.judges[block](patches))
        self._now = stay if self._now is None else self._now & stay
        self.kept[block] = self._now
        return value

    def _hide(self, scores: Tensor) -> Tensor:
        assert self._now is not None
        hidden = nn.functional.pad(~self._now, (self.prefix, 0))
        return scores.masked_fill(hidden[:, None, None, :], -torch.inf)


def group_starts(net: Network, groups: int) -> list[int]:
    """The first block of each group; the first group begins behind the first block where there are enough.

    Raises:
        BadInput: for more groups than blocks, or a network without blocks of patch tokens.
    """
    sites = [f"blocks.{b}.{kind}" for b in range(net.n_blocks) for kind in ("resid_pre", "attn.scores")]
    missing = [site for site in sites if site not in net.sites]
    if not sites or missing or net.sites[sites[0]].axes != ("batch", "position", "channel"):
        raise BadInput(f"expected a vision transformer with blocks of patch tokens; {net.name} is none")
    if groups > net.n_blocks:
        raise BadInput(f"expected at most {net.n_blocks} groups, one a block; got {groups}")
    return [round(i * net.n_blocks / groups) for i in range(groups)]


def learn_interpreters(
    net: Network,
    pictures: Masked,
    method: Interpreters = Interpreters(),
    rows: Sequence[int] | None = None,
    *,
    tick: Tick = lambda share: None,
) -> Judges:
    """Learn which patches a network may lose, group after group (Pan et al. 2021, curriculum of section 3.3).

    Args:
        net: a vision transformer; its weights are not touched.
        pictures: images with classes.
        method: how.
        rows: the images to learn from; all unless given.
        tick: told the share that is done.

    Raises:
        BadInput: if the network has no blocks of patch tokens, or its classes are not those of the pictures.

    Source:
        Pan et al. 2021, equations 3 to 7: REINFORCE with the reward of the most likely choice as baseline.
    """
    starts = group_starts(net, method.groups)
    rows = list(range(len(pictures)) if rows is None else rows)
    generator = torch.Generator().manual_seed(method.seed)
    prefix = net.grid("blocks.0.resid_pre").prefix
    channels = net.sites["blocks.0.resid_pre"].shape[-1]
    sites = {block: f"blocks.{block}.resid_pre" for block in starts}
    some = torch.randperm(len(rows), generator=generator)[: method.batch].tolist()
    seen = net.run(encoded(net, pictures.pixels([rows[i] for i in some])), keep=list(sites.values()))
    judges: dict[int, Interpreter] = {}
    rewards = torch.zeros(len(starts), method.steps)
    for number, block in enumerate(starts):
        middle = normed(seen[sites[block]][:, prefix:]).mean((0, 1))
        judges[block] = Interpreter(channels, method.heads, generator, middle).to(net.device)
        optimiser = torch.optim.Adam(judges[block].parameters(), lr=method.rate)
        for step in range(method.steps):
            picked = torch.randint(len(rows), (min(method.batch, len(rows)),), generator=generator).tolist()
            some = [rows[i] for i in picked]
            rewards[number, step] = _step(
                net, judges, block, prefix, encoded(net, pictures.pixels(some)), pictures.classes(some).long(), method,
                generator, optimiser,
            )  # fmt: skip
            tick((number + (step + 1) / method.steps) / len(starts))
    return Judges(judges, prefix, rewards)


def _step(
    net: Network,
    judges: dict[int, Interpreter],
    block: int,
    prefix: int,
    images: Tensor,
    labels: Int[Tensor, " image"],
    method: Interpreters,
    generator: torch.Generator,
    optimiser: torch.optim.Optimizer,
) -> float:
    """One step of REINFORCE for one interpreter; those before it choose what is likelier."""

    def bounded(scores: Tensor) -> Tensor:
        return method.bound * scores + (1 - method.bound) * (1 - scores)

    def sample(at: int, scores: Tensor) -> Tensor:
        if at != block:
            return scores >= KEEP
        drawn = torch.rand(scores.shape, generator=generator).to(scores.device)
        return drawn < bounded(scores)

    tried, greedy = (Policy(net, judges, prefix, choose) for choose in (sample, lambda at, scores: scores >= KEEP))
    reward = [_reward(net, policy, images, labels, block, method.penalty) for policy in (tried, greedy)]
    with torch.enable_grad():
        chance = bounded(judges[block](tried.tokens[block])).clamp(1e-6, 1 - 1e-6)
        # what an earlier interpreter dropped is not this one's choice
        earlier = [tried.kept[b] for b in judges if b < block]
        mine = earlier[-1] if earlier else torch.ones_like(chance, dtype=torch.bool)
        chosen = tried.kept[block]
        log = (torch.where(chosen, chance.log(), (1 - chance).log()) * mine).sum(1)
        loss = -((reward[0] - reward[1]) * log).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return float(reward[0].mean())


def _reward(
    net: Network, policy: Policy, images: Tensor, labels: Tensor, block: int, penalty: float
) -> Float[Tensor, " image"]:
    """1 - (share of patches kept)^2 where the answer is right, and minus the penalty where it is wrong."""
    logits = net.run(images, edits=policy.edits()).logits
    if int(labels.max()) >= logits.shape[-1]:
        raise BadInput(f"expected classes among the {logits.shape[-1]} of {net.name}; got {int(labels.max())}")
    right = logits.argmax(-1) == labels.to(logits.device)
    share = policy.kept[block].float().mean(1)
    return torch.where(right, 1 - share**2, torch.full_like(share, -penalty))
