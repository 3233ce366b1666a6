"""The tuned lens: for each site an affine map, learned so that the read-out says what the network will say.

    lens = tune(net, texts)
    lens.save("lens")

Source: Belrose et al. 2023, Eliciting Latent Predictions from Transformers with the Tuned Lens, section 3: translators
that begin as the identity, learned by the KL divergence of the final distribution from the lens's, with gradients
clipped to norm 1 and a rate that falls linearly to 0. Here Adam takes the place of SGD with Nesterov momentum, since a
step sees hundreds of tokens and not 2^18; and since few texts are soon learned by heart, some are set aside, and of
each site the map is kept that was best on these.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openwork.errors import BadInput, Diverged
from openwork.lenses.compare import held_out_of, texts_of
from openwork.lenses.lens import Lens, Translator, states, weights_of
from openwork.lenses.read import ran
from openwork.lenses.readout import ReadOut
from openwork.lenses.scores import MEMORY, Tick, silent
from openwork.metrics import kl_divergence
from openwork.site import Site
from openwork.task import Inputs, split_rows

if TYPE_CHECKING:
    from openwork.network import Network

Weights = dict[str, tuple[Tensor, Tensor]]
LARGEST_NORM = 1.0
"""Gradients are clipped to it."""
WORSE, LEAST = 10.0, 0.1
"""A loss of so many times the first has diverged; a first one below so many nats counts as that."""
ASIDE = 0.25
"""Share of the texts to learn from that maps are chosen on."""
LOOKS = 25
"""How often the maps are looked at on these, at most."""


@dataclass(frozen=True)
class Tuning:
    """How to learn.

    Args:
        steps: of learning.
        rate: of learning at the first step; it falls linearly to 0.
        decay: weight decay towards the start.
        texts: that a step sees.
        places: positions that a step sees of these.
        shuffled: learn from the outputs at other tokens instead: the control that knows only what is likely anyway.
        seed: of the order of texts and positions.
        memory: a budget for the logits that are held at once.
    """

    steps: int = 250
    rate: float = 1e-3
    decay: float = 1e-3
    texts: int = 4
    places: int = 256
    shuffled: bool = False
    seed: int = 0
    memory: str | int = MEMORY

    def __post_init__(self) -> None:
        if min(self.steps, self.texts, self.places) < 1 or self.rate <= 0 or self.decay < 0:
            raise BadInput(f"expected a step, text and place or more, a rate above 0 and no negative decay; got {self}")


def tune(
    net: Network,
    texts: Any,
    held_out: Iterable[int] | None = None,
    sites: str | Site | None = None,
    method: Tuning = Tuning(),
    *,
    start: Lens | None = None,
    tick: Tick = silent,
) -> Lens:
    """Learn a tuned lens; `compare` says what it is worth on the texts that are held out.

    Args:
        net: the network; its weights are not touched.
        texts: several texts, rows of token ids, or `Inputs`.
        held_out: rows that are never learned from; a seeded quarter unless given.
        sites: a site or pattern; the stream before the first block and behind each unless given.
        method: how.
        start: maps to begin with instead of the identity, such as an attention lens, whose sites are then learned.
        tick: told the share that is done.

    Returns:
        the lens; of the stream behind the last block it holds the identity, which is exact. Of each site it holds the
        map, of some steps and the first, that was best on a quarter of the texts to learn from, which no step saw
        (``settings["kept_at"]``); of a single text to learn from, the last one.

    Raises:
        BadInput: for sites that do not hold the stream, a single text, or no text held out.
        Diverged: if a loss is no number, or many times the first, before any map was better than at the start.

    Source:
        Belrose et al. 2023, section 3, equations 4 to 7.
    """
    read_out = ReadOut.of(net)
    rows = texts_of(net, texts)
    held = held_out_of(rows, held_out, method.seed)
    learned_from, aside = _set_aside(sorted({*range(len(rows))} - held), method.seed)
    if start is not None:
        start.require(net)
    names = read_out.sites(sites) if start is None else start.sites(read_out, sites)
    names = [name for name in names if name != read_out.last]
    device = net.device
    weights = {name: _begin(read_out, start, name, device) for name in names}
    parameters = [x for pair in weights.values() for x in pair]
    optimiser = torch.optim.AdamW(parameters, lr=method.rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(method.seed)
    first: dict[str, float] = {}
    begun = [x.detach().clone() for x in parameters]
    losses: dict[str, float] = {}
    best = _Best(net, read_out, rows.take(aside), weights, method) if aside else None
    stopped = None
    for step in range(method.steps):
        if best is not None and step % -(-method.steps // LOOKS) == 0:
            best.look(weights, step)
        picked = torch.randperm(len(learned_from), generator=generator)[: method.texts]
        run, _ = ran(net, read_out, rows.take([learned_from[i] for i in picked]), names)
        last = torch.cat(states(run, read_out.last))
        at = torch.randperm(len(last), generator=generator)[: method.places]
        other = at[torch.randperm(len(at), generator=generator)] if method.shuffled else at
        for group in optimiser.param_groups:
            group["lr"] = method.rate * (1 - step / method.steps)
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        losses = _descend(read_out, weights, last[other], {n: torch.cat(states(run, n))[at] for n in names}, method)
        for name, loss in losses.items():
            if not loss <= WORSE * max(first.setdefault(name, loss), LEAST):
                if best is None or not any(best.kept_at.values()):
                    raise Diverged(f"the loss at {name} went from {first[name]:.3g} to {loss:.3g}; choose a lower rate")
                stopped = step
        if stopped is not None:
            break
        for pair in weights.values():
            torch.nn.utils.clip_grad_norm_(pair, LARGEST_NORM)
        optimiser.step()
        with torch.no_grad():
            for parameter, origin in zip(parameters, begun, strict=True):
                parameter.lerp_(origin, optimiser.param_groups[0]["lr"] * method.decay)
        tick((step + 1) / method.steps)
    if best is not None:
        if stopped is None:
            best.look(weights, method.steps)
        weights = best.weights
    maps = {name: Translator(matrix.detach().cpu(), bias.detach().cpu()) for name, (matrix, bias) in weights.items()}
    if start is None:
        maps[read_out.last] = identity(read_out.width)
    settings = {
        "steps": method.steps, "rate": method.rate, "decay": method.decay, "texts": method.texts,
        "places": method.places, "shuffled": method.shuffled, "seed": method.seed, "rows": len(rows),
        "held_out": sorted(held), "last_loss": losses, "first_loss": first, "aside": aside, "stopped": stopped,
        "kept_at": dict.fromkeys(weights, method.steps) if best is None else best.kept_at,
    }  # fmt: skip
    return Lens("tuned" if start is None else start.kind, maps, weights_of(net), settings)


def _set_aside(rows: list[int], seed: int) -> tuple[list[int], list[int]]:
    """Rows to learn from, and rows to choose maps on; none of the latter where there is only one row."""
    aside = split_rows(len(rows), seed + 1, ASIDE) if len(rows) > 1 else frozenset()
    return [r for i, r in enumerate(rows) if i not in aside], [r for i, r in enumerate(rows) if i in aside]


class _Best:
    """Of each site the weights that were best so far on texts that are set aside.

    Args:
        net: the network.
        read_out: its read-out.
        rows: the texts.
        weights: at the first step.
        method: says how many positions of them are looked at.
    """

    def __init__(self, net: Network, read_out: ReadOut, rows: Inputs, weights: Weights, method: Tuning):
        self.read_out, self.memory = read_out, method.memory
        generator = torch.Generator().manual_seed(method.seed + 1)
        some = torch.randperm(len(rows), generator=generator)[: 4 * method.texts].tolist()
        run, _ = ran(net, read_out, rows.take(some), [*weights])
        last = torch.cat(states(run, read_out.last))
        at = torch.randperm(len(last), generator=generator)[: 4 * method.places]
        other = at[torch.randperm(len(at), generator=generator)] if method.shuffled else at
        self.last, self.held = last[other], {name: torch.cat(states(run, name))[at] for name in weights}
        self.weights: Weights = {}
        self.losses, self.kept_at = dict.fromkeys(weights, float("inf")), dict.fromkeys(weights, 0)

    @torch.no_grad()
    def look(self, weights: Weights, step: int) -> None:
        """Keep what is better than all before."""
        losses = dict.fromkeys(weights, 0.0)
        for block in self.read_out.blocks(len(self.last), self.memory):
            final = self.read_out(self.last[block]).float()
            for name, pair in weights.items():
                logits = self.read_out(Translator(*pair)(self.held[name][block])).float()
                losses[name] += float(kl_divergence(final, logits).sum()) / len(self.last)
        for name, (matrix, bias) in weights.items():
            if name not in self.weights or losses[name] < self.losses[name]:
                self.weights[name] = matrix.detach().clone(), bias.detach().clone()
                self.losses[name], self.kept_at[name] = losses[name], step


def identity(width: int) -> Translator:
    """The map that changes nothing."""
    return Translator(torch.eye(width), torch.zeros(width))


def _begin(read_out: ReadOut, start: Lens | None, site: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrix and bias of a site at the first step."""
    map_ = identity(read_out.width) if start is None else start.maps[site]
    return tuple(x.detach().float().to(device, copy=True).requires_grad_() for x in (map_.matrix, map_.bias))  # pyright: ignore


def _descend(
    read_out: ReadOut,
    weights: Weights,
    last: Tensor,
    held: dict[str, Tensor],
    method: Tuning,
) -> dict[str, float]:
    """Add the gradients of one step to the weights, block of positions by block, and give the losses."""
    losses = dict.fromkeys(weights, 0.0)
    for block in read_out.blocks(len(last), method.memory):
        with torch.no_grad():
            final = read_out(last[block]).float()
        share = (block.stop - block.start) / len(last)
        for name, pair in weights.items():
            with torch.enable_grad():
                logits = read_out(Translator(*pair)(held[name][block])).float()
                loss = kl_divergence(final, logits).mean() * share
            for parameter, grad in zip(pair, torch.autograd.grad(loss, pair), strict=True):
                assert parameter.grad is not None
                parameter.grad += grad
            losses[name] += float(loss.detach())
    return losses
