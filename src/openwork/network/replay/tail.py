"""From the stream behind the last block to the logits that a metric reads, by the network's own head."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from openwork.errors import BadInput
from openwork.network.certify import first_output
from openwork.network.paths import replaced
from openwork.network.replay.prefix import calling, returning
from openwork.network.replay.recording import Recording
from openwork.network.run import eagerly
from openwork.network.session import Session
from openwork.network.timeline import Stage

if TYPE_CHECKING:
    from openwork.network.network import Network


def logits_behind(
    net: Network,
    stages: list[Stage],
    base: Recording,
    hidden: Float[Tensor, "row channel"],
    columns: Int[Tensor, "row column"] | None = None,
) -> Float[Tensor, "row column"]:
    """Call the network on one position a row with all its blocks skipped.

    Args:
        net: the network.
        stages: its blocks.
        base: an unedited run, for the form in which blocks return the stream.
        hidden: the stream behind the last block.
        columns: the logits that are wanted of each row; all of them unless given.
    """
    outputs = {
        (stage.span.module, 0): replaced(block.output, stage.post, hidden[:, None])
        for stage, block in zip(stages, base.blocks, strict=True)
    }
    ids = torch.zeros(len(hidden), 1, dtype=torch.long, device=net.device)
    kwargs = uncached(net, {net.preparer.main: ids})
    with torch.no_grad(), eagerly(net), Session(net.root, len(hidden)) as session:
        session.enter(returning(outputs))
        if columns is not None:
            assert net.timeline.head is not None
            session.enter(narrow(net.timeline.head, columns))
        session.install()
        return first_output(net.call(kwargs))[:, 0]


def narrow(
    head: nn.Module, columns: Int[Tensor, "row column"] | None, at: Int[Tensor, " row"] | None = None
) -> AbstractContextManager[None]:
    """Let a linear head compute only some of its outputs for each row.

    Args:
        head: the linear map.
        columns: which of its outputs; all of them unless given.
        at: the position of each row that is wanted; the only one there is unless given.
    """
    weight, bias, full = head.weight, getattr(head, "bias", None), head.forward
    assert isinstance(weight, Tensor)

    def forward(value: Tensor) -> Tensor:
        if at is not None:
            value = value[torch.arange(len(at), device=value.device), at.to(value.device)]
        rows = value.reshape(-1, 1, value.shape[-1])
        if columns is None:
            return full(rows)
        chosen = columns.to(rows.device)
        if int(chosen.max()) >= len(weight) or int(chosen.min()) < 0:
            raise BadInput(f"expected answers among the {len(weight)} tokens; got {int(chosen.max())}")
        out = torch.matmul(rows, weight[chosen].to(rows.dtype).transpose(1, 2))
        return out if bias is None else out + bias[chosen][:, None]

    return calling(head, forward)


def uncached(net: Network, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call without a cache of keys and values, to which a second call of a block would append."""
    return {**kwargs, "use_cache": False} if "use_cache" in net.preparer.accepts else dict(kwargs)
