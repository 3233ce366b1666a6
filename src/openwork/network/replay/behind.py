"""Many runs of the same inputs that differ only from one site on: what comes before it is computed once.

    later = Behind(net, inputs, "module:stages.1.out")
    for edits in many:
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
        site: the first one that edits write to.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for inputs that do not fit.
    """

    def __init__(self, net: Network, inputs: Inputs | Tensors | Tensor, site: str | Site):
        self.net, self.site = net, net.map.resolve(site)[0].path
        self.inputs = Tensors({net.preparer.main: inputs}) if isinstance(inputs, Tensor) else inputs
        net.entries = net.entries or Entries(net)
        self.prefix = Prefix(net.entries, net.preparer.prepare(self.inputs), len(self.inputs), [self.site])

    def run(
        self,
        rows: Sequence[int] | None = None,
        *,
        edits: Edit | Iterable[Any] = (),
        keep: str | Site | Iterable[str | Site] = (),
        until: str | Site | None = None,
    ) -> Run:
        """Run with edits at the site and after it; see `Network.run`.

        Args:
            rows: of the inputs; all of them unless given.
            edits: none of them before the site.
            keep: sites to keep, none of them before the site.
            until: stop at this site.

        Raises:
            BadInput: for an edit before the site.
            EditMissed: for a site to keep whose value was not computed again, and as `Network.run`.
        """
        edits = [edits] if isinstance(edits, Edit) else list(edits)
        for edit in edits:
            for site in self.net.map.resolve(edit.site):
                if self._time(site.path) < self._time(self.site):
                    raise BadInput(f"expected edits from {self.site} on; {site} comes before it")
        given = self.inputs if rows is None else self.inputs.take(rows)
        with self.prefix.skipping(self.site, range(len(given)) if rows is None else rows):
            return self.net.run(given, keep=keep, edits=edits, until=until)

    def _time(self, site: str) -> int:
        return self.net.timeline.time(self.net.map.port(site))
