"""What objectives with one label for a whole sequence have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)
from typing_extensions import override

from sorakit.metric_names import LABEL
from sorakit.objectives import Objective


class SequenceObjective(Objective):
    """A sequence classification model, one column of logits a class, or one for a number.

    Attributes:
        label_dtype: Dtype of labels.
    """

    task_type = "SEQ_CLS"
    model_class = AutoModelForSequenceClassification
    label_dtype: torch.dtype

    @override
    def collate(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        length: int | None = None,
    ) -> dict[str, Tensor]:
        names = [name for name in tokenizer.model_input_names if name in rows[0]]
        padding = "longest" if length is None else "max_length"
        pad = DataCollatorWithPadding(tokenizer, padding=padding, max_length=length)
        batch = dict(pad([{name: row[name] for name in names} for row in rows]))
        batch[LABEL] = torch.tensor([row[LABEL] for row in rows], dtype=self.label_dtype)
        return batch
