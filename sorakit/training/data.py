"""Tokenised splits and their loaders."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from sorakit.backbones import Processor
from sorakit.metric_names import (
    GENERALIZATION_SPLIT,
    INDEX,
    LABEL,
    LEFT_OUT_SPLIT,
    MEMORIZATION_SPLIT,
    TEST_SPLIT,
)
from sorakit.objectives import objective
from sorakit.tasks.base import Task
from sorakit.tasks.memorization import memorization_indices
from sorakit.training.batches import batch_stream, evaluation_batches, steps_per_epoch
from sorakit.training.devices import Share, training_share
from sorakit.training.pixels import Pixels, read_pixels
from sorakit.training.tokens import Tokens, tokenisation_progress, tokenise

Examples = Tokens | Pixels
Batch = dict[str, Tensor]
TRAIN = "train"
WEIGHT = "share_weight"
"""In a batch of several processes: `Share.weight`."""


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How the examples of a batch are brought to one length.

    Attributes:
        side: Where pad tokens go.
        length: Tokens that every example is padded to; `None` is the longest of the batch.
    """

    side: Literal["right", "left"] = "right"
    length: int | None = None


class AdaptationData(pl.LightningDataModule):
    """Training batches as an endless seeded stream, and the evaluation splits.

    `train_dataloader` gives the piece of the stream that `segment` names, and Lightning asks for a
    new one every epoch (`reload_dataloaders_every_n_epochs=1`), so an epoch of Lightning may be any
    number of steps long.

    Args:
        task: Texts and labels.
        tokenizer: Tokenizer of the backbone; of a model of images, its image processor.
        max_length: Longest input in tokens; images have none.
        memorization_examples: Size of the memorization sample.
        batch_size: Training examples per step.
        eval_batch_size: Examples per evaluation batch.
        seed: Seed of the batch order.
        rank: Which of the processes of a run this is.
        world_size: Processes that share the batches.
        show_progress: Show a bar while many texts are tokenised.
        image_size: Side of images in pixels; None is what their processor says.

    Attributes:
        objective: What the task is trained for.
        tokenizer: As given.
        max_length: As given.
        tokens: Split -> its tokens, or images; `TRAIN`, of which memorization is a sample, and
            held-out ones.
        padding: How batches are padded; on the tokenizer's side until it is set.
        num_cut: Split -> its texts that are longer than `max_length`, which cuts them.

    Raises:
        ValueError: If the backbone cannot take inputs of `max_length`.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Processor,
        *,
        max_length: int,
        memorization_examples: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        show_progress: bool = False,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # a split of few batches
        is_text = isinstance(tokenizer, PreTrainedTokenizerBase)
        if is_text and max_length > tokenizer.model_max_length:
            raise ValueError(
                f"`task.max_length` must be <= {tokenizer.model_max_length}, the longest input "
                "of the backbone, "
                f"got {max_length}."
            )
        goal = objective(task.objective)
        sources = {TRAIN: task.train, GENERALIZATION_SPLIT: task.validation}
        if task.test is not None:
            sources[TEST_SPLIT] = task.test
        if task.left_out is not None:
            sources[LEFT_OUT_SPLIT] = task.left_out
        with tokenisation_progress(sum(map(len, sources.values())), show=show_progress) as told:
            tokens = {
                name: (
                    tokenise(split, tokenizer, objective=goal, max_length=max_length, progress=told)
                    if isinstance(tokenizer, PreTrainedTokenizerBase)
                    else read_pixels(split, tokenizer, size=image_size)
                )
                for name, split in sources.items()
            }
        self.num_cut = {name: split.num_cut for name, split in tokens.items()}
        self.tokenizer: Any = tokenizer
        self.max_length = max_length
        self.tokens: dict[str, Any] = tokens
        self.padding = Padding()
        if is_text and tokenizer.padding_side == "left":
            self.padding = Padding(side="left")
        self._train = tokens[TRAIN]
        sample = memorization_indices(len(self._train), memorization_examples)
        held_out = {name: split for name, split in tokens.items() if name != TRAIN}
        self._splits = {MEMORIZATION_SPLIT: self._train.select(sample), **held_out}
        self.objective = goal
        self._batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._segment = (0, self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        return steps_per_epoch(len(self._train), self._batch_size)

    @property
    def split_names(self) -> tuple[str, ...]:
        """Evaluation splits in the order of `val_dataloader`."""
        return tuple(self._splits)

    def extreme_rows(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return split and row of the shortest and of the longest example of all."""
        shortest = min(self.tokens, key=lambda name: self.tokens[name].lengths.min())
        longest = max(self.tokens, key=lambda name: self.tokens[name].lengths.max())
        return (
            (shortest, int(self.tokens[shortest].lengths.argmin())),
            (longest, int(self.tokens[longest].lengths.argmax())),
        )

    def collate(self, rows: list[dict[str, Any]]) -> Batch:
        """Return examples as one batch, padded as `padding` says."""
        if isinstance(self.tokenizer, PreTrainedTokenizerBase):
            self.tokenizer.padding_side = self.padding.side
        batch = self.objective.collate(rows, self.tokenizer, length=self.padding.length)
        batch[INDEX] = torch.tensor([row[INDEX] for row in rows])
        return batch

    def set_segment(self, start: int, count: int) -> None:
        """Make the next `train_dataloader` give `count` batches of the stream from `start` on."""
        self._segment = (start, count)

    @override
    def train_dataloader(self) -> DataLoader[Batch]:
        start, count = self._segment
        batches = batch_stream(
            self._train.lengths,
            batch_size=self._batch_size,
            seed=self._seed,
            start=start,
            count=count,
        )
        shares = [
            training_share(batch, rank=self._rank, world_size=self._world_size) for batch in batches
        ]
        return self._loader(self._train, shares)

    @override
    def val_dataloader(self) -> list[DataLoader[Batch]]:
        loaders = []
        for rows in self._splits.values():
            batches = evaluation_batches(rows.lengths, self._eval_batch_size)
            loaders.append(self._loader(rows, [Share(rows=batch) for batch in self._own(batches)]))
        return loaders

    def batches_of(self, split: str, *, max_examples: int, batch_size: int) -> list[Batch]:
        """Return this process's batches, by length, of a split's first `max_examples` examples."""
        rows = self._splits[split]
        rows = rows.select(range(min(max_examples, len(rows))))
        batches = evaluation_batches(rows.lengths, batch_size)
        return [self.collate(rows.rows(batch)) for batch in self._own(batches)]

    def first_batches(self, split: str, *, max_examples: int) -> Iterator[Batch]:
        """Yield all batches, whichever process this is, of a split's first examples."""
        rows = self._splits[split]
        rows = rows.select(range(min(max_examples, len(rows))))
        for batch in evaluation_batches(rows.lengths, self._batch_size):
            yield self.collate(rows.rows(batch))

    def _own(self, batches: list[list[int]]) -> list[list[int]]:
        return batches[self._rank :: self._world_size]

    def _loader(self, rows: Examples, shares: list[Share]) -> DataLoader[Batch]:
        batches = _Batches(rows, shares, self.collate, is_weighted=self._world_size > 1)
        # The generator keeps `iter()` from drawing on torch's global one.
        return DataLoader(batches, batch_size=None, generator=torch.Generator())


def model_inputs(batch: Batch) -> Batch:
    """Return what the model takes of a batch: all but labels, indices and weights."""
    return {name: value for name, value in batch.items() if name not in (LABEL, INDEX, WEIGHT)}


class _Batches(torch.utils.data.Dataset[Batch]):
    """Collated batches in a fixed order."""

    def __init__(
        self,
        rows: Examples,
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
        batch = self._collate(self._rows.rows(share.rows))
        if self._is_weighted:
            batch[WEIGHT] = torch.tensor(share.weight)
        return batch
