"""Whether replay gives what full forward passes give, checked on this checkpoint before it is used.

The check writes random values at a site of the dry run's example and compares the logits with those of a full pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openwork.errors import OpenworkError
from openwork.network.anatomy import deviation, tolerance
from openwork.network.certify import in_one_line
from openwork.network.paths import Path, leaves, read
from openwork.network.ports import AttentionPort
from openwork.network.replay.meeting import ROUTES
from openwork.network.replay.recording import record
from openwork.network.replay.rows import Place, Rows
from openwork.network.replay.spread import NotSpread, Spread, spreads
from openwork.network.replay.stacked import Row, Stack
from openwork.network.replay.suffix import Suffix
from openwork.network.replay.tail import logits_behind, uncached
from openwork.network.replay.writes import Write
from openwork.network.timeline import Span, Stage
from openwork.site import Site
from openwork.task import Inputs

if TYPE_CHECKING:
    from openwork.network.network import Network


class NotReplayable(OpenworkError):
    """Why a network, or a site of it, is not replayed token by token."""


@dataclass(eq=False)
class Suffixes:
    """What replay of single tokens needs to know of a network, once it was found to hold.

    Args:
        net: the network.
        stages: its blocks.
        arguments: for each block, the axes of the tensors among its arguments.
        outputs: for each call within a block, the axes of what it returns.
        before: for each block, the calls that are over when its attention begins, if all of them can be cut to tokens.
        token_bytes: about what one token takes while a block computes it.
        wide: why the head must compute all logits; empty if it may compute single ones.
        residuals: what the checks of each site left, relative to the largest logit.
        places: where each site lies, or why it is not replayed.
    """

    net: Network
    stages: list[Stage]
    arguments: list[dict[Path, Spread]]
    outputs: dict[tuple[nn.Module, int], dict[Path, Spread]]
    before: list[tuple[Span, ...]]
    token_bytes: int
    wide: str = "the last of its calls that gives logits is no linear map of its own"
    residuals: dict[str, float] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, net: Network) -> Suffixes:
        """Find the axes of a network's arguments and check that replay holds.

        Raises:
            NotReplayable: if it does not, with the reason.
        """
        stages = _stages(net)
        kwargs, ids = net.example, net.example[net.preparer.main]
        if any(isinstance(v, Tensor) for k, v in kwargs.items() if k != net.preparer.main):
            raise NotReplayable("it takes more than token ids")
        if ids.shape[1] < 6:
            raise NotReplayable(f"its longest input has {ids.shape[1]} tokens")
        spans = [span for stage in stages for child in stage.span.children for span in child.walk()]
        main = net.preparer.main
        shapes = (ids, torch.cat((ids, ids)), ids[:, :-2])
        try:
            runs = [record(net, uncached(net, {main: x}), stages, spans) for x in shapes]
        except Exception as error:
            raise NotReplayable(f"its blocks cannot be recorded: {in_one_line(error)}") from error
        if any(block.hidden.ndim != 3 for block in runs[0].blocks):
            raise NotReplayable("the stream has other axes than (batch, position, channel)")
        outputs: dict[tuple[nn.Module, int], dict[Path, Spread]] = {}
        try:
            arguments = [spreads(*(r.blocks[i].arguments for r in runs)) for i in range(len(stages))]
        except NotSpread as error:
            raise NotReplayable(f"an argument of its blocks cannot be cut to single tokens: {error}") from error
        for span in spans:
            key = span.module, span.ordinal
            try:
                outputs[key] = spreads(*(r.outputs[key] for r in runs))
            except (NotSpread, KeyError):
                continue
        width = ids.shape[1]
        sizes = [
            sum(leaf.numel() * leaf.element_size() for s in stage.span.walk() for leaf in _returned(runs[0].outputs, s))
            for stage in stages
        ]
        before = [_before(stage, outputs, net) for stage in stages]
        self = cls(net, stages, arguments, outputs, before, max(sizes) // ids.numel())
        for name in (f"{stages[0].name}.resid_pre", f"{stages[len(stages) // 2].name}.resid_pre"):
            self.residuals[name] = self._checked(name, (0, width // 2))
        if net.timeline.head is not None:
            self.wide = self._wide()
        return self

    @property
    def narrow(self) -> bool:
        """Whether the head may compute single logits."""
        return not self.wide

    def place(self, site: str) -> Place | None:
        """Where a site lies, once it was checked that rows may enter there; None if they may not."""
        if site not in self.places and site not in self.refused:
            try:
                place = self._located(site)
                self.places[site] = place
                width = self.net.map.width
                if site not in self.residuals:
                    self.residuals[site] = self._checked(site, (1, width - 2))
            except NotReplayable as error:
                self.places.pop(site, None)
                self.refused[site] = str(error)
        return self.places.get(site)

    def _located(self, site: str) -> Place:
        net = self.net
        info, port = net.map.info(site), net.map.port(site)
        kind = Site.parse(site).kind
        if info.axes[:2] != ("batch", "position") or len(info.axes) < 3 or info.part_axis != 2:
            raise NotReplayable(f"its axes are {info.axes}")
        if info.shape[:2] != (net.map.rows, net.map.width):
            raise NotReplayable("its positions are not those of the inputs")
        names = [stage.name for stage in self.stages]
        for kind_, shift in (("resid_pre", 0), ("resid_post", 1)):
            if kind == kind_ and site.removesuffix(f".{kind_}") in names:
                number = names.index(site.removesuffix(f".{kind_}")) + shift
                return Place(site, number, True, skipped=self.before[number] if number < len(names) else ())
        time = net.timeline.time(port)
        number = next((i for i, s in enumerate(self.stages) if s.span.start < time < s.span.end), None)
        if number is None:
            raise NotReplayable("it lies outside the blocks")
        stage = self.stages[number]
        part = port.part if isinstance(port, AttentionPort) else None
        last = max((a.time for a in stage.attentions), default=stage.span.start)
        later = part in ("k", "v") or (part is None and time < last)
        skipped = self.before[number] if later else tuple(stage.span.finished(time))
        if not later and any((s.module, s.ordinal) not in self.outputs for s in skipped):
            raise NotReplayable("what ran before it cannot be cut to single tokens")
        return Place(site, number, False, later, part == "q", skipped)

    def _checked(self, site: str, positions: tuple[int, int]) -> float:
        """What random writes at a site leave between replay and full passes.

        Raises:
            NotReplayable: if it is more than rounding.
        """
        net = self.net
        if site not in self.places:
            self.places[site] = self._located(site)
        try:
            got, want, plain = self._both(site, positions)
        except Exception as error:
            raise NotReplayable(f"replaying it fails: {in_one_line(error)}") from error
        residual = deviation(got, want)
        if not residual <= tolerance(net.dtype):
            raise NotReplayable(f"replay differs from a full pass by {residual:.0e}")
        info = net.map.info(site)
        if info.status == "certified" and torch.equal(want, plain):
            raise NotReplayable("a random write does not reach what is read, so nothing was checked")
        return residual

    def _both(self, site: str, positions: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of random writes by replay and by full passes, and those without writes."""
        net = self.net
        ids = net.example[net.preparer.main]
        count, width = ids.shape
        inputs = Inputs(tuple(tuple(row) for row in ids.tolist()))
        plain = net.run(inputs, keep=site)
        value = plain[site]
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(value.shape, generator=generator).to(value)
        new = value + noise * (value.float().std().nan_to_num(1.0).to(value) + 1e-3)
        if site.endswith(".scale"):
            new = value * (1 + noise.abs())
        where = torch.zeros(count, width, dtype=torch.bool)
        for row in range(count):
            where[row, positions[row % 2]] = True
        at = torch.tensor([width - 1 - row % 2 for row in range(count)])
        write = Write(site, (), new, where)
        rows = Rows.of([(range(count), [write])], self.places)
        base = record(net, uncached(net, {net.preparer.main: ids}), self.stages, self.places[site].skipped)
        suffix = Suffix(net, self, base, at)
        hidden, alive = suffix.run(rows)
        got = plain.logits[torch.arange(count), at].clone()
        if len(alive):
            found = logits_behind(net, self.stages, suffix.base, hidden)
            got[rows.example[alive].to(got.device)] = found
        full = Stack(net, inputs, {}, {}).run([Row(range(count), writes=[write])])
        return got, full[torch.arange(count), at], plain.logits[torch.arange(count), at]

    def _wide(self) -> str:
        """Why the head does not give the same single logits when it computes no others; empty if it does."""
        net = self.net
        ids = net.example[net.preparer.main]
        base = record(net, uncached(net, {net.preparer.main: ids}), self.stages)
        hidden = read(base.blocks[-1].output, self.stages[-1].post)[:, -1]
        every = logits_behind(net, self.stages, base, hidden)
        columns = torch.tensor([[1, every.shape[-1] - 1]] * len(ids), device=every.device)
        try:
            some = logits_behind(net, self.stages, base, hidden, columns)
        except Exception as error:  # what the network does with its logits needs all of them
            return f"computing single ones fails: {in_one_line(error)}"
        residual = deviation(some, every.gather(-1, columns))
        return "" if residual <= tolerance(net.dtype) else f"single ones differ from all by {residual:.0e}"


def _stages(net: Network) -> list[Stage]:
    """The blocks of a network whose replay could hold.

    Raises:
        NotReplayable: if it cannot, with the reason.
    """
    stages = net.timeline.stages
    if not stages:
        raise NotReplayable("it has no blocks")
    if not net.causal:
        raise NotReplayable("its attention is not causal")
    if any(not stage.name.startswith("blocks.") for stage in stages):
        raise NotReplayable("it has several towers")
    for stage in stages:
        if stage.span.module in net.timeline.repeated:
            raise NotReplayable(f"{stage.name} is called several times")
        if not stage.linked:
            raise NotReplayable(f"{stage.name} does not hand its stream straight to the next block")
        if len(stage.attentions) > 1 or any(a.route not in ROUTES or a.ordinal for a in stage.attentions):
            raise NotReplayable(f"the attention of {stage.name} cannot be met at its kernel")
    return stages


def _before(stage: Stage, outputs: Mapping[tuple[nn.Module, int], Any], net: Network) -> tuple[Span, ...]:
    spans = tuple(span for a in stage.attentions for span in stage.span.finished(a.time))
    sound = all((s.module, s.ordinal) in outputs and s.module not in net.timeline.repeated for s in spans)
    return spans if sound else ()


def _returned(outputs: Mapping[tuple[nn.Module, int], Any], span: Span) -> list[Tensor]:
    """The tensors that an innermost call returned."""
    return [] if span.children else [leaf for _, leaf in leaves(outputs.get((span.module, span.ordinal)))]
