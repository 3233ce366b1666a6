"""Whether a picture is its unit's: it must activate its unit more than pictures of other units do, in views unlike any
that it was made in.

The controls of a unit are the pictures of other units and pictures with the same magnitudes of frequencies but random
phases: as colourful, as contrasted and as fine, without what the optimisation put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.finding import Finding
from openwork.network.measure import Tick
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Claims
from openwork.store.hashing import hash_state
from openwork.vision.synthesis.best import Crossed
from openwork.vision.synthesis.making import Making, Picture
from openwork.vision.synthesis.objective import Objective
from openwork.vision.synthesis.parameterisation import picture_of, spectrum_of
from openwork.vision.synthesis.robustness import unseen

if TYPE_CHECKING:
    from openwork.network import Network

UNIT = "standard deviations over other pictures"
KIND = "pictures of other units, and pictures of the same magnitudes with random phases"
BATCH = 64


def judged(
    net: Network,
    wanted: Sequence[Picture],
    own: Sequence[Objective],
    shown: Float[Tensor, "row channel y x"],
    alive: np.ndarray,
    method: Making,
    tick: Tick,
) -> tuple[tuple[Finding, ...], dict[str, Any]]:
    """Judge the pictures of all units that live.

    Args:
        net: the network.
        wanted: what the pictures are of.
        own: what each is measured in.
        shown: the pictures, at the size that the network reads.
        alive: which units ever got a gradient.
        method: how many views, and what a claim must meet.
        tick: told the share that is done.

    Returns:
        findings; and for the table ``shown`` (unit, view) and ``others`` (unit, picture): activations.
    """
    criteria = method.standard.criteria(1.0, UNIT)
    units = np.array([p.unit for p in wanted])
    fewest = min((int((units != u).sum()) for u in units), default=0)
    extra = max(0, criteria.controls_needed - fewest)
    sources = np.flatnonzero(alive) if alive.any() else np.arange(len(wanted))
    everything = torch.cat([shown, scrambled(shown[np.resize(sources, extra)], method.seed)]) if extra else shown
    found = np.zeros((len(wanted), len(everything), method.tests))
    crossed = Crossed(net, own)
    for number, first in enumerate(range(0, len(everything), BATCH)):
        some = everything[first : first + BATCH]
        for view, pixels in enumerate(unseen(some, method.tests, method.seed)):
            found[:, first : first + BATCH, view] = crossed(pixels).numpy()
        tick((number + 1) / -(-len(everything) // BATCH))
    candidates, spreads = [], np.zeros(len(wanted))
    others = np.full((len(wanted), len(everything)), np.nan)
    for i, picture in enumerate(wanted):
        control = np.array([j >= len(wanted) or units[j] != units[i] for j in range(len(everything))])
        mean = found[i, control].mean(-1)
        others[i, control] = mean
        spreads[i] = mean.std()
        if not alive[i] or not spreads[i] > 0:
            continue
        effects = (found[i, i] - found[i, control].mean(0)) / spreads[i]
        text = f"the picture of {picture.name} activates it more than other pictures do"
        candidates.append(Candidate(text, effects, (mean - mean.mean()) / spreads[i], KIND))
    values = {"pictures": hash_state({"shown": shown}), "views": method.tests}
    claims = Claims(net, values, method.settings(), method.seed)
    table = {
        "shown": (("unit", "view"), found[np.arange(len(wanted)), np.arange(len(wanted))]),
        "others": (("unit", "picture"), others),
    }
    return claimed(claims, criteria, candidates), table


def scrambled(pictures: Float[Tensor, "row channel y x"], seed: int) -> Float[Tensor, "row channel y x"]:
    """Pictures with the magnitudes of these and random phases, the same for all colours, so that colours stay."""
    draws = torch.Generator().manual_seed(seed)
    height, width = pictures.shape[-2:]
    noise = torch.randn(len(pictures), 1, height, width, generator=draws)
    turn = torch.exp(1j * spectrum_of(noise).angle())
    mean = pictures.mean((-2, -1), keepdim=True)
    return (picture_of(spectrum_of(pictures - mean) * turn, height, width) + mean).clamp(0, 1)
