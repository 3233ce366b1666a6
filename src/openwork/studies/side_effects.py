"""Step 7: what knocking the circuit out does to the ordinary loss on real text, against random circuits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from openwork.edit import Edit
from openwork.evidence import ratio_interval
from openwork.faithfulness.components import Component, random_circuits
from openwork.faithfulness.measure import Tick, mean_values, set_to, silent
from openwork.metrics import token_cross_entropy
from openwork.studies.estimates import RESAMPLES, record
from openwork.studies.schema import Control, SideEffect, SideEffects
from openwork.studies.texts import UNKNOWN, Texts

if TYPE_CHECKING:
    from openwork.network import Network

ABLATION = "the circuit's components carry their mean over the same text"
LEAST_TOKENS = 20
LEAST_ROWS = 3


def slices(texts: Texts) -> dict[str, Float[np.ndarray, "row token"]]:
    """Which predicted tokens each slice holds, as 0 and 1: all, those that in-context copying could predict, each kind.

    Column t stands for the prediction of token t + 1.
    """
    ids = texts.inputs.ids
    repeated = np.zeros((len(ids), len(ids[0]) - 1))
    for r, row in enumerate(ids):
        seen: set[tuple[int, int]] = set()
        for t in range(1, len(row) - 1):
            pair = (row[t], row[t + 1])
            repeated[r, t] = pair in seen
            seen.add(pair)
    counted = np.ones_like(repeated)
    counted[:, : max(0, texts.begin - 1)] = 0
    out = {"all tokens": counted, "repeats an earlier pair": repeated * counted, "all others": (1 - repeated) * counted}
    kinds = np.array([kind[1:] for kind in texts.kinds])
    for kind in sorted(set(kinds.ravel().tolist()) - {UNKNOWN}):
        out[kind] = (kinds == kind) * counted
    return {
        name: mask for name, mask in out.items() if mask.sum() >= LEAST_TOKENS and (mask.sum(1) > 0).sum() >= LEAST_ROWS
    }


def measure(
    net: Network,
    circuit: Sequence[Component],
    components: Sequence[Component],
    texts: Texts,
    count: int,
    seed: int,
    tick: Tick = silent,
) -> SideEffects:
    """The change of the loss on every slice.

    Args:
        net: the network.
        circuit: what is knocked out.
        components: what random circuits are drawn from.
        texts: real text.
        count: random circuits.
        seed: of the random circuits and the intervals.
        tick: told the share that is done.
    """
    means = mean_values(net, texts.inputs, components)
    drawn = random_circuits(circuit, components, count, np.random.default_rng(seed))
    normal = _losses(net, texts, ())
    knocked = _losses(net, texts, set_to(circuit, means))
    others = []
    for i, other in enumerate(drawn):
        others.append(_losses(net, texts, set_to(other, means)))
        tick((i + 1) / count)
    out = []
    for name, mask in slices(texts).items():
        total, rows = mask.sum(), mask.sum(1) > 0
        change = ((knocked - normal) * mask).sum(1)[rows]
        interval = ratio_interval(change, mask.sum(1)[rows], resamples=RESAMPLES, seed=seed)
        random = np.array([((other - normal) * mask).sum() / total for other in others])
        low, high = np.quantile(random, (0.025, 0.975))
        out.append(
            SideEffect(
                slice=name,
                n_tokens=int(total),
                loss=float((normal * mask).sum() / total),
                change=record(interval),
                random=Control(
                    name="random circuits of the same size and layer profile",
                    value=float(random.mean()),
                    low=float(low),
                    high=float(high),
                    n=count,
                    p_value=float((1 + (random >= interval.estimate).sum()) / (1 + count)),
                ),
            )
        )
    return SideEffects(ablation=ABLATION, n_texts=len(texts.inputs), slices=out)


def _losses(net: Network, texts: Texts, edits: Sequence[Edit]) -> Float[np.ndarray, "row token"]:
    """Nats per predicted token."""
    logits = net.run(texts.inputs, edits=list(edits)).logits[:, :-1]
    targets = torch.tensor(texts.inputs.ids, device=logits.device)[:, 1:]
    return token_cross_entropy(logits.float(), targets).double().cpu().numpy()
