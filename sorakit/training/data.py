"""Tokenised splits and their loaders."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import lightning.pytorch as pl
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase
from typing_extensions import override

from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT, TEST_SPLIT
from sorakit.tasks.base import INDEX, LABEL, TEXT, TEXT_PAIR, Task
from sorakit.tasks.memorization import memorization_indices
from sorakit.training.batches import batch_stream, evaluation_batches, steps_per_epoch

Batch = dict[str, Tensor]


class AdaptationData(pl.LightningDataModule):
    """Training batches as an endless seeded stream, and the evaluation splits.

    `train_dataloader` gives the piece of the stream that `segment` names, and Lightning asks for a
    new one every epoch (`reload_dataloaders_every_n_epochs=1`), so an epoch of Lightning may be any
    number of steps long.

    Args:
        task: Texts and labels.
        tokenizer: Tokenizer of the backbone.
        max_length: Longest input in tokens.
        memorization_examples: Size of the memorization sample.
        batch_size: Training examples per step.
        eval_batch_size: Examples per evaluation batch.
        seed: Seed of the batch order.

    Raises:
        ValueError: If the backbone cannot take inputs of `max_length`.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        memorization_examples: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        if max_length > tokenizer.model_max_length:
            raise ValueError(
                f"`task.max_length` must be <= {tokenizer.model_max_length}, the longest input "
                "of the backbone, "
                f"got {max_length}."
            )
        train = _tokenise(task.train, tokenizer, max_length)
        sample = memorization_indices(len(train), memorization_examples)
        splits = {
            MEMORIZATION_SPLIT: train.select(sample),
            GENERALIZATION_SPLIT: _tokenise(task.validation, tokenizer, max_length),
        }
        if task.test is not None:
            splits[TEST_SPLIT] = _tokenise(task.test, tokenizer, max_length)
        self._train = _rows(train)
        self._splits = {name: _rows(split) for name, split in splits.items()}
        self._collate = _collator(tokenizer, is_regression=task.is_regression)
        self._batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._seed = seed
        self._lengths = _lengths(self._train)
        self._segment = (0, self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        return steps_per_epoch(len(self._train), self._batch_size)

    @property
    def split_names(self) -> tuple[str, ...]:
        """Evaluation splits in the order of `val_dataloader`."""
        return tuple(self._splits)

    def set_segment(self, start: int, count: int) -> None:
        """Make the next `train_dataloader` give `count` batches of the stream from `start` on."""
        self._segment = (start, count)

    @override
    def train_dataloader(self) -> DataLoader[Any]:
        start, count = self._segment
        batches = batch_stream(
            self._lengths, batch_size=self._batch_size, seed=self._seed, start=start, count=count
        )
        return self._loader(self._train, list(batches))

    @override
    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [
            self._loader(rows, evaluation_batches(_lengths(rows), self._eval_batch_size))
            for rows in self._splits.values()
        ]

    def batches_of(self, split: str, *, max_examples: int, batch_size: int) -> list[Batch]:
        """Return batches, by length, of the first `max_examples` examples of a split."""
        rows = self._splits[split][:max_examples]
        return [
            self._collate([rows[i] for i in batch])
            for batch in evaluation_batches(_lengths(rows), batch_size)
        ]

    def _loader(self, rows: list[dict[str, Any]], batches: list[list[int]]) -> DataLoader[Any]:
        # The generator keeps `iter()` from drawing on torch's global one.
        return DataLoader(
            rows,  # pyright: ignore[reportArgumentType]  # a list has all that a map-style dataset needs
            batch_sampler=batches,
            collate_fn=self._collate,
            generator=torch.Generator(),
        )


def _tokenise(split: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    def encode(batch: Mapping[str, Any]) -> dict[str, Any]:
        pairs = batch.get(TEXT_PAIR)
        encoding = tokenizer(batch[TEXT], pairs, truncation=True, max_length=max_length)
        return dict(encoding)

    texts = [name for name in (TEXT, TEXT_PAIR) if name in split.column_names]
    indexed = split.add_column(INDEX, list(range(len(split))))
    return indexed.map(encode, batched=True, remove_columns=texts, keep_in_memory=True)


def _rows(split: Dataset) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], list(split))


def _lengths(rows: Sequence[dict[str, Any]]) -> list[int]:
    return [len(row["input_ids"]) for row in rows]


def _collator(
    tokenizer: PreTrainedTokenizerBase, *, is_regression: bool
) -> Callable[[list[dict[str, Any]]], Batch]:
    pad = DataCollatorWithPadding(tokenizer)
    dtype = torch.float32 if is_regression else torch.long

    def collate(rows: list[dict[str, Any]]) -> Batch:
        names = [name for name in tokenizer.model_input_names if name in rows[0]]
        batch = dict(pad([{name: row[name] for name in names} for row in rows]))
        batch[LABEL] = torch.tensor([row[LABEL] for row in rows], dtype=dtype)
        batch[INDEX] = torch.tensor([row[INDEX] for row in rows])
        return batch

    return collate
