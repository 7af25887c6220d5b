"""Whatever `datasets.load_dataset` reads as a task: a dataset of the Hub, or a local folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Value,
    concatenate_datasets,
    load_dataset,
)
from datasets.exceptions import DatasetsError

from sorakit.config import TaskConfig
from sorakit.metric_names import LABEL, TEXT, TEXT_PAIR
from sorakit.quoting import cut, did_you_mean, listed, quoted
from sorakit.tasks.as_texts import is_texts_alone
from sorakit.tasks.base import Task, arrow_tables
from sorakit.tasks.checked import checked_split
from sorakit.tasks.held_out import HOW, hold_out
from sorakit.tasks.images import image_column, images_of, is_images
from sorakit.tasks.tables import Chunk

_CHUNK_ROWS = 10_000
_HELD_OUT = ("validation", "test")
_TEXT_TYPES = ("string", "large_string")


def load_hub(config: TaskConfig) -> Task:
    """Return a task from a dataset of the Hub, or of a folder that `datasets` can read.

    Columns are those that the options name; where the dataset has no column of a default name, its
    only column of texts, or of classes. The names of a `ClassLabel` and their order are kept;
    other labels become classes as in `load_files`. Without a held-out split a tenth of the training
    split is held out, class by class, drawn with seed 42; `source` says so.

    Args:
        config: Every key marked "hub" is read, and `data_dir`.

    Returns:
        The task, without a test split.

    Raises:
        ValueError: If the dataset cannot be read, a split or a column is missing or cannot be told,
            or a text or a label cannot be used.
    """
    splits = _load(config)
    train, held_out, how = _choose_splits(splits, config)
    label_column = None if is_texts_alone(config) else _label_column(train.features, config)
    has_images = is_images(train.features, config)
    sources: dict[str, str] = {}
    column = image_column(train.features) if has_images else None
    if not has_images:
        sources[TEXT] = _text_column(train.features, config, label_column)
    if config.text_pair_column is not None:
        sources[TEXT_PAIR] = _named(train.features, config.text_pair_column, "text_pair_column")
    has_numbers = config.metric in ("pearson", "spearman")
    feature = None if label_column is None else train.features[label_column]
    kept = tuple(feature.names) if isinstance(feature, ClassLabel) and not has_numbers else None
    checked = [
        checked_split(
            _chunks(split, sources, label_column, place, kept),
            sources,
            label_column=label_column,
            key=_key(config),
            has_numbers=has_numbers,
        )
        for split, place in ((train, "the training split"), (held_out, "the held-out split"))
    ]
    label_names: tuple[str, ...] = ()
    if label_column is not None and not has_numbers:
        label_names = kept or checked[0].counter.class_names()
    datasets = tuple(split.dataset(label_names) for split in checked)
    if column is not None:
        parts = ((train, "the training split"), (held_out, "the held-out split"))
        images = (images_of(part, column, place=name, key=_key(config)) for part, name in parts)
        datasets = tuple(
            concatenate_datasets([*pair], axis=1) for pair in zip(images, datasets, strict=True)
        )
    if how is not None:
        is_classes = bool(label_names)
        datasets = hold_out(datasets[0], is_classes=is_classes, option="task.validation_split")
    return Task(
        name=config.name,
        train=datasets[0],
        validation=datasets[1],
        label_names=label_names,
        objective=config.objective or _objective(has_numbers=has_numbers, has_images=has_images),
        metric=config.metric or "accuracy",
        source=_source(config) + ("" if how is None else f", {how}"),
    )


def _objective(*, has_numbers: bool, has_images: bool) -> str:
    if has_images:
        return "image_classification"
    return "regression" if has_numbers else "classification"


def _key(config: TaskConfig) -> str:
    return "task.data_dir" if config.dataset is None else "task.dataset"


def _source(config: TaskConfig) -> str:
    if config.dataset is None:
        return f"local folder: {Path(config.data_dir or '.').resolve().name}"
    subset = "" if config.subset is None else f", {config.subset}"
    return f"Hugging Face Hub: {config.dataset}{subset}"


def _load(config: TaskConfig) -> DatasetDict:
    key = _key(config)
    if (config.dataset is None) == (config.data_dir is None):
        raise ValueError(
            "`task.dataset` or `task.data_dir` must be set when `task.name` is hub, and not both, "
            f"got {quoted(config.dataset)} and {quoted(config.data_dir)}."
        )
    if config.data_dir is not None and not Path(config.data_dir).is_dir():
        raise ValueError(
            f"`task.data_dir` must be an existing folder, got {quoted(config.data_dir)}."
        )
    try:
        loaded: Any = load_dataset(config.dataset or str(config.data_dir), config.subset)
    except (DatasetsError, OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = cut(" ".join(str(error.__cause__ or error).split()), 400)
        raise ValueError(
            f"`{key}` must be a dataset that `datasets.load_dataset` reads, got "
            f"{quoted(config.dataset or config.data_dir)} ({type(error).__name__}: {reason})."
        ) from error
    assert isinstance(loaded, DatasetDict), "no split was asked for"
    return loaded


def _choose_splits(splits: DatasetDict, config: TaskConfig) -> tuple[Dataset, Dataset, str | None]:
    """Return training and held-out split, and how one was made of the other, or None."""
    names = [str(name) for name in splits]
    wanted = {"train_split": config.train_split or "train", "validation_split": None}
    wanted["validation_split"] = config.validation_split or next(
        (name for name in _HELD_OUT if name in names and name != wanted["train_split"]), None
    )
    for option, name in wanted.items():
        if name is not None and name not in names:
            raise ValueError(
                f"`task.{option}` must be a split of the dataset ({listed(names)}), got "
                f"{quoted(name)}."
            )
    for name in filter(None, wanted.values()):
        if len(splits[name]) == 0:
            raise ValueError(
                f"`{_key(config)}` must hold at least one example in every split, got none in "
                f"{name}."
            )
    train = splits[str(wanted["train_split"])]
    if wanted["validation_split"] is None:
        return train, train.select([]), HOW
    return train, splits[wanted["validation_split"]], None


def _named(features: Features, column: str, option: str) -> str:
    if column not in features:
        raise ValueError(
            f"`task.{option}` must be a column of the dataset ({listed(features)}), got "
            f"{quoted(column)}.{did_you_mean(column, features)}"
        )
    return column


def _text_column(features: Features, config: TaskConfig, label_column: str | None) -> str:
    if config.text_column in features or config.text_column != TEXT:
        return _named(features, config.text_column, "text_column")
    found = [name for name in features if _is_text(features[name]) and name != label_column]
    return _only(found, features, "text_column", "texts")


def _label_column(features: Features, config: TaskConfig) -> str:
    if config.label_column in features or config.label_column != LABEL:
        return _named(features, config.label_column, "label_column")
    found = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    return _only(found, features, "label_column", "classes")


def _only(found: list[str], features: Features, option: str, what: str) -> str:
    if len(found) != 1:
        raise ValueError(
            f"`task.{option}` must name a column of the dataset ({listed(features)}), because "
            f"{len(found)} of them hold {what} ({listed(found)})."
        )
    return found[0]


def _is_text(feature: object) -> bool:
    return isinstance(feature, Value) and feature.dtype in _TEXT_TYPES


def _chunks(
    split: Dataset,
    sources: Mapping[str, str],
    label_column: str | None,
    place: str,
    label_names: tuple[str, ...] | None,
) -> Iterator[Chunk]:
    """Yield the rows of a split; the labels of a `ClassLabel` by their names."""
    columns = list(dict.fromkeys(filter(None, (*sources.values(), label_column))))
    start = 0
    for table in arrow_tables(split.select_columns(columns), _CHUNK_ROWS):
        values = {column: table[column].to_pylist() for column in columns}
        if label_names is not None and label_column is not None:
            values[label_column] = [
                None if label is None or label < 0 else label_names[label]
                for label in values[label_column]
            ]
        yield Chunk(columns=values, start=start, lines=None, file=place)
        start += len(table)
