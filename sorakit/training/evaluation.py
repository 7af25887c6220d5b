"""Scores and per-example results of one split at one set of weights."""

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from sorakit.config import TaskMetric
from sorakit.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """One split, evaluated.

    Attributes:
        score: The task's metric.
        extra: Further metrics by name.
        loss: Mean loss, float32.
        examples: One row an example: index, loss, and the columns of the objective.
    """

    score: float
    extra: dict[str, float]
    loss: float
    examples: pd.DataFrame


def split_result(
    outputs: Float[Tensor, "b k"],
    labels: Shaped[Tensor, " b"],
    indices: Shaped[Tensor, " b"],
    *,
    objective: Objective,
    metric: TaskMetric,
    extra_metrics: tuple[TaskMetric, ...],
) -> SplitResult:
    """Return scores and per-example results of one split.

    Args:
        outputs: What the objective keeps of every example: its logits, one for a regression.
        labels: Class indices, or numbers.
        indices: Position of every example in its split.
        objective: What the model is trained to do.
        metric: Score of the task.
        extra_metrics: Further scores.

    Raises:
        ValueError: If a logit is NaN or infinite.
    """
    num_invalid = int((~torch.isfinite(outputs).all(dim=1)).sum())
    if num_invalid:
        raise ValueError(
            f"`logits` must be finite, got NaN or infinity for {num_invalid} of {len(outputs)} "
            "examples. "
            "Training diverged: lower `optim.lr`, or set `trainer.precision` to 32-true."
        )
    order = torch.argsort(indices)
    outputs, labels = outputs[order].float().cpu(), labels[order].cpu()
    losses = objective.output_losses(outputs, labels)
    examples = {"index": indices[order].cpu().numpy(), "loss": losses.numpy()}
    return SplitResult(
        score=objective.score(metric, outputs, labels),
        extra={name: objective.score(name, outputs, labels) for name in extra_metrics},
        loss=float(losses.double().mean()),
        examples=pd.DataFrame({**examples, **objective.columns(outputs, labels)}),
    )
