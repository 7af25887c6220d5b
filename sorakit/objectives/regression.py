"""One number a sequence: squared error."""

from collections.abc import Sequence
from statistics import pvariance
from typing import Any, final

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from sorakit.config import TaskMetric
from sorakit.objectives import Columns
from sorakit.objectives._sequence import SequenceObjective
from sorakit.scores import score


@final
class Regression(SequenceObjective):
    """Labels are numbers; the prediction is the only logit."""

    label_dtype = torch.float32

    @override
    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        assert not label_names, label_names
        return {"num_labels": 1, "problem_type": "regression"}

    @override
    def losses(
        self, logits: Float[Tensor, "b 1"], labels: Float[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        return (logits.squeeze(1) - labels.to(logits.dtype)).square()

    @override
    def score(
        self, metric: TaskMetric, logits: Float[Tensor, "b 1"], labels: Float[Tensor, " b"]
    ) -> float:
        return score(metric, logits.squeeze(1), labels, num_classes=1)

    @override
    def columns(self, logits: Float[Tensor, "b 1"], labels: Float[Tensor, " b"]) -> Columns:
        """Return `prediction` (number); `correct`, `margin` and `probability` are null."""
        return {
            "correct": pd.array([None] * len(labels), dtype="boolean"),
            "margin": float("nan"),
            "prediction": logits.squeeze(1).numpy(),
            "probability": float("nan"),
        }

    @override
    def null_loss(self, labels: Sequence[float]) -> float:
        """Return the variance of the labels: the loss of always giving their mean."""
        return float(pvariance(labels))


VARIANT = Regression()
