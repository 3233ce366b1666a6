"""A network that has learned nothing: its own weights in random order, put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from openwork.network import Network


@contextmanager
def redrawn(net: Network, seed: int) -> Iterator[Network]:
    """The network with the weights of every unit shuffled among themselves: their mean and size are as learned.

    The units of a kernel or a matrix are counted by its first axis. What has one axis, such as biases and the gains of
    norms, stays. The weights are put back whatever happens.

    Args:
        net: the network.
        seed: of the order.
    """
    kernels = [parameter for parameter in net.root.parameters() if parameter.ndim > 1]
    kept = [kernel.detach().clone() for kernel in kernels]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for kernel in kernels:
                keys = torch.rand(kernel.flatten(1).shape, generator=generator)
                order = keys.argsort(1).to(kernel.device)
                kernel.copy_(kernel.flatten(1).gather(1, order).view_as(kernel))
        yield net
    finally:
        with torch.no_grad():
            for kernel, values in zip(kernels, kept, strict=True):
                kernel.copy_(values)
