"""What a model is trained to do: each file is an objective, which a task names."""

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal, cast

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sorakit.config import TaskMetric
from sorakit.method.targets import head_modules
from sorakit.objectives._texts import Encoded, encode_texts
from sorakit.variants import OBJECTIVES

Columns = Mapping[str, Any]
"""Name -> one value an example."""


class Objective(ABC):
    """Model, batches, loss and scores of one kind of task.

    Attributes:
        task_type: PEFT task type, for example SEQ_CLS; None where it has none.
        model_class: Auto class of transformers that loads the model with its head.
        model_mapping: Configurations that have a model with such a head.
        head: What that head is called in messages.
        inputs: What an example is.
        labels: What an example is learnt with: a class, a number, or a text to be written.
        metrics: Scores that a task may be judged by, the first by default.
        further_metrics: Scores that are recorded beside it.
        encoding: What beside tokenizer and texts decides what `encode` returns; part of the key of
            cached tokens.
    """

    task_type: str | None
    model_class: type[Any]
    model_mapping: Container[type[Any]]
    head: str = "a classification head"
    inputs: Literal["texts", "images"] = "texts"
    labels: Literal["classes", "numbers", "texts"] = "classes"
    metrics: tuple[TaskMetric, ...]
    further_metrics: tuple[TaskMetric, ...] = ()
    encoding: tuple[object, ...] = ()

    @abstractmethod
    def settings(self, label_names: Sequence[str]) -> dict[str, Any]:
        """Return what the model's configuration must say.

        Args:
            label_names: Classes in the order of their index; empty where labels are no classes.
        """

    def head_modules(self, model: PreTrainedModel) -> list[str]:
        """Return the names of the modules that are trained in full beside the adapter."""
        return head_modules(model)

    def encode(
        self,
        texts: Sequence[Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
    ) -> Encoded:
        """Return examples as token ids: here the text, or both as one input.

        Args:
            texts: The first texts of the examples, and the second ones where they have two.
            tokenizer: Tokenizer of the backbone.
            max_length: Longest input in tokens; longer ones are cut.

        Raises:
            ValueError: If there is nothing to learn in a text.
        """
        return encode_texts(texts, tokenizer, max_length=max_length)

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
        """Return the loss of every example of a batch, (b,)."""

    def outputs(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return what evaluation keeps of a batch, (b, k) and (b,): here logits and labels.

        Rows of all batches are put one after the other, on the CPU. Logits of every token would not
        fit.
        """
        return logits, labels

    def output_losses(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return `losses` of examples from what evaluation keeps of them, (b,)."""
        return self.losses(outputs, labels)

    @abstractmethod
    def score(self, metric: TaskMetric, outputs: Tensor, labels: Tensor) -> float:
        """Return a score of a split, from what evaluation keeps of it."""

    @abstractmethod
    def columns(self, outputs: Tensor, labels: Tensor) -> Columns:
        """Return what `examples.parquet` says of every example beside its loss.

        `correct`, `margin`, `prediction` and `probability` are there for every objective, null
        where they have no meaning.
        """

    def null_loss(self, labels: Sequence[Any]) -> float | None:  # noqa: ARG002
        """Return the mean loss of the best answer that does not look at the inputs.

        None where there is no such answer: then the loss of the untrained model takes its place.

        Args:
            labels: Labels of the training examples.
        """
        return None


def objective(name: str) -> Objective:
    """Return the objective that a task names.

    Raises:
        ValueError: If there is none of that name.
    """
    return cast(Objective, OBJECTIVES.load(name))
