"""The unedited run as replay needs it: what went into each block, keys and values, outputs of what will be skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openwork.network.paths import read, replaced
from openwork.network.ports import AttentionPort
from openwork.network.replay.meeting import Meeting, meet
from openwork.network.replay.prefix import take
from openwork.network.run import eagerly
from openwork.network.session import Session, Visit
from openwork.network.timeline import Span, Stage

if TYPE_CHECKING:
    from openwork.network.network import Network


@dataclass(eq=False)
class BlockRecord:
    """What one block saw.

    Args:
        hidden: (example, position, channel) the stream that it read.
        arguments: all its arguments, positional ones under their number.
        output: what it returned.
        attention: its attention as it was met, without q; None if it has none.
        z: (example, position, head, channel) what the attention gave.
    """

    hidden: Float[Tensor, "example position channel"]
    arguments: dict[int | str, Any]
    output: Any = None
    attention: Meeting | None = None
    z: Tensor | None = None

    def visible(self, rows: int, width: int) -> Bool[Tensor, "example query key"]:
        """Which keys each query sees, as far as the mask says."""
        met = self.attention
        seen = torch.ones(width, width, dtype=torch.bool)
        if met is None:
            return torch.eye(width, dtype=torch.bool).expand(rows, -1, -1)
        if met.mask is None:
            return (seen.tril() if met.causal else seen).expand(rows, -1, -1)
        mask = met.mask if met.mask.dtype == torch.bool else met.mask > torch.finfo(met.mask.dtype).min / 2
        return mask[..., :width].any(1).cpu().expand(rows, -1, -1)


@dataclass(eq=False)
class Recording:
    """One unedited run.

    Args:
        blocks: what each block saw, by its number.
        outputs: (module, ordinal) -> what it returned, for modules that may be skipped.
        values: site -> value, for the sites to keep.
        result: what the network returned.
    """

    blocks: list[BlockRecord]
    outputs: dict[tuple[nn.Module, int], Any] = field(default_factory=dict)
    values: dict[str, Tensor] = field(default_factory=dict)
    result: Any = None


def record(
    net: Network,
    kwargs: Mapping[str, Any],
    stages: list[Stage],
    spans: Iterable[Span] = (),
    keep: Iterable[str] = (),
    head: AbstractContextManager[None] | None = None,
) -> Recording:
    """Run the network once, unedited, and record it.

    Args:
        net: the network.
        kwargs: the arguments of the call.
        stages: the blocks to record.
        spans: calls whose outputs to record.
        keep: base names of sites to keep; of an attention its q, k, v and z only.
        head: holds while it runs, as `openwork.network.replay.tail.narrow` does.
    """
    taken: dict[nn.Module, BlockRecord] = {}
    owner_of = {a.owner: stage.span.module for stage in stages for a in stage.attentions}
    out = Recording([])
    with torch.no_grad(), eagerly(net), Session(net.root) as session:
        session.count_steps()
        for stage in stages:
            _watch(session, stage, taken)
        take(net, session, spans, out.outputs)
        parts: dict[nn.Module, list[tuple[str, str]]] = {}
        for site in keep:
            port = net.map.port(site)
            if isinstance(port, AttentionPort):
                parts.setdefault(port.module, []).append((site, port.part))
            else:
                port.attach(session, _holding(out.values, site), False)

        def attend(met: Meeting) -> Tensor:
            z = met.kernel(met.q, met.k, met.v, met.mask)
            block = taken[owner_of[met.owner]]
            block.attention, block.z = met, z
            for site, part in parts.get(met.owner, ()):
                out.values[site] = z if part == "z" else getattr(met, part).transpose(1, 2)
            return z

        meet(session, [a for stage in stages for a in stage.attentions], attend)
        if head is not None:
            session.enter(head)
        session.install()
        out.result = net.call(kwargs)
    out.blocks = [taken[stage.span.module] for stage in stages]
    for block in out.blocks:
        if block.attention is not None:
            block.attention.q = block.attention.q[..., :0, :]
    return out


def _holding(values: dict[str, Tensor], site: str) -> Visit:
    def visit(value: Tensor) -> None:
        values[site] = value

    return visit


def _watch(session: Session, stage: Stage, taken: dict[nn.Module, BlockRecord]) -> None:
    pre, post = stage.pre, stage.post

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        arguments: dict[int | str, Any] = {**dict(enumerate(args)), **kwargs}
        hidden = read(arguments, pre).clone()
        taken[module] = BlockRecord(hidden, replaced(arguments, pre, hidden))

    def after(module: nn.Module, args: Any, output: Any) -> None:
        taken[module].output = replaced(output, post, read(output, post).clone())

    session.on_input(stage.span.module, before)
    session.on_output(stage.span.module, after)
