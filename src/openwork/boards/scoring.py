"""What a method says of a network, held against what is true of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from openwork.boards.schema import Recovery
from openwork.finding import Finding, Verdict


@dataclass(frozen=True)
class Answer:
    """What a method says of one network.

    Args:
        scores: for every item that it could name, how strongly it says that the item takes part.
        verdicts: what the evidence said of each item that it made a claim of.
    """

    scores: Mapping[str, float]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)

    def with_claims(self, findings: Sequence[Finding], named: Sequence[str]) -> Answer:
        """The same scores, and the verdicts of findings about named items; one supported claim of an item will do."""
        verdicts = dict(self.verdicts)
        for finding, item in zip(findings, named, strict=True):
            if verdicts.get(item) != Verdict.SUPPORTED:
                verdicts[item] = finding.verdict
        return Answer(self.scores, verdicts)

    def __or__(self, other: Answer) -> Answer:
        return Answer({**self.scores, **other.scores}, {**self.verdicts, **other.verdicts})


def scored(answer: Answer, true: Collection[str]) -> Recovery:
    """Compare an answer with the truth.

    Args:
        answer: what a method says.
        true: the items that take part; those that the method could not name are not held against it.

    Returns:
        how it did.

    Source: AUROC over items as in InterpBench (Gupta et al. 2024); ties at half, so that a constant score gives .5.
    """
    items = list(answer.scores)
    is_true = [item in true for item in items]
    n_true = sum(is_true)
    values = [answer.scores[item] for item in items]
    ranks = rankdata([-value for value in values]) if items else []
    supported = [item for item, verdict in answer.verdicts.items() if verdict == Verdict.SUPPORTED]
    right = sum(item in true for item in supported)
    return Recovery(
        items=len(items),
        true=n_true,
        auroc=float(roc_auc_score(is_true, values)) if 0 < n_true < len(items) else None,
        rank=float(min(rank for rank, here in zip(ranks, is_true, strict=True) if here)) if n_true else None,
        claims=len(answer.verdicts),
        supported=len(supported),
        false=len(supported) - right,
        precision=right / len(supported) if supported else None,
        recall=right / n_true if n_true else None,
    )
