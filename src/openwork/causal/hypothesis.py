"""A hypothesis of how a network computes: steps at sites, what each reads, and which inputs are the same to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openwork.errors import BadInput, UnknownName
from openwork.site import Site, Where
from openwork.task import Batch, Inputs

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Example:
    """What a label may look at.

    Args:
        row: its number among the examples that are scrubbed together.
        ids: its token ids; empty for inputs that are no tokens.
        groups: token group -> its positions in this example.
        answer: the right answer.
        wrong: the wrong one.
        at: the position that the answer is read from.
    """

    row: int
    ids: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]]
    answer: int
    wrong: int
    at: int


Label = Callable[[Example], Hashable]


def examples_of(batch: Batch) -> list[Example]:
    """The examples of a batch, as labels see them."""
    ids = batch.clean.ids if isinstance(batch.clean, Inputs) else ((),) * len(batch)
    return [
        Example(row, ids[row], {k: v[row] for k, v in batch.clean.groups.items()}, *rest)
        for row, rest in enumerate(zip(batch.answer, batch.wrong, batch.at, strict=True))
    ]


@dataclass(frozen=True)
class Step:
    """One step of a computation, and where the network is claimed to do it.

    Args:
        name: its name.
        sites: `Site`s: where its result stands, one or several that belong together.
        label: a `Label`: what it computes, as a function of the example. On examples of equal labels its result is
            claimed to be the same as far as anything later cares.
        inputs: the names of the steps that it reads; it is claimed to read nothing else. Without any, nothing is
            claimed of how it comes about.
        where: a `Where`: at which positions or token group; everywhere unless given.
    """

    name: str
    sites: Any
    label: Any
    inputs: Sequence[str] = ()
    where: Any = field(default_factory=Where)

    def __post_init__(self) -> None:
        given = (self.sites,) if isinstance(self.sites, (str, Site)) else tuple(self.sites)
        object.__setattr__(self, "sites", tuple(Site.parse(site) for site in given))
        object.__setattr__(self, "inputs", (self.inputs,) if isinstance(self.inputs, str) else tuple(self.inputs))
        object.__setattr__(self, "where", Where.of(self.where))
        if not self.name or not self.sites or not callable(self.label):
            raise BadInput(f"expected a step with a name, sites and a function of an Example as label; got {self!r}")


@dataclass(frozen=True)
class Hypothesis:
    """Steps from the inputs to the output.

    Args:
        steps: the steps.
        output: the names of the steps that the output reads; it is claimed to read nothing else.

    Raises:
        BadInput: for steps of one name, in a circle, or that nothing reads.
        UnknownName: for an input that is no step.
    """

    steps: Sequence[Step]
    output: Sequence[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        object.__setattr__(self, "output", (self.output,) if isinstance(self.output, str) else tuple(self.output))
        names = [step.name for step in self.steps]
        if not names or len(set(names)) < len(names):
            raise BadInput(f"expected at least one step, each with a name of its own; got {names}")
        reached: set[str] = set()
        for name in self.output:
            self._reach(name, (), reached)
        if reached != set(names):
            raise BadInput(f"expected every step to lead to the output; nothing reads {sorted(set(names) - reached)}")

    def _reach(self, name: str, above: tuple[str, ...], reached: set[str]) -> None:
        if name in above:
            raise BadInput(f"expected steps that do not read themselves; {' <- '.join((*above, name))} is a circle")
        reached.add(name)
        for child in self[name].inputs:
            self._reach(child, (*above, name), reached)

    def __getitem__(self, name: str) -> Step:
        found = {step.name: step for step in self.steps}
        if name not in found:
            raise UnknownName.among("step", name, found)
        return found[name]

    @property
    def names(self) -> list[str]:
        """The names of its steps, in the order given."""
        return [step.name for step in self.steps]

    def check(self, net: Network) -> None:
        """Refuse sites that the network has not, and inputs that come too late to be read.

        Raises:
            UnknownName: for a site that does not exist.
            SiteRefused: for a site that failed its certificate.
            BadInput: for a pattern of several sites, attention weights, or an input that runs after what reads it.
        """
        for step in self.steps:
            for site in step.sites:
                if net.map.resolve(site) != [site] or {"query", "key"} & set(net.map.info(site.path).axes):
                    raise BadInput(
                        f"expected activations, each site by its own name, in step {step.name!r}; got {site}"
                    )
            first = min(net.map.order(site.path) for site in step.sites)
            for child in step.inputs:
                last = max(self[child].sites, key=lambda site: net.map.order(site.path))
                if net.map.order(last.path) >= first:
                    raise BadInput(
                        f"expected step {child!r} to run before {step.name!r}, which reads it; {last} does not"
                    )

    def to_json(self) -> list[dict[str, Any]]:
        """Its steps as JSON values; of labels the names alone."""
        return [
            {
                "name": step.name,
                "sites": [str(site) for site in step.sites],
                "where": step.where.group or step.where.positions,
                "label": getattr(step.label, "__name__", type(step.label).__name__),
                "inputs": list(step.inputs),
                "output": step.name in self.output,
            }
            for step in self.steps
        ]
