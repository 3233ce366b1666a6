"""Unedited runs of the examples: the values that edits read and replace, and the metric."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.network.certify import first_output
from openwork.network.layout import Layout
from openwork.network.ports import AttentionPort
from openwork.network.replay.certificate import Suffixes
from openwork.network.replay.reading import Reading
from openwork.network.replay.recording import Recording, record
from openwork.network.replay.tail import narrow, uncached
from openwork.network.timeline import Span
from openwork.task import Inputs, Tensors

if TYPE_CHECKING:
    from openwork.network.network import Network


@dataclass(eq=False)
class Unedited:
    """One unedited run of all examples.

    Args:
        values: site -> value.
        layout: where the real tokens lie.
        metric: (example,) what is read off.
        recording: what replay needs of it, where the network is replayed token by token.
    """

    values: dict[str, Tensor]
    layout: Layout
    metric: Float[np.ndarray, " example"]
    recording: Recording | None = None


def run_unedited(
    net: Network,
    inputs: Inputs | Tensors,
    sites: Sequence[str],
    reading: Reading,
    plan: Suffixes | None,
    spans: Sequence[Span] = (),
) -> Unedited:
    """Run the examples once.

    Args:
        net: the network.
        inputs: the examples.
        sites: base names of the sites to keep.
        reading: what is read off.
        plan: the certificate of replay, if there is to be a recording.
        spans: calls whose outputs to record.
    """
    examples = range(len(reading.batch))
    if plan is None:
        run = net.run(inputs, keep=sites)
        values = reading.values(run.logits, examples).numpy()
        return Unedited(run.values, run.layout, values)
    weights = [site for site in sites if not _recordable(net, site, plan)]
    others = net.run(inputs, keep=weights).values if weights else {}
    prepared = net.preparer.prepare(inputs)
    answer, wrong = reading.answers(torch.arange(len(examples)), net.device)
    two = reading.metric.reads == "answers"
    columns = torch.stack((answer, wrong), -1) if two else None
    at = torch.tensor(reading.batch.at)
    head = net.timeline.head
    only = narrow(head, columns, at) if plan.narrow and head is not None else nullcontext()
    found = record(net, uncached(net, prepared.kwargs), plan.stages, spans, [s for s in sites if s not in others], only)
    logits = first_output(found.result)
    if not plan.narrow:
        values = reading.values(logits, examples)
    elif two:
        values = reading.of(logits[:, 0], torch.zeros_like(answer), torch.ones_like(answer))
    else:
        values = reading.of(logits[:, 0], answer, wrong)
    return Unedited({**found.values, **others}, prepared.layout, values.numpy(), found)


def _recordable(net: Network, site: str, plan: Suffixes) -> bool:
    """Whether a site can be kept while the blocks are recorded."""
    port = net.map.port(site)
    owners = {a.owner for stage in plan.stages for a in stage.attentions}
    return not isinstance(port, AttentionPort) or (port.part in ("q", "k", "v", "z") and port.module in owners)
