"""What a metric reads off a pass: the logits of one position of each row, and of the answers alone if that is all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openwork.errors import BadInput
from openwork.task import Batch, Metric, measured, narrowed


@dataclass(eq=False)
class Reading:
    """The metric of a batch of examples.

    Args:
        batch: the examples with their answers and where to read them.
        metric: the metric.
    """

    batch: Batch
    metric: Metric

    def values(self, logits: Tensor, examples: Sequence[int]) -> Float[Tensor, " row"]:
        """The metric of each row, in float64 on the CPU.

        Args:
            logits: (row, position, vocabulary), real token p of every row at p, or (row, class).
            examples: the example of each row.

        Raises:
            BadInput: if a value is not finite.
        """
        picked = torch.as_tensor(examples)
        answer, wrong = self.answers(picked, logits.device)
        if logits.ndim == 3:
            at = torch.tensor(self.batch.at)[picked].to(logits.device)
            if int(at.max()) >= logits.shape[1]:
                raise BadInput(
                    f"expected an answer read within the {logits.shape[1]} positions of the logits; at= says "
                    f"{int(at.max())} (an encoder-decoder answers at positions of its decoder)"
                )
            logits = logits[torch.arange(len(picked), device=logits.device), at]
        return self.read(logits, answer, wrong)

    def read(self, logits: Tensor, answer: Tensor, wrong: Tensor) -> Float[Tensor, " row"]:
        """The metric of all logits of each row."""
        if self.metric.reads == "answers":
            logits, answer, wrong = narrowed(logits, answer, wrong)
        return self.of(logits, answer, wrong)

    def answers(self, examples: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Right and wrong ids of some examples."""
        right, wrong = torch.tensor(self.batch.answer), torch.tensor(self.batch.wrong)
        return right[examples].to(device), wrong[examples].to(device)

    def of(self, logits: Tensor, answer: Tensor, wrong: Tensor) -> Float[Tensor, " row"]:
        """The metric of logits as it wants them."""
        values = measured(self.metric, logits, answer, wrong).double().cpu()
        if not bool(torch.isfinite(values).all()):
            raise BadInput(
                f"expected finite values of {self.metric.name!r}; {int((~torch.isfinite(values)).sum())} of "
                f"{values.numel()} are NaN or infinite: check the metric, the answers and what the edits write"
            )
        return values
