"""Token ids of a split in Arrow: made once, kept in a file if there are many, read as needed."""

import hashlib
import importlib.metadata
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from sorakit.metric_names import INDEX, LABEL, TEXT, TEXT_PAIR
from sorakit.objectives import Objective
from sorakit.tasks.base import arrow_tables, column_array
from sorakit.tasks.cache import cache_dir, new_file

logger = logging.getLogger(__name__)

_CHUNK_ROWS = 5_000
_CACHED_FROM = 20_000
"""Rows of a split from which on its tokens are kept in a file."""
_FORMAT = "2"
_INPUT_IDS = "input_ids"
_IS_CUT = "is_cut"
_OF_ONES = "attention_mask"  # one for every token before padding

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids and labels of a split; a row is made when it is asked for.

    Attributes:
        chunks: Column -> (values, offsets) of the rows of a chunk, chunk after chunk.
        lengths: Tokens of every row.
        labels: Label of every row.
        num_cut: Rows whose text did not fit.
        has_mask: Whether the model takes an attention mask.
        index: Position of every row in the split that it was drawn from.
    """

    chunks: list[dict[str, tuple[np.ndarray, np.ndarray]]]
    lengths: np.ndarray
    labels: np.ndarray
    is_cut: np.ndarray
    has_mask: bool
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_cut(self) -> int:
        """Rows whose text was longer than the longest input."""
        return int(self.is_cut.sum())

    def rows(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows at some positions, as a collator takes them."""
        return [self._row(position) for position in positions]

    def select(self, positions: Sequence[int]) -> "Tokens":
        """Return some of the rows; they keep their `index`."""
        chosen = np.asarray(positions, dtype=np.int64)
        return Tokens(
            chunks=self.chunks,
            lengths=self.lengths[chosen],
            labels=self.labels[chosen],
            is_cut=self.is_cut[chosen],
            has_mask=self.has_mask,
            index=self.index[chosen],
        )

    def largest(self, name: str) -> tuple[int, int] | None:
        """Return the largest value of an input of the model, and the first row that holds it.

        None where the tokenizer gives no such input, or no token at all.
        """
        found = None
        for number, chunk in enumerate(self.chunks):
            values, offsets = chunk.get(name, (np.empty(0), np.empty(0)))
            if len(values) == 0:
                continue
            at = int(values.argmax())
            if found is None or int(values[at]) > found[0]:
                place = int(np.searchsorted(offsets, at, side="right")) - 1
                found = (int(values[at]), number * _CHUNK_ROWS + place)
        return found

    def share_of(self, token: int) -> float:
        """Return the share of all tokens that have an id."""
        ids = [chunk[_INPUT_IDS][0] for chunk in self.chunks]
        return sum(int((values == token).sum()) for values in ids) / max(sum(map(len, ids)), 1)

    def _row(self, position: int) -> dict[str, Any]:
        index = int(self.index[position])
        chunk, place = divmod(index, _CHUNK_ROWS)
        row: dict[str, Any] = {}
        for name, (values, offsets) in self.chunks[chunk].items():
            row[name] = values[offsets[place] : offsets[place + 1]].tolist()
        if self.has_mask:
            row[_OF_ONES] = [1] * len(row[_INPUT_IDS])
        row[LABEL] = self.labels[position].item()
        row[INDEX] = index
        return row


def tokenise(
    split: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    objective: Objective,
    max_length: int,
    progress: Progress = lambda _: None,
) -> Tokens:
    """Return the tokens of a split; those of a large one come from the cache if it has them.

    Args:
        split: Columns `text`, `text_pair` (pairs only) and `label`.
        tokenizer: Tokenizer of the backbone.
        objective: What makes inputs of texts.
        max_length: Longest input in tokens; longer ones are cut.
        progress: Told the number of rows after every few thousand of them.
    """
    names = [name for name in (TEXT, TEXT_PAIR) if name in split.column_names]
    texts = split.select_columns(names)
    path = None
    if len(split) >= _CACHED_FROM:
        path = _cache_path(texts, tokenizer, objective, max_length)
    batches = None if path is None else _read(path)
    if batches is None:
        batches = _encoded(texts, tokenizer, objective, max_length, progress)
        if path is not None:
            with new_file(path) as file:
                _write(file, batches)
            batches = _read(path)
            assert batches is not None, "it was just written"
    else:
        progress(len(split))
    tables = list(batches)
    chunks = [_views(batch) for batch in tables]
    lengths = [np.diff(chunk[_INPUT_IDS][1]) for chunk in chunks]
    return Tokens(
        chunks=chunks,
        lengths=np.concatenate(lengths) if lengths else np.empty(0, dtype=np.int64),
        labels=column_array(split, LABEL),
        is_cut=np.concatenate(
            [batch[_IS_CUT].to_numpy(zero_copy_only=False) for batch in tables] or [np.empty(0)]
        ),
        has_mask=_OF_ONES in tokenizer.model_input_names,
        index=np.arange(len(split)),
    )


@contextmanager
def tokenisation_progress(total: int, *, show: bool) -> Iterator[Progress]:
    """Give a function to tell of tokenised rows: a bar on a terminal, a line in a log.

    Args:
        total: Rows of all splits; few of them are not worth a word.
        show: Whether to show anything.
    """
    if not show or total < _CACHED_FROM:
        yield lambda _: None
        return
    console = Console(file=sys.stderr, highlight=False)
    if not console.is_terminal:
        console.print(f"Tokenising {total:,} texts")
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    with RichProgress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("tokenising", total=total)
        yield lambda count: bar.advance(task, count)


def _encoded(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    objective: Objective,
    max_length: int,
    progress: Progress,
) -> Iterator[pa.RecordBatch]:
    for batch in arrow_tables(texts, _CHUNK_ROWS):
        columns = [batch[name].to_pylist() for name in texts.column_names]
        encoded = objective.encode(columns, tokenizer, max_length=max_length)
        arrays = {
            name: pa.array(rows, pa.large_list(pa.int32()))
            for name, rows in encoded.columns.items()
        }
        arrays[_IS_CUT] = pa.array(encoded.is_cut, pa.bool_())
        progress(len(batch))
        yield pa.RecordBatch.from_pydict(arrays)


def _views(batch: pa.RecordBatch) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return values and offsets of the lists of a chunk, without a copy."""
    views = {}
    for name in batch.schema.names:
        if name != _IS_CUT:
            lists = batch[name]
            views[name] = (
                lists.values.to_numpy(zero_copy_only=False),
                lists.offsets.to_numpy(zero_copy_only=False),
            )
    return views


# The cache -----------------------------------------------------------------------------------


def _cache_path(
    texts: Dataset, tokenizer: PreTrainedTokenizerBase, objective: Objective, max_length: int
) -> Path | None:
    """Return the file for these tokens; None for a tokenizer that has no text that tells it."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("truncation", "padding"):  # whatever it did last
        rules.pop(state, None)
    digest = hashlib.sha256()
    known = (
        _FORMAT,
        max_length,
        type(tokenizer).__name__,
        tokenizer.truncation_side,
        tokenizer.model_input_names,
        importlib.metadata.version("tokenizers"),
        importlib.metadata.version("transformers"),
        rules,
        *objective.encoding,
    )
    digest.update(json.dumps(known, sort_keys=True).encode())
    for batch in arrow_tables(texts, _CHUNK_ROWS):
        for name in texts.column_names:
            values = batch[name].to_pylist()
            digest.update(json.dumps(values).encode())
    return cache_dir() / "tokens" / f"{digest.hexdigest()[:32]}.arrow"


def _write(file: Path, batches: Iterator[pa.RecordBatch]) -> None:
    first = next(batches)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _read(path: Path) -> Iterator[pa.RecordBatch] | None:
    """Return the batches of a file, mapped into memory; None if there is none that can be read."""
    if not path.exists():
        return None
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return iter([reader.get_batch(i) for i in range(reader.num_record_batches)])
    except (pa.ArrowInvalid, OSError) as error:
        logger.warning("Tokens are made anew, %s is damaged: %s", path, error)
        return None
