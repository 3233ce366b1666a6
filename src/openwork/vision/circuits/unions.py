"""Unions over cases: a unit that answers to any one of several earlier units, such as a head that looks to either side.

    unions(net, pictures, [(3, 8), (0, 1, 2, 5)], "module:layer1.out", "module:layer2.out")

Source: Olah et al. 2020, Zoom in (Distill), the motif "union over cases".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Ablate
from openwork.errors import BadInput
from openwork.evidence import benjamini_hochberg
from openwork.network import Behind
from openwork.pictures import Pictures
from openwork.results.candidates import Candidate, claimed
from openwork.results.claims import Standard
from openwork.results.result import Result
from openwork.site import Site
from openwork.vision.circuits.kernels import SLOPES, kernels
from openwork.vision.corpora import claims_about
from openwork.vision.halves import halves, read

if TYPE_CHECKING:
    from openwork.network import Network, Run

CONTROL = "random sets of as many units, read by the same unit"


@dataclass(frozen=True)
class Uniting:
    """How unions are found and tested.

    Args:
        slopes: see `openwork.vision.circuits.kernels.kernels`.
        images: of each half, at most.
        alpha: accepted rate of weights as even by chance, over all units and sets.
        draws: random sets of units that this is read off.
        claims: how many unions are claimed on held-out images.
        standard: what a claim must meet; its least share is of a standard deviation of the unit.
        seed: of the halves and of everything random.
    """

    slopes: str = "mean"
    images: int = 200
    alpha: float = 0.05
    draws: int = 999
    claims: int = 3
    standard: Standard = field(default_factory=Standard)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.slopes not in SLOPES:
            raise BadInput(f"expected slopes of {', '.join(SLOPES)}; got {self.slopes!r}")
        if self.images < 2 or self.draws < 1 or self.claims < 0 or not 0 < self.alpha < 1:
            raise BadInput(f"expected images from 2, draws from 1, claims from 0 and 0 < alpha < 1; got {self}")


def unions(
    net: Network,
    pictures: Pictures,
    cases: Sequence[Sequence[int]],
    sender: str | Site,
    receiver: str | Site,
    method: Uniting = Uniting(),
    *,
    held_out: Pictures | None = None,
    tick: Callable[[float], None] = lambda share: None,
) -> Result:
    """Find later units that every member of a set excites, and claim that each member alone is enough.

    Args:
        net: the network.
        pictures: images.
        cases: sets of channels of the sender, such as families of turned units.
        sender: the earlier map.
        receiver: the later one; an index selects the units that are looked at.
        method: how.
        held_out: images that nothing is found on; a random half of `pictures` unless given.
        tick: told the share that is done.

    Returns:
        a finding for each of the most even unions: with all of the set taken out but its most active member, the unit
        answers again, by this many of its standard deviations, and in the worst case of all members; and a table:
        ``weight`` (unit, channel), ``least`` (unit, set) the weight of the member that counts least, with ``p`` against
        random sets and ``q`` adjusted; of what was claimed, ``alone`` (claim, case) with ends, over ``alone_images``.

    Raises:
        UnknownName: for a site that does not exist.
        BadInput: for sets of fewer than two channels, or channels that do not exist.

    Units:
        of the claims, standard deviations of the unit's mean over places.
    """
    path = net.map.resolve(sender)[0].path
    count = net.parts(path)
    sets = [tuple(dict.fromkeys(int(c) for c in one)) for one in cases]
    wrong = [one for one in sets if len(one) < 2 or min(one) < 0 or max(one) >= count or len(one) >= count]
    if not sets or wrong:
        raise BadInput(f"expected sets of two or more, but not all, of the {count} channels of {path}; got {wrong}")
    split = halves(pictures, held_out, method.images, method.seed)
    inputs = read(net, split.find, split.find_rows)
    found = kernels(net, path, receiver, inputs, method.slopes, lambda s: tick(0.3 * s))
    weight = found.values.sum((2, 3)).double().cpu().numpy()
    least, p = evenness(weight, sets, method)
    q = np.array(benjamini_hochberg(p.ravel().tolist())).reshape(p.shape)
    settings = {
        "sender": path, "receiver": found.receiver, "sets": [list(s) for s in sets], "pictures": pictures.name,
        **asdict(method),
    }  # fmt: skip
    order = np.argsort(-least.ravel(), kind="stable")
    chosen = [divmod(int(i), len(sets)) for i in order if q.ravel()[i] <= method.alpha and least.ravel()[i] > 0]
    chosen = chosen[: method.claims]
    responses = _Responses(net, path, found.receiver, read(net, split.held, split.held_rows))
    criteria = method.standard.criteria(1.0, "standard deviations")
    random = np.random.default_rng(method.seed)
    candidates, alone, remarks = [], [], []
    deviations = pooled(net.run(inputs, keep=found.receiver, until=found.receiver), found.receiver).std(0)
    for number, (unit, which) in enumerate(chosen):
        channel, members = found.out_units[unit], sets[which]
        scale = max(float(deviations[channel]), 1e-12)
        each = responses.alone(channel, members, weight[unit])
        name = f"{Site(found.receiver, (channel,))} over channels {', '.join(map(str, members))} of {path}"
        if min(map(len, each)) < 2:
            remarks.append(f"{name}: some member is the most active one in fewer than two held-out images")
            continue
        own = worst(each) / scale
        free = [c for c in range(count) if c not in members]
        controls = []
        for _ in range(criteria.controls_needed):
            other = random.choice(free if len(free) >= len(members) else count, len(members), replace=False)
            parts = responses.alone(channel, [int(c) for c in other], weight[unit])
            controls.append(float(worst(parts).mean()) / scale if min(map(len, parts)) else 0.0)
            tick(0.3 + 0.7 * (number + len(controls) / criteria.controls_needed) / len(chosen))
        text = f"{name} is a union: the most active member alone, whichever it is, brings its answer back"
        candidates.append(Candidate(text, own, np.array(controls), CONTROL))
        alone.append([part / scale for part in each])
    claims = claims_about(net, split, settings, method.seed)
    table = _table(found, weight, sets, least, p, q, candidates, alone)
    table.attrs.update(network=net.name, unit="standard deviations", sender=path, receiver=found.receiver)
    if not chosen:
        remarks.append("no unit reads all of a set more evenly than random sets of channels")
    tick(1.0)
    return Result(
        "unions over cases", claimed(claims, criteria, candidates), table, settings, (*remarks, *split.remarks)
    )


def evenness(
    weight: Float[np.ndarray, "unit channel"], sets: Sequence[Sequence[int]], method: Uniting
) -> tuple[Float[np.ndarray, "unit set"], Float[np.ndarray, "unit set"]]:
    """The least weight of each set's members in each unit, and how often random sets have one as large."""
    random = np.random.default_rng(method.seed)
    least, p = (np.empty((len(weight), len(sets))) for _ in range(2))
    for j, members in enumerate(sets):
        least[:, j] = weight[:, list(members)].min(1)
        draws = np.stack([random.permutation(weight.shape[1])[: len(members)] for _ in range(method.draws)])
        others = weight[:, draws].min(2)
        p[:, j] = (1 + (others >= least[:, [j]]).sum(1)) / (1 + method.draws)
    return least, p


def worst(parts: Sequence[Float[np.ndarray, " _"]]) -> Float[np.ndarray, " example"]:
    """Examples of one image for each member: the least of what these members do alone."""
    n = min(map(len, parts))
    return np.stack([part[:n] for part in parts]).min(0)


def pooled(run: Run, site: str) -> Float[np.ndarray, "image channel"]:
    """The mean over places of every channel of a site that was kept."""
    value = run[site].double()
    return (value.flatten(2).mean(2) if value.ndim > 2 else value).cpu().numpy()


class _Responses:
    """How units answer to held-out images when channels are taken out."""

    def __init__(self, net: Network, sender: str, receiver: str, inputs: Tensor):
        self.sender, self.receiver = sender, receiver
        self.later = Behind(net, inputs, sender)
        self.active = pooled(self.later.run(keep=sender, until=sender), sender)

    def alone(
        self, unit: int, members: Sequence[int], weight: Float[np.ndarray, " channel"]
    ) -> list[Float[np.ndarray, " image"]]:
        """For each member, over images in which it counts most: the unit with it alone, minus the unit with none.

        Of these images the half in which it counts most is used; in the others there may be nothing to answer to.
        """
        counts = self.active[:, list(members)] * weight[list(members)]
        best = counts.argmax(1)
        found = []
        for case, member in enumerate(members):
            rows = np.flatnonzero(best == case)
            rows = np.sort(rows[np.argsort(-counts[rows, case], kind="stable")][: (len(rows) + 1) // 2])
            if not len(rows):
                found.append(np.empty(0))
                continue
            both = []
            for out in ([m for m in members if m != member], members):
                edit = Ablate(Site(self.sender, tuple(sorted(out))), how="zero")
                run = self.later.run(rows.tolist(), edits=edit, keep=self.receiver, until=self.receiver)
                both.append(pooled(run, self.receiver)[:, unit])
            found.append(both[0] - both[1])
        return found


def _table(
    found: Any,
    weight: np.ndarray,
    sets: Sequence[Sequence[int]],
    least: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    candidates: Sequence[Candidate],
    alone: Sequence[Sequence[np.ndarray]],
) -> Any:
    import xarray

    names = [", ".join(map(str, one)) for one in sets]
    variables: dict[str, Any] = {
        "weight": (("unit", "channel"), weight),
        "least": (("unit", "set"), least),
        "p": (("unit", "set"), p),
        "q": (("unit", "set"), q),
    }
    coords: dict[str, Any] = {"unit": list(found.out_units), "channel": list(found.in_units), "set": names}
    if candidates:
        most = max(map(len, alone))
        means, low, high, images = (np.full((len(alone), most), np.nan) for _ in range(4))
        for i, parts in enumerate(alone):
            for j, part in enumerate(parts):
                error = 1.96 * part.std(ddof=1) / np.sqrt(len(part))
                images[i, j] = len(part)
                means[i, j], low[i, j], high[i, j] = part.mean(), part.mean() - error, part.mean() + error
        variables |= {
            "alone": (("claim", "case"), means),
            "alone_low": (("claim", "case"), low),
            "alone_high": (("claim", "case"), high),
            "alone_images": (("claim", "case"), images),
        }
        coords |= {"claim": [c.text for c in candidates], "case": [f"member {i + 1}" for i in range(most)]}
    return xarray.Dataset(variables, coords)
