"""Step 1: does the network do the task at all, on the examples to find with and on those held out?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from openwork.errors import BadInput
from openwork.evidence import wilson_interval
from openwork.studies.estimates import estimate, record
from openwork.studies.schema import Gate, GateSplit
from openwork.studies.settings import StudySettings
from openwork.task import Batch, Split, Task
from openwork.tasks import metrics as task_metrics

if TYPE_CHECKING:
    from openwork.network import Network


def examples_of(task: Task, split: Split, most: int) -> Batch:
    """The first `most` examples of a split."""
    rows = [r for r in range(len(task)) if (r in task.held_out) == (split == "held-out")]
    return task.batch(rows[:most], split)


def check(net: Network, task: Task, settings: StudySettings, seed: int) -> Gate:
    """Accuracy on both splits, with Wilson intervals, against chance plus a margin.

    Args:
        net: the network.
        task: the task; its accuracy is what `openwork.tasks.metrics.gate` measures and ``task.chance`` belongs to.
        settings: `examples` and `margin`.
        seed: of the intervals.

    Returns:
        The gate; not passed if the lower end of either interval is at or below chance plus margin, or if the
        corrupted inputs do not change the metric.

    Raises:
        BadInput: if the network's logits are not finite.
    """
    needed = min(task.chance + settings.margin, 1 - 1e-9)
    accuracy = task_metrics.gate(task)
    splits: list[GateSplit] = []
    for name in ("find", "held-out"):
        batch = examples_of(task, name, settings.examples)
        clean, corrupted = (_logits(net, inputs) for inputs in (batch.clean, batch.corrupted))
        right = int(batch.measure(accuracy, clean).sum())
        interval = record(wilson_interval(right, len(batch)))
        values = [batch.measure(task.metric, logits).double().cpu().numpy() for logits in (clean, corrupted)]
        splits.append(
            GateSplit(
                split=name,
                accuracy=interval,
                clean=estimate(values[0], seed),
                corrupted=estimate(values[1], seed),
                passed=interval.low > needed,
            )
        )
    failed = [s for s in splits if not s.passed]
    sign = 1 if task.metric.higher_is_better else -1
    flat = [s for s in splits if sign * (s.clean.value - s.corrupted.value) <= 0]
    if failed:
        reason = "; ".join(
            f"{s.split}: accuracy {s.accuracy.value:.2f} [{s.accuracy.low:.2f}, {s.accuracy.high:.2f}] does not clear "
            f"{needed:.2f}"
            for s in failed
        )
    elif flat:
        reason = f"corrupting the input does not lower the {task.metric.name} ({', '.join(s.split for s in flat)})"
    else:
        reason = f"accuracy lies above {needed:.2f} on both splits"
    return Gate(
        chance=task.chance,
        margin=settings.margin,
        needed=needed,
        splits=splits,
        passed=not failed and not flat,
        reason=reason,
    )


def _logits(net: Network, inputs: object) -> torch.Tensor:
    run = net.run(inputs)
    logits, lengths = run.logits, torch.as_tensor(run.lengths)
    real = (torch.arange(logits.shape[1]) < lengths[:, None]).to(logits.device)
    if not bool(torch.isfinite(logits[real]).all()):
        raise BadInput(
            f"expected finite logits; {net.name} gives NaN or infinity: its weights are damaged or overflow in "
            f"{logits.dtype}"
        )
    return logits
