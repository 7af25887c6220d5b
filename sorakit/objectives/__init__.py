"""What a model is trained to do: each file is an objective, which a task names."""

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sorakit.config import TaskMetric
from sorakit.method.targets import head_modules
from sorakit.variants import OBJECTIVES

Columns = Mapping[str, Any]
"""Name -> one value an example."""


class Objective(ABC):
    """Model, batches, loss and scores of one kind of task.

    Attributes:
        task_type: PEFT task type, for example SEQ_CLS.
        model_class: Auto class of transformers that loads the model with its head.
        model_mapping: Configurations that have a model with such a head.
    """

    task_type: str
    model_class: type[Any]
    model_mapping: Container[type[Any]]

    @abstractmethod
    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return what the model's configuration must say.

        Args:
            label_names: Classes in the order of their index; empty where labels are no classes.
        """

    def head_modules(self, model: PreTrainedModel) -> list[str]:
        """Return the names of the modules that are trained in full beside the adapter."""
        return head_modules(model)

    @abstractmethod
    def collate(
        self,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        length: int | None = None,
    ) -> dict[str, Tensor]:
        """Return a batch of tokenised examples: inputs of the model, and labels.

        Args:
            rows: Outputs of the tokenizer, and `label`.
            tokenizer: Tokenizer of the backbone; it pads on its `padding_side`.
            length: Tokens that every example is padded to; `None` is the longest of them.
        """

    @abstractmethod
    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of every example, (b,)."""

    @abstractmethod
    def score(self, metric: TaskMetric, logits: Tensor, labels: Tensor) -> float:
        """Return a score of a split."""

    @abstractmethod
    def columns(self, logits: Tensor, labels: Tensor) -> Columns:
        """Return what `examples.parquet` says of every example beside its loss."""

    @abstractmethod
    def null_loss(self, labels: Sequence[Any]) -> float:
        """Return the mean loss of the best answer that does not look at the inputs.

        Args:
            labels: Labels of the training examples.
        """


def objective(name: str) -> Objective:
    """Return the objective that a task names.

    Raises:
        ValueError: If there is none of that name.
    """
    return cast(Objective, OBJECTIVES.load(name))
