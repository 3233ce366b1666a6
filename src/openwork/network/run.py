"""One run of a network: what was kept, what was edited, the output and the gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openwork.edit import UNEDITED, Custom, Edit, Substitute
from openwork.errors import BadInput, EditMissed, OpenworkError, UnknownName
from openwork.network.apply import editor
from openwork.network.certify import first_output, tracked
from openwork.network.context import Context, Ledger, SourceRun
from openwork.network.inputs import Prepared
from openwork.network.layout import Layout
from openwork.network.ports import joined, select
from openwork.network.rules import Rules, require_seen
from openwork.network.session import Session, Stop, Visit
from openwork.rule import Rule
from openwork.site import Site

if TYPE_CHECKING:
    from openwork.network.network import Network


@dataclass(eq=False)
class Run:
    """The result of `Network.run`.

    Args:
        output: what the module returned, or None if the run stopped early.
        values: site -> kept tensor.
        layout: where the real tokens lie.
        ledger: for every edit and site, how often it fired and how many rows it reached.
        grads: site -> gradient of the metric's sum, like the kept tensor.
        axes_of: site -> names of its axes.
        metric: (batch,) what `grads` gave, if it was asked for.
        ruled: how often each backward rule fired, by what it is about.
    """

    output: Any
    values: dict[str, Tensor]
    layout: Layout
    ledger: list[Ledger] = field(default_factory=list)
    grads: dict[str, Tensor] = field(default_factory=dict)
    axes_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    metric: Tensor | None = None
    ruled: dict[str, int] = field(default_factory=dict)

    @property
    def logits(self) -> Tensor:
        """The output that predictions are read from, e.g. (batch, position, vocabulary)."""
        if self.output is None:
            raise BadInput("this run stopped before the output (until=); run without until to get logits")
        return first_output(self.output)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of real tokens of each row."""
        return self.layout.lengths

    def __getitem__(self, site: str | Site) -> Tensor:
        name = str(Site.parse(site))
        if name not in self.values:
            hint = "Pass it in keep=[...]."
            raise UnknownName.among("kept site", name, self.values, hint)
        return self.values[name]

    def __contains__(self, site: object) -> bool:
        return str(site) in self.values

    def axes(self, site: str | Site) -> tuple[str, ...]:
        """The names of the axes of a kept tensor."""
        self[site]
        return self.axes_of[str(Site.parse(site))]

    def rows(self, site: str | Site) -> list[Tensor]:
        """A kept tensor row by row, without padding; its second axis must be positions."""
        value, axes = self[site], self.axes(site)
        if axes[:2] != ("batch", "position"):
            raise BadInput(f"expected a site with axes (batch, position, ...); {site} has {axes}")
        spans = zip(self.layout.offsets, self.layout.lengths, strict=True)
        return [value[r, offset : offset + length] for r, (offset, length) in enumerate(spans)]

    def to_xarray(self, site: str | Site) -> Any:
        """A kept tensor as an `xarray.DataArray` with its axes named."""
        import xarray

        return xarray.DataArray(self[site].detach().float().cpu().numpy(), dims=self.axes(site), name=str(site))

    def __repr__(self) -> str:
        kept = ", ".join(f"{name} {tuple(value.shape)}" for name, value in list(self.values.items())[:6])
        more = f", … {len(self.values) - 6} more" if len(self.values) > 6 else ""
        return f"Run({self.layout.rows} × {self.layout.width}; kept: {kept or 'nothing'}{more})"


@dataclass(eq=False)
class Plan:
    """What happens at which site in one call, ready to be attached.

    Args:
        keep: the sites to keep, by base name.
        edits: the edits, by base name of the site they write.
        until: base name of the site to stop at.
        grads: whether kept tensors take part in a graph.
        rules: what replaces derivatives.
        sink: where kept values go; None to hold them.
        order: base names of all sites touched, in order of execution.
        idle: sessions of earlier calls with all that they attach, each with the dictionary that its values arrive in.
    """

    keep: dict[str, list[Site]]
    edits: dict[str, list[Edit]]
    until: str | None = None
    grads: bool = False
    rules: tuple[Rule, ...] = ()
    sink: Callable[[str, Tensor], Tensor | None] | None = None
    order: list[str] = field(default_factory=list)
    axes_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    idle: list[tuple[Session, dict[str, Tensor]]] = field(default_factory=list, init=False)

    @property
    def only_keeps(self) -> bool:
        """Whether nothing of it depends on the call, so that what was attached once serves the next call too."""
        return not self.edits and self.until is None and self.sink is None

    @property
    def sites(self) -> set[str]:
        """Base names of all sites touched."""
        reads = {e.reads.path for es in self.edits.values() for e in es if isinstance(e, Substitute) and e.reads}
        return {*self.keep, *self.edits, *reads, *([self.until] if self.until else [])}

    def axes(self, net: Network) -> dict[str, tuple[str, ...]]:
        """The axes of every kept site."""
        if not self.axes_of:
            self.axes_of = {str(s): net.map.info(n).axes for n, sites in self.keep.items() for s in sites}
        return self.axes_of


def make_plan(net: Network, keep: Any, edits: Any, until: Any, grads: bool, rules: tuple[Rule, ...] = ()) -> Plan:
    """Resolve patterns and check everything that can be checked before running.

    What only keeps is resolved once and remembered.
    """
    if not edits and until is None:
        wanted = (keep,) if isinstance(keep, (str, Site)) else tuple(keep)
        key = (wanted, grads, rules)
        if key not in net.plans:
            net.plans[key] = _resolved(net, wanted, (), None, grads, rules)
        return net.plans[key]
    return _resolved(net, keep, edits, until, grads, rules)


def _resolved(net: Network, keep: Any, edits: Any, until: Any, grads: bool, rules: tuple[Rule, ...]) -> Plan:
    keeps: dict[str, list[Site]] = {}
    for pattern in [keep] if isinstance(keep, (str, Site)) else keep:
        for site in net.map.resolve(pattern):
            keeps.setdefault(site.path, []).append(site)
    written: dict[str, list[Edit]] = {}
    for edit in [edits] if isinstance(edits, Edit) else edits:
        if not isinstance(edit, Edit):
            raise BadInput(f"expected edits such as ow.Patch(...); got {edit!r}")
        for site in net.map.resolve(edit.site):
            written.setdefault(site.path, []).append(_at(net, edit, site))
    stop = None
    if until is not None:
        stop = net.map.resolve(until)[-1].path
    plan = Plan(keeps, written, stop, grads, rules)
    plan.order = sorted(plan.sites, key=net.map.order)
    return plan


def _at(net: Network, edit: Edit, site: Site) -> Edit:
    """The edit at one of the sites that its pattern selects; what it reads follows into the same block."""
    if not isinstance(edit, Substitute) or edit.reads is None:
        return edit if edit.site == site else replace(edit, site=site)
    reads = edit.reads.path.replace("*", str(site.block))
    found = net.map.resolve(reads)[0]
    if net.map.order(found.path) > net.map.order(site.path):
        raise BadInput(f"expected a site that is computed before {site} for a Substitute to read; got {found}")
    return replace(edit, site=site, reads=found)


def attach(
    net: Network,
    session: Session,
    plan: Plan,
    layout: Layout,
    values: dict[str, Tensor],
    sources: Mapping[str, SourceRun],
    surrogates: Mapping[str, Callable[[Tensor], Tensor]],
) -> list[Ledger]:
    """Attach everything a plan asks for, in order of execution; kept tensors arrive in `values`."""
    for edit in (e for edits in plan.edits.values() for e in edits if isinstance(e, Substitute)):
        if edit.by not in surrogates:
            raise UnknownName.among("surrogate", edit.by, surrogates, "Pass surrogates={name: function} to the run.")
    ledgers: list[Ledger] = []
    reads: dict[str, Tensor] = {}
    read_by = {e.reads.path for es in plan.edits.values() for e in es if isinstance(e, Substitute) and e.reads}
    for name in plan.order:
        info = net.map.info(name)
        edits = plan.edits.get(name, [])
        visit: Visit | None = None
        if edits:
            context = Context.at(net, session, name, layout, sources, surrogates)
            context.reads = reads
            for edit in edits:
                ledger = Ledger(edit, name)
                ledgers.append(ledger)
                step = editor(edit, context, ledger)
                visit = step if visit is None else joined(visit, step)
        if name in read_by:
            visit = joined(visit, _hold(reads, name)) if visit else _hold(reads, name)
        if name in plan.keep:
            keeper = tracked(values, name) if plan.grads else _keep(plan, name, info.part_axis, values)
            visit = joined(visit, keeper) if visit else keeper
        if name == plan.until:
            visit = joined(visit, _stop) if visit else _stop
        assert visit is not None
        net.map.port(name).attach(session, visit, bool(edits) or (plan.grads and name in plan.keep))
    return ledgers


def _hold(reads: dict[str, Tensor], name: str) -> Visit:
    def visit(value: Tensor) -> None:
        reads[name] = value

    return visit


def _keep(plan: Plan, name: str, part_axis: int, values: dict[str, Tensor]) -> Visit:
    sites, sink = plan.keep[name], plan.sink
    if sink is None and len(sites) == 1 and not sites[0].index:

        def whole(value: Tensor) -> None:
            values[name] = value

        return whole

    def visit(value: Tensor) -> None:
        for site in sites:
            part = select(value, part_axis, site.index)
            if site.index:
                part = part.clone()  # a view would hold the whole tensor
            kept = part if sink is None else sink(str(site), part)
            if kept is not None:
                values[str(site)] = kept

    return visit


def _stop(value: Tensor) -> None:
    raise Stop


def execute(
    net: Network,
    prepared: Prepared,
    plan: Plan,
    sources: Mapping[str, SourceRun],
    surrogates: Mapping[str, Callable[[Tensor], Tensor]],
    metric: Callable[[Run], Tensor] | None = None,
) -> Run:
    """Run the module once under a plan."""
    if not plan.order:
        with torch.no_grad():
            return Run(called(net, prepared, plan), {}, prepared.layout)
    session, values, ledgers = _attached(net, plan, prepared.layout, sources, surrogates)
    output = None
    with torch.set_grad_enabled(plan.grads), eagerly(net), session:
        session.install()
        with contextlib.suppress(Stop):
            output = called(net, prepared, plan)
        run = Run(output, dict(values), prepared.layout, ledgers, axes_of=plan.axes(net))
        check_fired(plan, run, net)
        if plan.rules:
            rules = session.once(Rules, lambda: Rules(plan.rules))
            require_seen(net, rules)
            run.ruled = dict(+rules.fired)
        if metric is not None:
            _backward(net, plan, run, metric)
    values.clear()
    if plan.only_keeps:
        plan.idle.append((session, values))
    return run


def _attached(
    net: Network,
    plan: Plan,
    layout: Layout,
    sources: Mapping[str, SourceRun],
    surrogates: Mapping[str, Callable[[Tensor], Tensor]],
) -> tuple[Session, dict[str, Tensor], list[Ledger]]:
    """A session with everything that a plan asks for, the dictionary that its values arrive in, and the ledgers.

    An idle one of the plan is taken where there is one; calls within calls and other threads find none and make theirs.
    """
    with contextlib.suppress(IndexError):
        session, values = plan.idle.pop()
        session.rows = layout.rows
        return session, values, []
    session, values = Session(net.root, layout.rows), {}
    if plan.edits:
        session.count_steps()
    if plan.rules:
        session.once(Rules, lambda: Rules(plan.rules)).attach(session, net.root)
    return session, values, attach(net, session, plan, layout, values, sources, surrogates)


def eagerly(net: Network) -> contextlib.AbstractContextManager[Any]:
    """Let compiled code run eagerly for the length of a call, for compiled graphs do not call hooks."""
    if net.root is not net.module or any(m._compiled_call_impl is not None for m in net.modules):
        return torch.compiler.set_stance("force_eager")
    return contextlib.nullcontext()


def called(net: Network, prepared: Prepared, plan: Plan | None = None) -> Any:
    """What the module returns.

    Raises:
        BadInput: if it cannot be called so; what a function of the user raises comes through as it is.
    """
    check_mode(net)
    try:
        return net.call(prepared.kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        edits = [e for es in plan.edits.values() for e in es] if plan is not None else []
        if isinstance(error, OpenworkError) or any(isinstance(e, (Custom, Substitute)) for e in edits):
            raise
        shapes = {k: tuple(v.shape) if isinstance(v, Tensor) else v for k, v in prepared.kwargs.items()}
        raise BadInput(f"{net.name} failed on {shapes}: {type(error).__name__}: {error}") from error


def check_mode(net: Network) -> None:
    """Refuse a module that went back to training after it was opened, where dropout would change every number."""
    if net.root.training:
        raise BadInput(f"expected a module in evaluation mode; {net.name} is in training mode, call .eval() first")


def check_fired(plan: Plan, run: Run, net: Network) -> None:
    """Every edit and every keep must have fired.

    Raises:
        EditMissed: naming the first that did not.
    """
    for ledger in run.ledger:
        if not ledger.rows:
            why = "the run stopped before it (until=)" if plan.until else "it reached no row of any step"
            raise EditMissed(
                f"{type(ledger.edit).__name__} at {ledger.edit.site} never fired: {why}; {ledger.edit.where}"
            )
    if plan.sink is not None:
        return
    for name, sites in plan.keep.items():
        if name in run.values:
            continue
        missing = sites if plan.grads else [s for s in sites if str(s) not in run.values]
        if missing:
            why = f"the run stopped at {plan.until}" if plan.until else "this input does not go through it"
            raise EditMissed(f"the kept site {missing[0]} never fired: {why}")


def _backward(net: Network, plan: Plan, run: Run, metric: Callable[[Run], Tensor]) -> None:
    value = metric(run)
    if not isinstance(value, Tensor) or value.shape != (run.layout.rows,):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadInput(f"expected the metric to return shape ({run.layout.rows},); got {got}")
    if not bool(torch.isfinite(value).all()):
        raise BadInput(f"expected finite metric values; got {value.detach().tolist()}")
    held = {name: run.values[name] for name in plan.keep}
    leaves = list(held.values())
    # nothing kept may reach the metric where rules freeze what lies between
    grads = torch.autograd.grad(value.sum(), leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
    run.metric = value.detach()
    run.values = {}
    for (name, kept), grad in zip(held.items(), grads, strict=True):
        full = torch.zeros_like(kept) if grad is None else grad
        axis = net.map.info(name).part_axis
        for site in plan.keep[name]:
            run.values[str(site)] = select(kept.detach(), axis, site.index)
            run.grads[str(site)] = select(full, axis, site.index)
    run.output = _detached(run.output)


def _detached(output: Any) -> Any:
    from openwork.network.paths import leaves, replaced

    for path, leaf in list(leaves(output)):
        output = replaced(output, path, leaf.detach()) if leaf.requires_grad else output
    return output


def resolve_sources(net: Network, plan: Plan, prepared: Prepared, sources: Mapping[str, Any]) -> dict[str, SourceRun]:
    """The source runs that the edits of a plan read, each run once, keeping only what is read.

    Raises:
        UnknownName: if an edit names a source that was not given.
    """
    needed: dict[str, list[str]] = {}
    for name, edits in plan.edits.items():
        for edit in edits:
            if edit.needs is not None and name not in needed.setdefault(edit.needs, []):
                needed[edit.needs].append(name)
    runs: dict[str, SourceRun] = {}
    for source, names in needed.items():
        if source == UNEDITED and source not in sources:
            given: Any = prepared
        elif source in sources:
            given = sources[source]
        else:
            hint = 'Pass sources={"%s": inputs_or_run} to the run.' % source  # noqa: UP031
            raise UnknownName.among("source", source, [*sources, UNEDITED], hint)
        run = given if isinstance(given, Run) else net.run(given, keep=names)
        runs[source] = SourceRun({name: run[name] for name in names}, run.layout)
    return runs
