"""What objectives with one label for a whole sequence have in common: all but the loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerBase,
)
from typing_extensions import override

from sorakit.config import TaskMetric
from sorakit.metric_names import LABEL
from sorakit.objectives import Columns, Objective
from sorakit.objectives._texts import padded_inputs
from sorakit.scores import score


class _SequenceObjective(Objective):
    """A sequence classification model: one column of logits a class, or one for a number.

    Attributes:
        label_dtype: Dtype of labels.
    """

    task_type = "SEQ_CLS"
    model_class = AutoModelForSequenceClassification
    model_mapping = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    label_dtype: torch.dtype

    @override
    def collate(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        length: int | None = None,
    ) -> dict[str, Tensor]:
        batch = padded_inputs(rows, tokenizer, length=length)
        batch[LABEL] = torch.tensor([row[LABEL] for row in rows], dtype=self.label_dtype)
        return batch


class ClassObjective(_SequenceObjective):
    """Labels are class indices; the prediction is the class with the largest logit."""

    label_dtype = torch.long
    metrics = ("accuracy", "f1", "matthews_correlation")

    @override
    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {
            "num_labels": len(label_names),
            "problem_type": "single_label_classification",
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: index for index, name in enumerate(label_names)},
        }

    @override
    def score(
        self, metric: TaskMetric, outputs: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]
    ) -> float:
        return score(metric, outputs.argmax(dim=1), labels, num_classes=outputs.shape[1])

    @override
    def columns(self, outputs: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]) -> Columns:
        """Return `correct`, `margin`, `prediction` (class) and `probability` (of the label).

        The margin is the logit of the label minus the largest other logit.
        """
        predictions = outputs.argmax(dim=1)
        label = labels[:, None]
        others = outputs.scatter(1, label, float("-inf"))
        return {
            "correct": pd.array((predictions == labels).numpy(), dtype="boolean"),
            "margin": (outputs.gather(1, label).squeeze(1) - others.amax(dim=1)).numpy(),
            "prediction": predictions.numpy(),
            "probability": outputs.softmax(dim=1).gather(1, label).squeeze(1).numpy(),
        }


class NumberObjective(_SequenceObjective):
    """Labels are numbers; the prediction is the only logit."""

    label_dtype = torch.float32
    labels = "numbers"
    metrics = ("pearson", "spearman")

    @override
    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        assert not label_names, label_names
        return {"num_labels": 1, "problem_type": "regression"}

    @override
    def score(
        self, metric: TaskMetric, outputs: Float[Tensor, "b 1"], labels: Float[Tensor, " b"]
    ) -> float:
        return score(metric, outputs.squeeze(1), labels, num_classes=1)

    @override
    def columns(self, outputs: Float[Tensor, "b 1"], labels: Float[Tensor, " b"]) -> Columns:
        """Return `prediction` (number); `correct`, `margin` and `probability` are null."""
        return {
            "correct": pd.array([None] * len(labels), dtype="boolean"),
            "margin": float("nan"),
            "prediction": outputs.squeeze(1).numpy(),
            "probability": float("nan"),
        }
