"""Your own CSV, TSV, JSON, JSON lines or parquet files as a task."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset

from sorakit.config import TaskConfig
from sorakit.tasks.base import LABEL, TEXT, TEXT_PAIR, Task

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")

Columns = dict[str, Sequence[object]]


def load_files(config: TaskConfig) -> Task:
    """Return the task in `train_file` and `validation_file`.

    Labels are classes (texts, integers or booleans), sorted as numbers where all of them are
    integers and as texts otherwise; with the metric pearson or spearman they are numbers. A .csv
    file has a header line and may quote its fields; a .tsv file has a header line and no quoting,
    as in GLUE: a quote is an ordinary character. A .json file holds a list of objects or one object
    per line, as .jsonl does.

    Args:
        config: Every key marked "files" is read, and `data_dir`; a null `data_dir` is the working
            folder.

    Returns:
        The task, in memory, without a test split.

    Raises:
        ValueError: If a file, a column, a text or a label is missing or malformed. Rows are counted
            from 0, without a header line.
    """
    folder = Path(config.data_dir or ".").expanduser()
    train_file = _find_file(folder, config.train_file, key="task.train_file")
    validation_file = _find_file(folder, config.validation_file, key="task.validation_file")
    train, train_labels = _read_split(train_file, config, key="task.train_file")
    validation, validation_labels = _read_split(validation_file, config, key="task.validation_file")
    metric = config.metric or "accuracy"
    label_names: tuple[str, ...] = ()
    if metric in ("pearson", "spearman"):
        train[LABEL] = _parse_numbers(train_labels, file=train_file, key="task.train_file")
        validation[LABEL] = _parse_numbers(
            validation_labels, file=validation_file, key="task.validation_file"
        )
    else:
        classes = _name_classes(train_labels, file=train_file, key="task.train_file")
        label_names = _sort_classes(set(classes))
        if len(label_names) < 2:
            raise ValueError(
                f"`task.train_file` must hold at least 2 classes, got only {classes[0]!r} in "
                f"column {config.label_column!r} of {train_file.name}."
            )
        train[LABEL] = _index_classes(classes, label_names, file=train_file)
        held_out = _name_classes(
            validation_labels, file=validation_file, key="task.validation_file"
        )
        validation[LABEL] = _index_classes(held_out, label_names, file=validation_file)
    return Task(
        name=config.name,
        train=Dataset.from_dict(train),
        validation=Dataset.from_dict(validation),
        label_names=label_names,
        metric=metric,
        source=f"local files: {train_file.name}, {validation_file.name}",
    )


def _find_file(folder: Path, name: str | None, *, key: str) -> Path:
    if name is None:
        raise ValueError(f"`{key}` must name a file when `task.name` is files, got null.")
    file = folder / Path(name).expanduser()
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`{key}` must end in one of {', '.join(SUFFIXES)}, got {name!r}.")
    if not file.is_file():
        raise ValueError(
            f"`{key}` must be an existing file, got '{file}'. "
            "Relative names start at `task.data_dir`, or at the working folder if that is null."
        )
    return file


def _read_split(file: Path, config: TaskConfig, *, key: str) -> tuple[Columns, Sequence[object]]:
    """Return the checked texts of a file by output column, and its labels as they are written."""
    try:
        columns = _read_columns(file)
    except (ValueError, csv.Error, OSError) as error:
        raise ValueError(
            f"`{key}` must be a well-formed {file.suffix} file, got '{file}' ({error})."
        ) from error
    if not columns or not next(iter(columns.values())):
        raise ValueError(f"`{key}` must hold at least one example, got none in '{file}'.")
    texts: Columns = {
        TEXT: _take_texts(columns, config.text_column, "task.text_column", file=file, key=key)
    }
    if config.text_pair_column is not None:
        texts[TEXT_PAIR] = _take_texts(
            columns, config.text_pair_column, "task.text_pair_column", file=file, key=key
        )
    return texts, _take(columns, config.label_column, "task.label_column", file=file)


def _take(columns: Columns, column: str, column_key: str, *, file: Path) -> Sequence[object]:
    if column not in columns:
        raise ValueError(
            f"`{column_key}` must be a column of {file.name} ({', '.join(columns)}), "
            f"got {column!r}."
        )
    return columns[column]


def _take_texts(
    columns: Columns, column: str, column_key: str, *, file: Path, key: str
) -> Sequence[object]:
    texts = _take(columns, column, column_key, file=file)
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise ValueError(
                f"`{key}`: {column!r} in row {row} of {file.name} must be a non-empty text, "
                f"got {_show(text)}."
            )
    return texts


def _show(value: object) -> str:
    return "null" if value is None else repr(value)


# Reading -------------------------------------------------------------------------------------


def _read_columns(file: Path) -> Columns:
    """Return every column of a file; fields of CSV and TSV files stay texts."""
    match file.suffix.lower():
        case ".parquet":
            return pq.ParquetFile(file).read().to_pydict()
        case ".json" | ".jsonl":
            return _read_json(file)
        case suffix:
            return _read_delimited(file, is_tsv=suffix == ".tsv")


def _read_delimited(file: Path, *, is_tsv: bool) -> Columns:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        if is_tsv:
            reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            reader = csv.reader(lines, strict=True)
        rows = [row for row in reader if row]
    if not rows:
        return {}
    header, *rows = rows
    if len(set(header)) < len(header):
        raise ValueError(f"a column name appears twice: {', '.join(header)}")
    for index, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"row {index} has {len(row)} fields, the header has {len(header)}")
    return {name: [row[position] for row in rows] for position, name in enumerate(header)}


def _read_json(file: Path) -> Columns:
    content = file.read_text(encoding="utf-8-sig")
    if content.lstrip().startswith("["):
        records = json.loads(content)
    else:
        records = []
        for line_number, line in enumerate(content.split("\n"), start=1):
            if line.strip():
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError as error:
                    message = f"line {line_number} is not a JSON object: {error.msg}"
                    raise ValueError(message) from error
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ValueError(  # noqa: TRY004 - what a user's file holds, not a wrong call
                f"example {index} is not a JSON object"
            )
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


# Labels --------------------------------------------------------------------------------------


def _parse_numbers(labels: Sequence[object], *, file: Path, key: str) -> list[float]:
    numbers = []
    for row, label in enumerate(labels):
        try:
            number = math.nan if isinstance(label, bool) else float(str(label))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(
                f"`{key}`: label {_show(label)} in row {row} of {file.name} must be a finite "
                "number, because `task.metric` is pearson or spearman."
            )
        numbers.append(number)
    return numbers


def _name_classes(labels: Sequence[object], *, file: Path, key: str) -> list[str]:
    for row, label in enumerate(labels):
        if not isinstance(label, str | int) or label == "":
            raise ValueError(
                f"`{key}`: label {_show(label)} in row {row} of {file.name} must be a text or an "
                "integer. Numbers need `task.metric` pearson or spearman."
            )
    return [str(label) for label in labels]


def _is_integer(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _sort_classes(names: set[str]) -> tuple[str, ...]:
    if all(_is_integer(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _index_classes(classes: list[str], label_names: tuple[str, ...], *, file: Path) -> list[int]:
    index = {name: position for position, name in enumerate(label_names)}
    for row, name in enumerate(classes):
        if name not in index:
            raise ValueError(
                f"`task.validation_file`: label {name!r} in row {row} of {file.name} must be one "
                f"of the training classes ({', '.join(label_names)})."
            )
    return [index[name] for name in classes]
