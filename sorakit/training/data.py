"""Tokenised splits and their loaders."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import lightning.pytorch as pl
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from sorakit.metric_names import (
    GENERALIZATION_SPLIT,
    INDEX,
    MEMORIZATION_SPLIT,
    TEST_SPLIT,
    TEXT,
    TEXT_PAIR,
)
from sorakit.objectives import Objective, objective
from sorakit.tasks.base import Task
from sorakit.tasks.memorization import memorization_indices
from sorakit.training.batches import batch_stream, evaluation_batches, steps_per_epoch
from sorakit.training.devices import Share, training_share

Batch = dict[str, Tensor]
WEIGHT = "share_weight"
"""In a batch of several processes: `Share.weight`."""


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
        rank: Which of the processes of a run this is.
        world_size: Processes that share the batches.

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
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a split of few batches
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
        self._collate = _collator(objective(task.objective), tokenizer)
        self._batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
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
    def train_dataloader(self) -> DataLoader[Batch]:
        start, count = self._segment
        batches = batch_stream(
            self._lengths, batch_size=self._batch_size, seed=self._seed, start=start, count=count
        )
        shares = [
            training_share(batch, rank=self._rank, world_size=self._world_size) for batch in batches
        ]
        return self._loader(self._train, shares)

    @override
    def val_dataloader(self) -> list[DataLoader[Batch]]:
        loaders = []
        for rows in self._splits.values():
            batches = evaluation_batches(_lengths(rows), self._eval_batch_size)
            loaders.append(self._loader(rows, [Share(rows=batch) for batch in self._own(batches)]))
        return loaders

    def batches_of(self, split: str, *, max_examples: int, batch_size: int) -> list[Batch]:
        """Return this process's batches, by length, of a split's first `max_examples` examples."""
        rows = self._splits[split][:max_examples]
        batches = evaluation_batches(_lengths(rows), batch_size)
        return [self._collate([rows[i] for i in batch]) for batch in self._own(batches)]

    def _own(self, batches: list[list[int]]) -> list[list[int]]:
        return batches[self._rank :: self._world_size]

    def _loader(self, rows: list[dict[str, Any]], shares: list[Share]) -> DataLoader[Batch]:
        batches = _Batches(rows, shares, self._collate, is_weighted=self._world_size > 1)
        # The generator keeps `iter()` from drawing on torch's global one.
        return DataLoader(batches, batch_size=None, generator=torch.Generator())


class _Batches(torch.utils.data.Dataset[Batch]):
    """Collated batches in a fixed order."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        shares: list[Share],
        collate: Callable[[list[dict[str, Any]]], Batch],
        *,
        is_weighted: bool,
    ) -> None:
        self._rows = rows
        self._shares = shares
        self._collate = collate
        self._is_weighted = is_weighted

    def __len__(self) -> int:
        return len(self._shares)

    @override
    def __getitem__(self, index: int) -> Batch:
        share = self._shares[index]
        batch = self._collate([self._rows[i] for i in share.rows])
        if self._is_weighted:
            batch[WEIGHT] = torch.tensor(share.weight)
        return batch


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
    objective: Objective, tokenizer: PreTrainedTokenizerBase
) -> Callable[[list[dict[str, Any]]], Batch]:
    def collate(rows: list[dict[str, Any]]) -> Batch:
        batch = objective.collate(rows, tokenizer)
        batch[INDEX] = torch.tensor([row[INDEX] for row in rows])
        return batch

    return collate
