"""Examples that a comparison of training and held-out scores should not hold, counted."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset

from sorakit.metric_names import IMAGE, IS_NOISY, LABEL, TEXT, TEXT_PAIR
from sorakit.tasks.base import Task, arrow_tables, column_array
from sorakit.tasks.images import image_digests

_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Equal inputs: one text, or both of a pair, to the character; one image, to the byte.

    Attributes:
        held_out_in_train: Held-out examples whose input is in the training data.
        repeated_in_train: Training examples whose input another one has too.
        other_label_in_train: Training examples whose input another one has with another label;
            labels that were made noisy do not count.
    """

    held_out_in_train: int
    repeated_in_train: int
    other_label_in_train: int


def find_overlap(task: Task) -> Overlap:
    """Return how many examples of a task repeat an input; no text becomes a Python object."""
    train, held_out = _inputs(task.train, task.validation)
    table = pd.DataFrame({"input": train, "label": column_array(task.train, LABEL)})
    repeated = int(table["input"].duplicated(keep=False).sum())
    if IS_NOISY in task.train.column_names:
        table = table[~column_array(task.train, IS_NOISY).astype(bool)]
    pairs = table.drop_duplicates()
    contested = pairs.loc[pairs["input"].duplicated(), "input"]
    return Overlap(
        held_out_in_train=int(np.isin(held_out, train).sum()),
        repeated_in_train=repeated,
        other_label_in_train=int(table["input"].isin(contested).sum()),
    )


def _inputs(train: Dataset, held_out: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for the input of every example, the same for equal ones."""
    if IMAGE in train.column_names:
        images = pd.factorize(np.array([*image_digests(train), *image_digests(held_out)]))[0]
        return images[: len(train)], images[len(train) :]
    names = [name for name in (TEXT, TEXT_PAIR) if name in train.column_names]
    numbers = np.zeros(len(train) + len(held_out), dtype=np.int64)
    for name in names:
        chunks = [
            chunk
            for split in (train, held_out)
            for table in arrow_tables(split.select_columns(name), _ROWS)
            for chunk in table[name].chunks
        ]
        codes = pa.chunked_array(chunks, pa.string()).dictionary_encode().combine_chunks()
        texts = codes.indices.to_numpy()
        numbers = pd.factorize(numbers * (texts.max(initial=0) + 1) + texts)[0]
    return numbers[: len(train)], numbers[len(train) :]
