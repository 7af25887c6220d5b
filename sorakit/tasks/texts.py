"""The texts of a run's examples, found again by their index: records hold none."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from datasets import Dataset

from sorakit.metric_names import (
    GENERALIZATION_SPLIT,
    INDEX,
    LABEL,
    LEFT_OUT_SPLIT,
    MEMORIZATION_SPLIT,
    POOL_INDEX,
    TEST_SPLIT,
    TEXT,
    TEXT_PAIR,
)
from sorakit.tasks.base import Task

_BETWEEN = " | "
"""Between the two texts of a pair."""


def example_texts(task: Task) -> pd.DataFrame:
    """Return a row an example of every split, with the `index` that `examples.parquet` gives it.

    Columns: `split`, `index`, `label` (a class by its name), `text`. Texts are no part of a record:
    packs of records are published, and the terms of a dataset may not allow that of its texts.

    Args:
        task: The task of the run, as it was loaded for it.
    """
    splits: Mapping[str, Dataset | None] = {
        MEMORIZATION_SPLIT: task.train,
        LEFT_OUT_SPLIT: task.left_out,
        GENERALIZATION_SPLIT: task.validation,
        TEST_SPLIT: task.test,
    }
    tables = [_texts(rows, task).assign(split=name) for name, rows in splits.items() if rows]
    return pd.concat(tables, ignore_index=True)[["split", INDEX, LABEL, TEXT]]


def _texts(rows: Dataset, task: Task) -> pd.DataFrame:
    columns: dict[str, Any] = {name: rows[name][:] for name in rows.column_names}
    texts = columns[TEXT]
    if TEXT_PAIR in columns:
        texts = [_BETWEEN.join(pair) for pair in zip(texts, columns[TEXT_PAIR], strict=True)]
    labels = columns[LABEL]
    if task.label_names:
        labels = [task.label_names[label] for label in labels]
    index = columns.get(POOL_INDEX, range(len(rows)))
    return pd.DataFrame({INDEX: index, LABEL: labels, TEXT: texts})
