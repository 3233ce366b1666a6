"""Many runs of the same inputs that differ only from some site on: what comes before it is computed once.

    later = Behind(net, inputs, ["module:stages.0.out", "module:stages.1.out"])
    for edits in many:                          # each enters at the last of these that none of its edits precedes
        later.run(edits=edits, keep="module:stages.2.out", until="module:stages.2.out")

Whether anything may be skipped is checked on this checkpoint (see `openwork.network.replay.prefix`); where it may not,
every run is a full one and gives the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from openwork.edit import Edit
from openwork.errors import BadInput
from openwork.network.replay.prefix import Entries, Prefix
from openwork.network.run import Run
from openwork.site import Site
from openwork.task import Inputs, Tensors

if TYPE_CHECKING:
    from openwork.network.network import Network


class Behind:
    """Runs from a site on.

    Args:
        net: the network.
        inputs: of all runs.
        sites: where runs may enter.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for inputs that do not fit.
    """

    def __init__(self, net: Network, inputs: Inputs | Tensors | Tensor, sites: str | Site | Iterable[str | Site]):
        named = [sites] if isinstance(sites, (str, Site)) else sites
        paths = {site.path for pattern in named for site in net.map.resolve(pattern)}
        self.net, self.sites = net, sorted(paths, key=lambda path: _time(net, path))
        self.inputs = Tensors({net.preparer.main: inputs}) if isinstance(inputs, Tensor) else inputs
        net.entries = net.entries or Entries(net)
        self.prefix = Prefix(net.entries, net.preparer.prepare(self.inputs), len(self.inputs), self.sites)

    def run(
        self,
        rows: Sequence[int] | None = None,
        *,
        edits: Edit | Iterable[Any] = (),
        keep: str | Site | Iterable[str | Site] = (),
        until: str | Site | None = None,
    ) -> Run:
        """Run with edits at the sites and after them; see `Network.run`.

        Args:
            rows: of the inputs; all of them unless given.
            edits: none of them before the first of the sites.
            keep: sites to keep, none of them before that at which the run enters: the first one where nothing is
                edited.
            until: stop at this site.

        Raises:
            BadInput: for an edit before all sites.
            EditMissed: for a site to keep whose value was not computed again, and as `Network.run`.
        """
        edits = [edits] if isinstance(edits, Edit) else list(edits)
        written = [site.path for edit in edits for site in self.net.map.resolve(edit.site)]
        first = min(written, key=lambda path: _time(self.net, path), default=self.sites[0])
        before = [site for site in self.sites if _time(self.net, site) <= _time(self.net, first)]
        if not before:
            raise BadInput(f"expected edits from {self.sites[0]} on; {first} comes before it")
        given = self.inputs if rows is None else self.inputs.take(rows)
        with self.prefix.skipping(before[-1], range(len(given)) if rows is None else rows):
            return self.net.run(given, keep=keep, edits=edits, until=until)


def _time(net: Network, site: str) -> int:
    return net.timeline.time(net.map.port(site))
