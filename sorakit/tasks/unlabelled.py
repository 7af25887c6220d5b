"""Texts without labels, in the columns of a task: what a trained adapter is asked about."""

import csv
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from sorakit.config import TaskConfig
from sorakit.metric_names import LABEL, TEXT, TEXT_PAIR
from sorakit.quoting import listed, quoted
from sorakit.tasks import GLUE_NAMES, OWN_NAMES
from sorakit.tasks.tables import SUFFIXES, MissingColumnError, read_chunks

_PAIRS = "pydoc_pair"
"""The embedded task whose examples are pairs."""


def read_texts(file: Path, config: TaskConfig) -> Dataset:
    """Return the texts of a file as a split of a task; its labels are zeros that mean nothing.

    Args:
        file: CSV, TSV, JSON, JSON lines or parquet with the task's columns of texts; of a GLUE task
            also the official test file (TSV) or that of the Hub (parquet). Other columns are not
            read.
        config: The `task` section of a run.

    Raises:
        ValueError: If the file is missing or malformed, has not the columns, or holds no text.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"`--file` must end in one of {', '.join(SUFFIXES)}, got {quoted(file.name)}."
        )
    if not file.is_file():
        raise ValueError(f"`--file` must be an existing file, got {quoted(str(file))}.")
    choices = _columns(config)
    if config.name in GLUE_NAMES and file.suffix.lower() == ".tsv":
        found = _read_official(file, choices)
    else:
        found = _read(file, choices[:1] if config.name not in GLUE_NAMES else choices)
    rows = len(found[0])
    if rows == 0:
        raise ValueError(
            f"`--file` must hold at least one example, got none in {quoted(str(file))}."
        )
    names = (TEXT, TEXT_PAIR)[: len(found)]
    for name, texts in zip(names, found, strict=True):
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"`--file` must hold a text in every row, got {quoted(text)} for {name} in row "
                    f"{row} (from 0) of {quoted(file.name)}."
                )
    return Dataset.from_dict({**dict(zip(names, found, strict=True)), LABEL: [0] * rows})


def _columns(config: TaskConfig) -> list[tuple[str, ...]]:
    """Return the names that the columns of texts may have, the likeliest first."""
    if config.name in GLUE_NAMES:
        from sorakit.tasks.glue import GLUE

        spec = GLUE[config.name]
        return list(dict.fromkeys((spec.hub_texts, spec.tsv_texts)))
    if config.name in OWN_NAMES:
        pair = config.text_pair_column
        return [(config.text_column,) if pair is None else (config.text_column, pair)]
    return [(TEXT, TEXT_PAIR) if config.name == _PAIRS else (TEXT,)]


def _read(file: Path, choices: Sequence[tuple[str, ...]]) -> list[list[object]]:
    missing: MissingColumnError | None = None
    for columns in choices:
        found: list[list[object]] = [[] for _ in columns]
        try:
            for chunk in read_chunks(file, columns):
                for texts, column in zip(found, columns, strict=True):
                    texts += chunk.columns[column]
        except MissingColumnError as error:
            missing = missing or error
            continue
        except ValueError as error:
            raise ValueError(
                f"`--file` must be a file that can be read, got {quoted(str(file))}: {error}."
            ) from error
        return found
    assert missing is not None
    raise ValueError(
        f"`--file` must have the columns {', '.join(choices[0])}, got {quoted(file.name)} with "
        f"{listed(list(missing.names))}."
    ) from missing


def _read_official(file: Path, choices: Sequence[tuple[str, ...]]) -> list[list[object]]:
    """Read a test file of the GLUE benchmark: tabs, a header, and quotes that mean nothing."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"`--file` must be UTF-8 text with tabs, got {quoted(str(file))}: {error}."
        ) from error
    header = rows[0] if rows else []
    for columns in choices:
        if all(column in header for column in columns):
            places = [header.index(column) for column in columns]
            for number, row in enumerate(rows[1:], start=2):
                if len(row) <= max(places):
                    raise ValueError(
                        f"`--file` must have {len(header)} fields in every line, got {len(row)} in "
                        f"line {number} of {quoted(file.name)}."
                    )
            return [[row[place] for row in rows[1:]] for place in places]
    raise ValueError(
        f"`--file` must have the columns {', '.join(choices[-1])}, got {quoted(file.name)} with "
        f"{listed(header)}."
    )
