"""What a task is: texts, labels and a score."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa
from datasets import Dataset

from sorakit.config import TaskMetric
from sorakit.metric_names import TEXT_PAIR
from sorakit.variants import OBJECTIVES


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts with labels, split into what is trained on and what is held out.

    Attributes:
        name: Name as in `task.name`.
        train: Columns `text`, `text_pair` (pairs only) and `label` (class index, or float for a
            regression). Where the answer is written: `text` is what is learnt, or the prompt, whose
            response is `text_pair`; `label` is 0.
        validation: Held out, same columns.
        test: A second held-out split, where the protocol has one.
        left_out: Training examples that the run's subset leaves out, where it has one.
        label_names: Class names, index = label; empty where labels are numbers.
        objective: What a model is trained to do: a file of `sorakit.objectives`.
        metric: The score of memorization and generalization.
        extra_metrics: Further scores that the task's papers report.
        source: Where the data came from, for `meta.json`: never an absolute path of the user's
            machine.
    """

    name: str
    train: Dataset
    validation: Dataset
    label_names: tuple[str, ...]
    metric: TaskMetric
    objective: str = "classification"
    extra_metrics: tuple[TaskMetric, ...] = ()
    test: Dataset | None = None
    left_out: Dataset | None = None
    source: str = ""

    @property
    def is_written(self) -> bool:
        """Whether the answer is a text, and no label."""
        return OBJECTIVES.load(self.objective).labels == "texts"

    @property
    def is_pair(self) -> bool:
        """Whether examples are pairs of texts."""
        return TEXT_PAIR in self.train.column_names


def arrow_tables(split: Dataset, num_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of a split as Arrow tables of `num_rows` rows, the last with what is left."""
    yield from cast(Iterator[pa.Table], split.with_format("arrow").iter(num_rows))


def column_array(split: Dataset, name: str) -> np.ndarray:
    """Return a column of numbers."""
    parts = [table[name].to_numpy() for table in arrow_tables(split.select_columns(name), 100_000)]
    return np.concatenate(parts) if parts else np.empty(0)
