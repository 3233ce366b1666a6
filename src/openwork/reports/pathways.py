"""The edges of path patching as a graph of heads and MLPs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from openwork.evidence import benjamini_hochberg
from openwork.reports.graph import LOGITS, MOST_EDGES, circuit_graph
from openwork.reports.svg import Picture
from openwork.studies.schema import EdgeRecord, Estimate, NodeRecord

if TYPE_CHECKING:
    import xarray

ALPHA = 0.05
_SENDER = re.compile(r"blocks\.(\d+)\.(?:attn\.z\[(\d+)\]|mlp\.out)$")
_RECEIVER = re.compile(r"blocks\.(\d+)\.(?:attn\.([qkv])\[(\d+)\]|mlp\.in)$")


def path_graph(table: xarray.Dataset) -> Picture | None:
    """The edges of a table of `openwork.causal.path.patch_edges` that differ from 0, strongest first.

    An edge leads to a head, whether by its query, key or value; of several, the strongest is drawn. Keys and values
    that several heads share, and edges between anything but heads, MLPs and logits, are left to the table.

    Args:
        table: with ``effect``, ``low``, ``high``, ``p`` (sender, receiver) and ``total`` (sender, example).

    Returns:
        the graph of at most `MOST_EDGES` edges; None where there are none.
    """
    senders, receivers = ([str(x) for x in table[axis].to_numpy()] for axis in ("sender", "receiver"))
    totals = dict(zip(senders, np.nanmean(table["total"].to_numpy(), axis=-1).tolist(), strict=True))
    effect, low, high, p = (table[name].to_numpy() for name in ("effect", "low", "high", "p"))
    real = np.isfinite(effect) & np.isfinite(p)
    q = np.full(p.shape, np.nan)
    q[real] = benjamini_hochberg(p[real].tolist())
    owners = _owners(senders, receivers)
    best: dict[tuple[str, str], EdgeRecord] = {}
    through: dict[tuple[str, str], str] = {}
    n = table.sizes["example"]
    for s, r in sorted(np.argwhere(real).tolist(), key=lambda place: -abs(effect[tuple(place)])):
        sender, receiver = senders[s], owners.get(receivers[r])
        if not _SENDER.match(sender) or receiver is None or (sender, receiver) in best or q[s, r] >= ALPHA:
            continue
        value = float(effect[s, r])
        score = Estimate(value=value, low=min(float(low[s, r]), value), high=max(float(high[s, r]), value), n=n)
        best[sender, receiver] = EdgeRecord(
            sender=sender, receiver=receiver, score=score, p_value=float(p[s, r]), q_value=float(q[s, r]),
            significant=True,
        )  # fmt: skip
        match = _RECEIVER.match(receivers[r])
        through[sender, receiver] = {"q": "query", "k": "key", "v": "value"}.get(match[2] or "", "") if match else ""
        if len(best) == MOST_EDGES:
            break
    if not best:
        return None
    sites = dict.fromkeys(site for edge in best for site in edge if site != LOGITS)
    return circuit_graph([_node(site, totals) for site in sites], list(best.values()), table.attrs["unit"], through)


def _owners(senders: list[str], receivers: list[str]) -> dict[str, str]:
    """Receiver -> the sender that it belongs to; without the keys and values of groups of heads."""
    heads: dict[str, set[str]] = {}
    for name in senders:
        if (match := _SENDER.match(name)) and match[2]:
            heads.setdefault(match[1], set()).add(match[2])
    groups: dict[tuple[str, str], set[str]] = {}
    for name in receivers:
        if (match := _RECEIVER.match(name)) and match[2]:
            groups.setdefault((match[1], match[2]), set()).add(match[3])
    owners = {LOGITS: LOGITS}
    for name in receivers:
        if not (match := _RECEIVER.match(name)):
            continue
        block, part, head = match[1], match[2], match[3]
        site = f"blocks.{block}.attn.z[{head}]" if part else f"blocks.{block}.mlp.out"
        if site in senders and (part in (None, "q") or groups[block, part] == heads[block]):
            owners[name] = site
    return owners


def _node(site: str, totals: dict[str, float]) -> NodeRecord:
    match = _SENDER.match(site)
    assert match
    return NodeRecord(
        site=site, kind="head" if match[2] else "mlp", layer=int(match[1]), index=int(match[2]) if match[2] else None,
        score=totals[site],
    )  # fmt: skip
