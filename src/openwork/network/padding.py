"""Whether padding leaves a network's numbers alone, checked on this checkpoint when padding first comes up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from openwork.errors import BadInput
from openwork.network.certify import first_output
from openwork.network.inputs import Prepared

if TYPE_CHECKING:
    from openwork.network.network import Network


def check_padding(net: Network, prepared: Prepared) -> None:
    """Refuse padding under which this architecture gives other numbers.

    Raises:
        BadInput: for padding on a side whose certificate failed.
    """
    if not prepared.layout.padded or "attention_mask" not in prepared.kwargs:
        return
    side = "left" if any(prepared.layout.offsets) else "right"
    if not padding_holds(net, side):
        raise BadInput(
            f"{net.name} gives other numbers under {side} padding than without; pass openwork.Inputs, whose "
            "rows are aligned so that no token sees padding, or one row at a time"
        )


def padding_holds(net: Network, side: str) -> bool:
    """Whether a row padded on `side` (``left`` or ``right``) gives what it gives alone; checked once a network."""
    if side not in net.padding:
        net.padding[side] = _holds(net, side)
    return net.padding[side]


def _holds(net: Network, side: str) -> bool:
    """Pad a short row beside a long one and compare its logits with those that it gives alone."""
    ids = net.example.get(net.preparer.main)
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.ndim != 2 or ids.shape[1] < 5:
        return True
    short = ids[:1, :-3].cpu()
    padded = torch.zeros_like(ids[:1].cpu())
    mask = torch.zeros_like(padded)
    columns = slice(3, None) if side == "left" else slice(0, short.shape[1])
    padded[:, columns], mask[:, columns] = short, 1
    both = {net.preparer.main: padded, "attention_mask": mask}
    with torch.no_grad():
        alone = first_output(net.call(net.preparer.prepare(short).kwargs)).float()
        beside = first_output(net.call(net.preparer.prepare(both).kwargs)).float()
    if beside.shape[1] == padded.shape[1] and beside.ndim == 3:
        beside = beside[:, columns]
    if beside.shape != alone.shape:
        return False
    limit = 1e-4 if net.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((alone - beside).abs().max() <= limit * alone.abs().max().clamp_min(1e-30))
