"""The read-out of the residual stream: the network's own last steps, from a state of the stream to logits.

    read_out = ReadOut.of(net)
    logits = read_out(state)          # final norm, unembedding, softcap, scale: whatever this network does

Nothing is rebuilt. The network itself is called with all its blocks skipped, and the last one returns the given state,
so that final norms, projections, softcaps and logit scales are its own. Whether that gives its logits is checked once.

Source: nostalgebraist 2020, Interpreting GPT: the logit lens (final norm and unembedding of a state in the middle).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput, OpenworkError, SiteRefused
from openwork.network.anatomy import deviation, tolerance
from openwork.network.certify import first_output, in_one_line
from openwork.network.memory import parse_bytes
from openwork.network.paths import read, replaced
from openwork.network.replay.prefix import outputs_of, returning
from openwork.network.replay.tail import uncached
from openwork.network.run import eagerly
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network import Network
    from openwork.network.timeline import Stage

COPIES = 6
"""Tensors of the size of the logits that reading a block of positions holds at once, and some room."""
STREAM = ("resid_pre", "resid_mid", "resid_mid2", "resid_post")
"""Sites that hold the stream itself."""
ADDED = ("attn.out", "cross.out", "mlp.out", "mixer.out")
"""Sites that hold what is added to it."""


@dataclass(eq=False)
class ReadOut:
    """From states of the residual stream to logits.

    Args:
        net: the network.
        stages: its blocks; all are skipped.
        outputs: what each returned in the dry run, for the form in which it hands on the stream.
        width: channels of the stream.
        vocabulary: tokens that have a logit.
        residual: what the check left: the deviation from the network's logits, relative to the largest of them.
    """

    net: Network
    stages: list[Stage]
    outputs: list[Any]
    width: int
    vocabulary: int
    residual: float = 0.0

    @classmethod
    def of(cls, net: Network) -> ReadOut:
        """Find the read-out of a network, and check that it gives the network's logits.

        Raises:
            BadInput: if the network has no residual stream that was found, or does not predict tokens at positions.
            SiteRefused: if its last steps read anything but the stream behind the last block, position by position.
        """
        stages, logits = net.timeline.stages, net.sites.get("logits")
        if not stages:
            raise BadInput(f"{net.name} has no blocks with a residual stream that were found, so no lens can read it")
        if logits is None or logits.axes[1:] != ("position", "vocabulary") or net.vocabulary is None:
            found = "none" if logits is None else str(logits.axes)
            raise BadInput(
                f"expected a network that reads tokens and gives logits of tokens at every position; {net.name} has "
                f"logits of axes {found}"
            )
        last = f"{stages[-1].name}.resid_post"
        if last not in net.sites:
            raise SiteRefused(f"{last} was refused on this network: {net.refused.get(last, 'it was not certified')}")
        try:
            made = outputs_of(net, uncached(net, dict(net.example)), [stage.span for stage in stages])
            outputs = [made[stage.span.module, stage.span.ordinal] for stage in stages]
            run = net.run(dict(net.example), keep=last)
            self = cls(net, stages, outputs, net.sites[last].shape[-1], run.logits.shape[-1])
            order = torch.randperm(run[last].shape[1], generator=torch.Generator().manual_seed(0)).to(run[last].device)
            self.residual = deviation(self(run[last][:, order].detach()), run.logits[:, order].detach())
        except OpenworkError:
            raise
        except Exception as error:  # what a network does behind its blocks may need anything
            raise SiteRefused(f"the last steps of {net.name} cannot be run alone: {in_one_line(error)}") from error
        if not self.residual <= tolerance(net.dtype):
            raise SiteRefused(
                f"the last steps of {net.name} read more than the stream behind its last block: alone they give other "
                f"logits, by {self.residual:.0e} of the largest"
            )
        return self

    def __call__(self, state: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch vocabulary"]:
        """The logits of states of the stream, as if each stood behind the last block; differentiable in `state`.

        Raises:
            BadInput: if the states have another width.
        """
        if state.shape[-1] != self.width:
            raise BadInput(f"expected states of {self.width} channels, those of the stream; got {state.shape[-1]}")
        rows = state.reshape(-1, self.width)
        kwargs = uncached(self.net, self.net.preparer.prepare(torch.zeros(len(rows), 1, dtype=torch.long)).kwargs)
        outputs = {}
        for stage, output in zip(self.stages, self.outputs, strict=True):
            like = read(output, stage.post)
            here = rows.to(like)[:, None] if stage is self.stages[-1] else like.new_zeros(len(rows), 1, like.shape[-1])
            outputs[stage.span.module, stage.span.ordinal] = replaced(output, stage.post, here)
        with eagerly(self.net), returning(outputs):
            logits = first_output(self.net.call(kwargs))
        return logits[:, -1].reshape(*state.shape[:-1], -1)

    @property
    def last(self) -> str:
        """The stream behind the last block, from which the network itself reads."""
        return f"{self.stages[-1].name}.resid_post"

    def sites(self, pattern: str | Site | None = None) -> list[str]:
        """The sites whose states it can read, in order of execution.

        Args:
            pattern: sites that hold the stream, or what is added to it, of the tower that ends at the logits; the
                stream before the first block and behind each unless given.

        Raises:
            BadInput: for a site that is neither.
            UnknownName: for a site that does not exist.
        """
        tower = self.stages[-1].name.rpartition("blocks.")[0]
        if pattern is None:
            stages = [stage.name for stage in self.stages if stage.name.startswith(f"{tower}blocks.")]
            found = [f"{stages[0]}.resid_pre", *(f"{name}.resid_post" for name in stages)]
            return [name for name in found if name in self.net.sites]
        sites = self.net.map.resolve(pattern)
        for site in sites:
            if not site.path.startswith(f"{tower}blocks.") or site.kind not in (*STREAM, *ADDED) or site.index:
                raise BadInput(
                    f"expected sites that hold the residual stream ({', '.join(STREAM)}) or what is added to it "
                    f"({', '.join(ADDED)}); got {site}. A head is read by an attention lens"
                )
        return [str(site) for site in sites]

    def blocks(self, positions: int, memory: str | int) -> Iterator[slice]:
        """Blocks of positions whose logits fit a budget, `COPIES` tensors of them at once; at least one position.

        Args:
            positions: how many there are.
            memory: such as ``"64MiB"``.
        """
        size = max(1, parse_bytes(memory) // (COPIES * 4 * self.vocabulary))
        for first in range(0, positions, size):
            yield slice(first, min(first + size, positions))
