"""Skipping what ran before an edit: calls of modules that finished earlier return what the unedited run recorded.

This serves whole rows of any network: encoders, vision transformers, CNNs. Where the dry run's example tells the axes
of a recorded output, the call is skipped; each point of entry is checked against a full pass before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from openwork.network.anatomy import deviation, tolerance
from openwork.network.certify import first_output, in_one_line
from openwork.network.paths import Path, copied
from openwork.network.replay.spread import NotSpread, Spread, for_rows, spreads
from openwork.network.run import eagerly
from openwork.network.session import Session
from openwork.network.timeline import Span

if TYPE_CHECKING:
    from openwork.network.network import Network


@contextmanager
def calling(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else for a while; its hooks run as ever."""
    own = module.__dict__.get("forward")
    module.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        module.__dict__.pop("forward", None)
        if own is not None:
            module.__dict__["forward"] = own


@contextmanager
def returning(outputs: Mapping[tuple[nn.Module, int], Any]) -> Iterator[None]:
    """Let calls of modules return what is given instead of computing.

    Args:
        outputs: (module, which of its calls) -> what it returns.
    """
    with ExitStack() as stack:
        for module in dict.fromkeys(module for module, _ in outputs):
            stack.enter_context(calling(module, _replaying(module, outputs)))
        yield


def _replaying(module: nn.Module, outputs: Mapping[tuple[nn.Module, int], Any]) -> Callable[..., Any]:
    original, calls = module.forward, -1

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        key = (module, calls)
        return outputs[key] if key in outputs else original(*args, **kwargs)

    return forward


class Entries:
    """Where whole rows of a network may enter a pass, as checked on this checkpoint.

    Args:
        net: the network.
    """

    def __init__(self, net: Network):
        self.net = net
        self.axes: dict[tuple[nn.Module, int], dict[Path, Spread]] = {}
        self.unsound: dict[str, str] = {}
        self.example = dict(net.example)
        self._recorded: dict[tuple[nn.Module, int], Any] | None = None

    def spans(self, site: str) -> list[Span]:
        """The calls that need not be made again for a write at a site; none if that was found not to hold."""
        return [] if self.reason(site) else self._finished(site)

    def reason(self, site: str) -> str:
        """Why nothing is skipped for a write at a site; empty if that was found to hold."""
        if site not in self.unsound:
            self.unsound[site] = self._checked(site)
        return self.unsound[site]

    def _finished(self, site: str) -> list[Span]:
        self._learn()
        time = self.net.timeline.time(self.net.map.port(site))
        spans = list(self.net.timeline.root.finished(time))
        out: list[Span] = []
        repeated = self.net.timeline.repeated  # their calls are counted, so none may be lost within another
        while spans:  # a call whose axes cannot be told gives way to those within it
            span = spans.pop()
            whole = all(inner is span or inner.module not in repeated for inner in span.walk())
            if whole and (span.module, span.ordinal) in self.axes:
                out.append(span)
            else:
                spans.extend(span.children)
        return out

    def _learn(self) -> None:
        """Record every call of the dry run's example, and of the example given twice, to tell axes of examples."""
        if self._recorded is not None:
            return
        net = self.net
        spans = [span for child in net.timeline.root.children for span in child.walk()]
        rows = net.map.rows
        twice = {
            k: torch.cat((v, v)) if isinstance(v, Tensor) and v.ndim and v.shape[0] == rows else v
            for k, v in self.example.items()
        }
        once, double = outputs_of(net, self.example, spans), outputs_of(net, twice, spans)
        self._recorded = once
        for key, value in once.items():
            try:
                self.axes[key] = spreads(value, double[key], value)
            except (NotSpread, KeyError):
                continue

    def _checked(self, site: str) -> str:
        """What keeps a random write at a site from giving the same with and without skipping."""
        net = self.net
        try:
            spans = self._finished(site)
        except Exception as error:  # a network that does not run on its example twice, say
            return f"its calls cannot be recorded: {in_one_line(error)}"
        if not spans:
            return "nothing that can be skipped comes before it"
        generator = torch.Generator().manual_seed(0)
        noise: list[Tensor] = []

        def disturb(value: Tensor) -> Tensor:
            if not noise:
                noise.append(torch.randn(value.shape, generator=generator).to(value))
            return value + noise[0] * (value.float().std().nan_to_num(1.0).to(value) + 1e-3)

        def once(outputs: Mapping[tuple[nn.Module, int], Any]) -> Tensor:
            with torch.no_grad(), eagerly(net), Session(net.root, net.map.rows) as session:
                session.count_steps()
                net.map.port(site).attach(session, disturb, True)
                session.enter(returning(outputs))
                session.install()
                return first_output(net.call(self.example))

        assert self._recorded is not None
        try:
            full, skipped = once({}), once({(s.module, s.ordinal): self._recorded[s.module, s.ordinal] for s in spans})
        except Exception as error:  # a network that looks at what the skipped calls left behind, say
            return f"skipping what comes before it fails: {in_one_line(error)}"
        residual = deviation(skipped, full)
        return "" if residual <= tolerance(net.dtype) else f"skipping what comes before it changes it by {residual:.0e}"


class Prefix:
    """One unedited run of the examples, of which later passes compute only what comes after their first edit.

    Args:
        entries: where rows of the network may enter.
        prepared: the arguments of the unedited call.
        rows: the number of examples.
        sites: the sites that rows will enter at.
    """

    def __init__(self, entries: Entries, prepared: Any, rows: int, sites: Iterable[str]):
        self.entries, self.rows = entries, rows
        self.spans = {site: entries.spans(site) for site in sites}
        wanted = {(s.module, s.ordinal): s for spans in self.spans.values() for s in spans}
        self.outputs = outputs_of(entries.net, prepared.kwargs, list(wanted.values())) if wanted else {}

    def saves(self, site: str) -> bool:
        """Whether entering at a site saves anything."""
        return bool(self.spans.get(site))

    @contextmanager
    def skipping(self, site: str, examples: Sequence[int]) -> Iterator[None]:
        """Skip what was over before a site, on these examples."""
        picked = torch.as_tensor(examples)
        outputs = {}
        for span in self.spans[site]:
            key = span.module, span.ordinal
            outputs[key] = for_rows(self.outputs[key], self.entries.axes[key], picked, self.rows, not span.volatile)
        with returning(outputs):
            yield


def outputs_of(net: Network, kwargs: Mapping[str, Any], spans: Sequence[Span]) -> dict[tuple[nn.Module, int], Any]:
    """What calls return in one unedited pass."""
    out: dict[tuple[nn.Module, int], Any] = {}
    with torch.no_grad(), eagerly(net), Session(net.root) as session:
        session.count_steps()
        take(net, session, spans, out)
        session.install()
        net.call(kwargs)
    return out


def take(net: Network, session: Session, spans: Iterable[Span], out: dict[tuple[nn.Module, int], Any]) -> None:
    """Take down what calls return during a session; call it before `Session.install`."""
    wanted = {(span.module, span.ordinal): span for span in spans}
    for module in dict.fromkeys(module for module, _ in wanted):
        several = module in net.timeline.repeated
        if several:
            session.count_calls(module)

        def after(module: nn.Module, args: Any, output: Any, several: bool = several) -> None:
            key = (module, session.nth_call(module) if several else 0)
            if key in wanted:
                out[key] = copied(output) if wanted[key].volatile else output

        session.on_output(module, after)
