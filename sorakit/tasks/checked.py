"""Rows of any source as the examples of a task: every text and label is looked at."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from datasets import Dataset

from sorakit.metric_names import LABEL
from sorakit.quoting import quoted
from sorakit.tasks.classes import ClassCounter
from sorakit.tasks.tables import Chunk


class CheckedSplit:
    """The checked columns of one split, chunk by chunk.

    Args:
        counter: What gives classes their numbers; it has seen no label of a regression.
        has_labels: Whether examples have any.
    """

    def __init__(self, counter: ClassCounter, *, has_labels: bool = True) -> None:
        self.counter = counter
        self.has_labels = has_labels
        self.texts: dict[str, list[pa.Array]] = {}
        self.scores: list[pa.Array] = []

    def dataset(self, label_names: Sequence[str]) -> Dataset:
        """Return the examples; without class names, labels are numbers, or 0 for texts alone."""
        if not self.has_labels:
            count = sum(len(chunk) for chunk in next(iter(self.texts.values()), []))
            labels = pa.chunked_array([pa.array(np.zeros(count, np.int64))])
        elif label_names:
            labels = pa.chunked_array([pa.array(self.counter.indices(label_names))])
        else:
            labels = pa.chunked_array(self.scores)
        columns = {name: pa.chunked_array(chunks) for name, chunks in self.texts.items()}
        return Dataset(pa.table({**columns, LABEL: labels}))


def checked_split(
    chunks: Iterable[Chunk],
    sources: Mapping[str, str],
    *,
    label_column: str | None,
    key: str,
    has_numbers: bool,
) -> CheckedSplit:
    """Return the texts and labels of a split.

    Args:
        chunks: Its rows.
        sources: Output column -> column of the chunks, of the texts.
        label_column: Column of the labels; None for texts without any.
        key: Option that names the source, for messages.
        has_numbers: Whether labels are numbers, not classes.

    Raises:
        ValueError: If a text or a label cannot be used.
    """
    counter = ClassCounter(label_column or "", key=key)
    split = CheckedSplit(counter, has_labels=label_column is not None)
    for chunk in chunks:
        for output, column in sources.items():
            split.texts.setdefault(output, []).append(_texts(chunk, column, key=key))
        if label_column is None:
            continue
        if has_numbers:
            split.scores.append(_scores(chunk, label_column, key=key))
        else:
            split.counter.add(chunk)
    return split


def _texts(chunk: Chunk, column: str, *, key: str) -> pa.Array:
    values = chunk.columns[column]
    for index, text in enumerate(values):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"`{key}`: {column!r} in {chunk.place(index)} must be a text that is not blank, "
                f"got {quoted(text)}."
            )
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as error:
        index = next(i for i, text in enumerate(values) if _has_half_character(str(text)))
        raise ValueError(
            f"`{key}`: {column!r} in {chunk.place(index)} must be Unicode text, got half of a "
            f"surrogate pair (\\ud800 to \\udfff) in {quoted(values[index])}."
        ) from error


def _has_half_character(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _scores(chunk: Chunk, column: str, *, key: str) -> pa.Array:
    numbers = np.empty(len(chunk.columns[column]))
    for index, label in enumerate(chunk.columns[column]):
        try:
            number = math.nan if isinstance(label, bool) else float(str(label))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"`{key}`: label {quoted(label)} in column {column!r}, {chunk.place(index)}, must "
                "be a finite number, because `task.metric` is pearson or spearman."
            )
        numbers[index] = number
    return pa.array(numbers)
