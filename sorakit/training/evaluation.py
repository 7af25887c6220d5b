"""Scores and per-example results of one split at one set of weights."""

from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from sorakit.config import TaskMetric
from sorakit.training.metrics import score


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """One split, evaluated.

    Attributes:
        score: The task's metric.
        extra: Further metrics by name.
        loss: Mean loss, float32.
        examples: One row an example: index, loss, correct, margin. Regressions have null correct
            and margin.
    """

    score: float
    extra: dict[str, float]
    loss: float
    examples: pd.DataFrame


def example_losses(
    logits: Float[Tensor, "b classes"], labels: Shaped[Tensor, " b"], *, is_regression: bool
) -> Float[Tensor, " b"]:
    """Return cross entropy in nats, or the squared error of a regression, per example."""
    if is_regression:
        return (logits.squeeze(1) - labels.to(logits.dtype)).square()
    return F.cross_entropy(logits, labels, reduction="none")


def split_result(
    logits: Float[Tensor, "b classes"],
    labels: Shaped[Tensor, " b"],
    indices: Shaped[Tensor, " b"],
    *,
    metric: TaskMetric,
    extra_metrics: tuple[TaskMetric, ...],
    is_regression: bool,
) -> SplitResult:
    """Return scores and per-example results of one split.

    Args:
        logits: Outputs of the model; one column for a regression.
        labels: Class indices, or numbers.
        indices: Position of every example in its split.
        metric: Score of the task.
        extra_metrics: Further scores.
        is_regression: Whether labels are numbers.

    Raises:
        ValueError: If a logit is NaN or infinite.
    """
    num_invalid = int((~torch.isfinite(logits).all(dim=1)).sum())
    if num_invalid:
        raise ValueError(
            f"`logits` must be finite, got NaN or infinity for {num_invalid} of {len(logits)} "
            "examples. "
            "Training diverged: lower `optim.lr`, or set `trainer.precision` to 32-true."
        )
    order = torch.argsort(indices)
    logits, labels = logits[order].float().cpu(), labels[order].cpu()
    losses = example_losses(logits, labels, is_regression=is_regression)
    predictions = logits.squeeze(1) if is_regression else logits.argmax(dim=1)
    values = {
        name: score(name, predictions, labels, num_classes=logits.shape[1])
        for name in (metric, *extra_metrics)
    }
    examples = pd.DataFrame({"index": indices[order].cpu().numpy(), "loss": losses.numpy()})
    if is_regression:
        examples["correct"] = pd.array([None] * len(labels), dtype="boolean")
        examples["margin"] = float("nan")
    else:
        examples["correct"] = pd.array((predictions == labels).numpy(), dtype="boolean")
        examples["margin"] = _margins(logits, labels).numpy()
    return SplitResult(
        score=values[metric],
        extra={name: values[name] for name in extra_metrics},
        loss=float(losses.double().mean()),
        examples=examples,
    )


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logit of the label minus the largest other logit."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return true - others.amax(dim=1)
