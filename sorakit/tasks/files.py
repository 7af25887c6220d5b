"""Your own CSV, TSV, JSON, JSON lines or parquet files as a task."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

from sorakit.config import TaskConfig
from sorakit.metric_names import TEXT, TEXT_PAIR
from sorakit.quoting import cut, did_you_mean, listed, quoted
from sorakit.tasks.as_texts import is_texts_alone
from sorakit.tasks.base import Task
from sorakit.tasks.checked import CheckedSplit, checked_split
from sorakit.tasks.held_out import HOW, hold_out
from sorakit.tasks.tables import SUFFIXES, Chunk, MissingColumnError, read_chunks

_COLUMN_KEYS = ("text_column", "text_pair_column", "label_column")


def load_files(config: TaskConfig) -> Task:
    """Return the task in `train_file` and `validation_file`.

    Without a `validation_file` a tenth of the examples is held out, class by class, drawn with seed
    42; `source` says so.

    Labels are classes: texts, or whole numbers, which are the same however a file writes them (1,
    1.0, "1"). They are sorted as numbers where all of them are, and as texts otherwise. With the
    metric pearson or spearman labels are numbers. A .csv file has a header line and may quote its
    fields; a .tsv file has a header line and no quoting, as in GLUE: a quote is an ordinary
    character. A .json or .jsonl file holds a list of objects, or one object after the other.
    Columns that are not asked for are not looked at.

    Args:
        config: Every key marked "files" is read, and `data_dir`; a null `data_dir` is the working
            folder.

    Returns:
        The task, as Arrow tables in memory, without a test split.

    Raises:
        ValueError: If a file, a column, a text or a label is missing or malformed. Rows are counted
            from 0, without a header line; lines from 1.
    """
    folder = Path(config.data_dir or ".")
    files = {
        key: _find_file(folder, getattr(config, key), key=f"task.{key}")
        for key in ("train_file", "validation_file")
        if key == "train_file" or getattr(config, key) is not None
    }
    has_numbers = config.metric in ("pearson", "spearman")
    has_labels = not is_texts_alone(config)
    splits = [
        _read_split(file, config, key=f"task.{key}", has_numbers=has_numbers)
        for key, file in files.items()
    ]
    label_names: tuple[str, ...] = ()
    if has_labels and not has_numbers:
        label_names = splits[0].counter.class_names()
    datasets = tuple(split.dataset(label_names) for split in splits)
    source = "local files: " + ", ".join(file.name for file in files.values())
    if len(datasets) == 1:
        source += f", {HOW}"
        is_classes = bool(label_names)
        datasets = hold_out(datasets[0], is_classes=is_classes, option="task.validation_file")
    return Task(
        name=config.name,
        train=datasets[0],
        validation=datasets[1],
        label_names=label_names,
        objective=config.objective or ("regression" if has_numbers else "classification"),
        metric=config.metric or "accuracy",
        source=source,
    )


def _find_file(folder: Path, name: str | None, *, key: str) -> Path:
    if name is None:
        raise ValueError(f"`{key}` must name a file when `task.name` is files, got null.")
    if not folder.is_dir() and not Path(name).is_absolute():
        raise ValueError(f"`task.data_dir` must be an existing folder, got {quoted(str(folder))}.")
    file = folder / name
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`{key}` must end in one of {', '.join(SUFFIXES)}, got {quoted(name)}.")
    if not file.is_file():
        there = sorted(other.name for other in folder.iterdir() if other.suffix.lower() in SUFFIXES)
        raise ValueError(
            f"`{key}` must be an existing file, got {quoted(str(file))}. Relative names start at "
            f"`task.data_dir`, or at the working folder if that is null.{did_you_mean(name, there)}"
        )
    return file


def _read_split(file: Path, config: TaskConfig, *, key: str, has_numbers: bool) -> CheckedSplit:
    """Return the texts and labels of a file.

    Raises:
        ValueError: If the file cannot be read, is empty, or holds an unusable text or label.
    """
    sources = {TEXT: config.text_column}
    if config.text_pair_column is not None:
        sources[TEXT_PAIR] = config.text_pair_column
    label_column = None if is_texts_alone(config) else config.label_column
    columns = list(dict.fromkeys(filter(None, (*sources.values(), label_column))))
    with closing(_chunks(file, columns, config, key)) as chunks:
        split = checked_split(
            chunks, sources, label_column=label_column, key=key, has_numbers=has_numbers
        )
    if not split.texts:
        raise ValueError(f"`{key}` must hold at least one example, got none in '{file}'.")
    return split


def _chunks(file: Path, columns: Sequence[str], config: TaskConfig, key: str) -> Generator[Chunk]:
    """Yield the chunks of a file; what is wrong with it is told with the option to blame."""
    try:
        yield from read_chunks(file, columns)
    except MissingColumnError as error:
        name = next(name for name in _COLUMN_KEYS if getattr(config, name) == error.column)
        what = "be there once among the columns" if error.is_twice else "be a column"
        raise ValueError(
            f"`task.{name}` must {what} of {file.name} ({listed(error.names)}), "
            f"got {quoted(error.column)}.{error.hint or ' Name one of them.'}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"`{key}` must be a well-formed {file.suffix} file, got '{file}' "
            f"({cut(str(error), 500)})."
        ) from error
