"""The unedited run as replay needs it: what went into each block, keys and values, outputs of what will be skipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openwork.network.paths import leaves, read, replaced
from openwork.network.replay.meeting import Meeting, meet
from openwork.network.run import run_eagerly
from openwork.network.session import Session
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
        logits: what the network returned for predictions.
    """

    blocks: list[BlockRecord]
    outputs: dict[tuple[nn.Module, int], Any] = field(default_factory=dict)
    result: Any = None


def record(net: Network, kwargs: Mapping[str, Any], stages: list[Stage], spans: Iterable[Span] = ()) -> Recording:
    """Run the network once, unedited, and record it.

    Args:
        net: the network.
        kwargs: the arguments of the call.
        stages: the blocks to record.
        spans: calls whose outputs to record.
    """
    wanted = {(span.module, span.ordinal): span for span in spans}
    repeated = net.timeline.repeated
    taken: dict[nn.Module, BlockRecord] = {}
    owner_of = {a.owner: stage.span.module for stage in stages for a in stage.attentions}
    out = Recording([])
    with torch.no_grad(), Session(net.root) as session:
        session.count_steps()
        run_eagerly(net, session)
        for stage in stages:
            _watch(session, stage, taken)
        for module in {module for module, _ in wanted}:
            _keep(session, module, module in repeated, wanted, out.outputs)

        def attend(met: Meeting) -> Tensor:
            z = met.kernel(met.q, met.k, met.v, met.mask)
            block = taken[owner_of[met.owner]]
            block.attention, block.z = met, z
            return z

        meet(session, [a for stage in stages for a in stage.attentions], attend)
        session.install()
        out.result = net.module(**kwargs)
    out.blocks = [taken[stage.span.module] for stage in stages]
    for block in out.blocks:
        if block.attention is not None:
            block.attention.q = block.attention.q[..., :0, :]
    return out


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


def _keep(
    session: Session,
    module: nn.Module,
    several: bool,
    wanted: Mapping[tuple[nn.Module, int], Span],
    outputs: dict[tuple[nn.Module, int], Any],
) -> None:
    if several:
        session.count_calls(module)

    def after(module: nn.Module, args: Any, output: Any) -> None:
        key = (module, session.nth_call(module) if several else 0)
        if key in wanted:
            outputs[key] = copied(output) if wanted[key].volatile else output

    session.on_output(module, after)


def copied(output: Any) -> Any:
    """The same structure with copies of its tensors."""
    for path, leaf in list(leaves(output)):
        output = replaced(output, path, leaf.clone())
    return output
