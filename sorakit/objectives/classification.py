"""One class a sequence: cross entropy in nats."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, final

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from sorakit.config import TaskMetric
from sorakit.objectives import Columns
from sorakit.objectives._sequence import SequenceObjective
from sorakit.scores import score


@final
class Classification(SequenceObjective):
    """Labels are class indices; the prediction is the class with the largest logit."""

    label_dtype = torch.long

    @override
    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {
            "num_labels": len(label_names),
            "problem_type": "single_label_classification",
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: index for index, name in enumerate(label_names)},
        }

    @override
    def losses(
        self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        return F.cross_entropy(logits, labels, reduction="none")

    @override
    def score(
        self, metric: TaskMetric, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]
    ) -> float:
        return score(metric, logits.argmax(dim=1), labels, num_classes=logits.shape[1])

    @override
    def columns(self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]) -> Columns:
        """Return `correct`, `margin`, `prediction` (class) and `probability` (of the label).

        The margin is the logit of the label minus the largest other logit.
        """
        predictions = logits.argmax(dim=1)
        label = labels[:, None]
        others = logits.scatter(1, label, float("-inf"))
        return {
            "correct": pd.array((predictions == labels).numpy(), dtype="boolean"),
            "margin": (logits.gather(1, label).squeeze(1) - others.amax(dim=1)).numpy(),
            "prediction": predictions.numpy(),
            "probability": logits.softmax(dim=1).gather(1, label).squeeze(1).numpy(),
        }

    @override
    def null_loss(self, labels: Sequence[int]) -> float:
        """Return the entropy of the labels, in nats: the loss of always giving their shares."""
        shares = [count / len(labels) for count in Counter(labels).values()]
        return -math.fsum(share * math.log(share) for share in shares)


VARIANT = Classification()
