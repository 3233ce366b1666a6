"""From the effects of an intervention on each example to a finding, with its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.evidence import judge, record_provenance
from openwork.finding import Criteria, Finding
from openwork.store.hashing import hash_json, hash_state
from openwork.task import Inputs, Split, Task

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True)
class Standard:
    """What a claim must meet, stated before its held-out examples are looked at.

    Args:
        min_share: the smallest effect that matters, as a share of the mean difference between clean and corrupted runs.
        alpha: largest accepted rate of false support; it decides how many matched controls are drawn.
        min_examples: fewer held-out examples support nothing.
    """

    min_share: float = 0.1
    alpha: float = 0.05
    min_examples: int = 20

    def criteria(self, scale: float, unit: str) -> Criteria:
        """The criteria where clean and corrupted runs differ by `scale`."""
        least = max(self.min_share * abs(scale), 1e-6)
        return Criteria(least, unit, self.alpha, min_examples=self.min_examples, needs_rival=False)


class Claims:
    """Makes findings about one network and task; the weights and the examples are hashed once.

    Args:
        net: the network.
        task: whose examples the effects are of, or these as JSON values where they are of no task.
        settings: of the method.
        seed: of the judgement.
    """

    def __init__(self, net: Network, task: Task | Mapping[str, Any], settings: Mapping[str, Any], seed: int):
        self.task, self.settings, self.seed = task, dict(settings), seed
        examples = data_hash(task) if isinstance(task, Task) else hash_json(dict(task))
        self.provenance = record_provenance(
            net.name, hash_state(net.root.state_dict()), examples, net.device, net.dtype
        )

    def claim(
        self,
        text: str,
        effects: Float[np.ndarray, " example"],
        criteria: Criteria,
        split: Split,
        controls: Float[np.ndarray, " control"] | None = None,
        control_kind: str = "matched random controls",
        rivals: Mapping[str, Float[np.ndarray, " example"]] | None = None,
        adjusted_p: float | None = None,
        intervened: bool = True,
        limits: tuple[float, float] | None = None,
    ) -> Finding:
        """Judge one claim.

        Args:
            text: the claim in words.
            effects: of the intervention on each example, larger for more of what is claimed.
            criteria: what the claim must meet.
            split: the split that the examples are of.
            controls: the mean effect of each matched control on the same examples.
            control_kind: what the controls are matched in.
            rivals: effects of rival hypotheses on the same examples.
            adjusted_p: the p-value adjusted for the family of claims, if several were tested.
            intervened: whether the network was edited; what was only looked at is never supported.
            limits: the least and the greatest effect on one example, where they are known.
        """
        found = judge(
            effects, criteria, split, controls, control_kind, rivals, intervened, adjusted_p, limits, resamples=1999,
            seed=self.seed,
        )  # fmt: skip
        return found.finding(text, self.seed, self.provenance, self.settings)


def data_hash(task: Task) -> str:
    """sha256 of the examples of a task."""
    inputs = []
    for given in (task.clean, task.corrupted):
        tensors = not isinstance(given, Inputs)
        inputs.append(hash_state(dict(given.values)) if tensors else [given.ids, dict(given.groups)])
    return hash_json([task.name, *inputs, task.answer, task.wrong, task.at, sorted(task.held_out)])
