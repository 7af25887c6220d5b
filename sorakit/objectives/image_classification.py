"""One class an image: cross entropy in nats."""

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoModelForImageClassification,
)
from typing_extensions import override

from sorakit.metric_names import LABEL
from sorakit.objectives._sequence import ClassObjective
from sorakit.objectives.classification import entropy

PIXELS = "pixel_values"
"""What a model of images takes, (channels, height, width)."""


@final
class ImageClassification(ClassObjective):
    """Any image classifier of transformers; an image is what its processor makes of it.

    Nothing is augmented. Convolutions, the patch embedding of a vision transformer among them, are
    not adapted: `method.target_modules` means linear layers.
    """

    inputs = "images"
    task_type = None  # PEFT has none
    model_class = AutoModelForImageClassification
    model_mapping = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    head = "an image classification head"

    @override
    def collate(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: Any = None,
        *,
        length: int | None = None,
    ) -> dict[str, Tensor]:
        """Return a batch of images of one size; they are never padded."""
        return {
            PIXELS: torch.stack([row[PIXELS] for row in rows]),
            LABEL: torch.tensor([row[LABEL] for row in rows], dtype=self.label_dtype),
        }

    @override
    def losses(
        self, logits: Float[Tensor, "b classes"], labels: Int[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        return F.cross_entropy(logits, labels, reduction="none")

    @override
    def null_loss(self, labels: Sequence[int]) -> float:
        """Return the entropy of the labels, in nats: the loss of always giving their shares."""
        return entropy(labels)


VARIANT = ImageClassification()
