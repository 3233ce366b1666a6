"""The test of the truth for networks of any kind: nodes alone, by edits of the engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openwork.edit import Patch
from openwork.evidence import bootstrap_interval
from openwork.network import Network
from openwork.site import Site
from openwork.task import Inputs, Task
from openwork.zoo.truth import Effect, Truth, TruthSettings

DEFAULT = TruthSettings()


def check_nodes(net: Network, task: Task, nodes: Sequence[Site], settings: TruthSettings = DEFAULT) -> Truth:
    """Test whether some heads and MLPs are all that take part, as `openwork.zoo.truth.check` does for a `Transformer`.

    Args:
        net: the network.
        task: whose rows are resampled from each other; the others of a row are those of its length.
        nodes: heads (``blocks.0.attn.z[1]``) and MLPs (``blocks.0.mlp.out``).
        settings: the knobs.

    Returns:
        every effect: mean total variation distance of the prediction at the asked position.
    """
    assert isinstance(task.clean, Inputs)
    assert isinstance(task.corrupted, Inputs)
    rng, n = np.random.default_rng(settings.seed), len(task)
    chosen = np.sort(rng.permutation(n)[: settings.examples])
    pool = Inputs((*task.clean.ids, *task.corrupted.ids))
    lengths = np.array(pool.lengths)
    others = [
        rng.choice(np.setdiff1d(np.flatnonzero(lengths == lengths[row]), [row]), settings.resamplings) for row in chosen
    ]
    rest = [site for site in _parts(net) if site not in set(nodes)]
    base, at = task.clean.take(chosen.tolist()), [task.at[row] for row in chosen]
    plain = _predicted(net.run(base).logits, at)
    sets = [(site,) for site in nodes] + [tuple(rest)]
    moved = np.zeros((len(sets), len(chosen)))
    keep = sorted({site.path for some in sets for site in some})
    for drawn in np.transpose(others):
        source = net.run(pool.take(drawn.tolist()), keep=keep)
        for number, some in enumerate(sets):
            edits = [Patch(site, source="other") for site in some]
            edited = _predicted(net.run(base, edits=edits, sources={"other": source}).logits, at) if edits else plain
            moved[number] += ((edited - plain).abs().sum(-1) / 2 / settings.resamplings).cpu().numpy()
    names = [*((str(site), 1) for site in nodes), (f"all {len(rest)} others", len(rest))]
    how = np.mean, settings.level, settings.bootstraps, settings.seed
    effects = [
        Effect("node", name, count, bootstrap_interval(by_example, *how))
        for (name, count), by_example in zip(names, moved, strict=True)
    ]
    return Truth(settings, tuple(effects[:-1]), (effects[-1],))


def _parts(net: Network) -> list[Site]:
    """Every head and MLP."""
    found = []
    for name in net.sites:
        site = Site.parse(name)
        if site.block is not None and site.kind == "attn.z":
            found += [Site(name, (head,)) for head in range(net.parts(name))]
        elif site.block is not None and site.kind == "mlp.out":
            found.append(site)
    return found


def _predicted(logits: Float[Tensor, "row position vocabulary"], at: Sequence[int]) -> Float[Tensor, "row vocabulary"]:
    return logits[torch.arange(len(at)), torch.tensor(at)].double().softmax(-1)
