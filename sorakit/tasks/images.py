"""Images of a dataset: where they stand, and what tells two of them apart."""

import hashlib
from pathlib import Path

from datasets import Dataset, Features, Image

from sorakit.config import TaskConfig
from sorakit.metric_names import IMAGE
from sorakit.quoting import listed, quoted
from sorakit.tasks.base import arrow_tables

_ROWS = 1_000


def is_images(features: Features, config: TaskConfig) -> bool:
    """Return whether a dataset is one of images: as `task.objective` says, or its columns do."""
    if config.goal is not None:
        return config.goal.inputs == "images"
    return bool(_found(features)) and config.text_column not in features


def image_column(features: Features) -> str:
    """Return the column of the images: `image`, or the only one.

    Raises:
        ValueError: If there is none, or it cannot be told.
    """
    found = _found(features)
    if IMAGE in found:
        return IMAGE
    if len(found) != 1:
        raise ValueError(
            f"`task.objective` must be one for texts unless a column holds images ({IMAGE}, or the "
            f"only one), got {listed(found)} among {listed(features)}."
        )
    return found[0]


def images_of(split: Dataset, column: str, *, place: str, key: str) -> Dataset:
    """Return the images of a split as its only column.

    Raises:
        ValueError: If a row has none.
    """
    images = split.select_columns([column])
    images = images if column == IMAGE else images.rename_column(column, IMAGE)
    row = 0
    for table in arrow_tables(images, _ROWS):
        for value in table[IMAGE].to_pylist():
            if value is None or not (value["bytes"] or value["path"]):
                raise ValueError(
                    f"`{key}`: {quoted(column)} in row {row} of {place} must be an image, got null."
                )
            row += 1
    return images


def image_digests(split: Dataset) -> list[str]:
    """Return a hash of the encoded image of every row."""
    digests = []
    for table in arrow_tables(split.select_columns([IMAGE]), _ROWS):
        for value in table[IMAGE].to_pylist():
            content = value["bytes"] or Path(value["path"]).read_bytes()
            digests.append(hashlib.sha256(content).hexdigest())
    return digests


def _found(features: Features) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, Image)]
