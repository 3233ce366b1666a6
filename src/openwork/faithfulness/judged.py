"""From what a judge measured of each explainer to findings: the part that all judges of attributions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from openwork.faithfulness.attributions import Explainer, settings_of
from openwork.finding import Criteria, Finding
from openwork.results.candidates import Candidate, claimed, held_out_table
from openwork.results.claims import Claims
from openwork.task import Task

if TYPE_CHECKING:
    from openwork.network import Network


@dataclass(frozen=True, eq=False)
class Judged:
    """One claim about one explainer, before it is judged.

    Args:
        text: the claim.
        effects: (example,) larger for more of what is claimed.
        controls: (control,) the mean effect of each matched control on the same examples.
    """

    text: str
    effects: Float[np.ndarray, " example"]
    controls: Float[np.ndarray, " control"]

    @classmethod
    def beyond(
        cls, text: str, own: Float[np.ndarray, " example"], others: Float[np.ndarray, "control example"]
    ) -> Judged:
        """A claim of doing better than matched controls do on average, example by example."""
        mean = others.mean(0)
        return cls(text, own - mean, (others - mean).mean(1))


def findings_of(
    net: Network,
    task: Task,
    judged: Sequence[Judged],
    criteria: Criteria,
    kind: str,
    method: Any,
    explainers: Mapping[str, Explainer],
) -> tuple[tuple[Finding, ...], dict[str, Any], dict[str, Any]]:
    """Judge claims together on the held-out examples.

    Returns:
        the findings, variables of a table for what was claimed, and the settings.
    """
    settings = settings_of(method, explainers, task)
    if not judged:
        return (), {}, settings
    claims = Claims(net, task, settings, method.seed)
    found = claimed(claims, criteria, [Candidate(j.text, j.effects, j.controls) for j in judged], kind)
    table = held_out_table([j.text for j in judged], [j.effects for j in judged], [j.controls for j in judged])
    return found, table, settings
