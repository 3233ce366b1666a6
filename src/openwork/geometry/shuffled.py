"""Copies of a network that are controls: its weights in random places, or moved as far as training moved them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from openwork import network
from openwork.errors import BadInput

if TYPE_CHECKING:
    from openwork.network import Network


class Blank:
    """A copy of a network whose weights are drawn anew as often as asked; it is opened once.

    Args:
        net: the network; it is left alone.
    """

    def __init__(self, net: Network):
        module = copy.deepcopy(net.root)
        name = f"{net.name} with random weights"
        self.net = network.open(
            module, name=name, tokenizer=net.tokenizer, images=net.images, example=dict(net.example)
        )
        self.original = [p.detach().clone() for p in module.parameters()]

    def shuffled(self, seed: int) -> Network:
        """The copy with the entries of every weight matrix permuted among themselves.

        Each matrix keeps its entries, so its scale and its norm; vectors (biases, gains of norms) stay as they are.
        What remains is what any network of these shapes tells of its tokens and positions. Works for every
        architecture, and needs no recipe for its initialisation.
        """
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter, original in zip(self.net.root.parameters(), self.original, strict=True):
                if parameter.ndim > 1 and parameter.is_floating_point():
                    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                    parameter.copy_(original.flatten()[order].view_as(parameter))
        return self.net

    def moved(self, towards: Network, seed: int) -> Network:
        """The copy with every tensor moved as far as to its counterpart in another checkpoint, in a random direction.

        Raises:
            BadInput: if the two do not have the same parameters.
        """
        there = list(towards.root.parameters())
        if [p.shape for p in there] != [p.shape for p in self.original]:
            raise BadInput(f"expected checkpoints of one network; {towards.name} has parameters of other shapes")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter, original, goal in zip(self.net.root.parameters(), self.original, there, strict=True):
                if not parameter.is_floating_point():
                    continue
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                norm = noise.norm()
                length = (goal.detach().to(original) - original).norm()
                parameter.copy_(original + noise * (length / norm) if norm > 0 else original)
        return self.net
