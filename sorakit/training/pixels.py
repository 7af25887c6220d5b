"""Images of a split as a model takes them: decoded, and processed, when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from transformers.image_processing_utils import BaseImageProcessor

from sorakit.metric_names import IMAGE, INDEX, LABEL
from sorakit.objectives.image_classification import PIXELS
from sorakit.tasks.base import column_array


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Images and labels of a split; a row is made when it is asked for.

    Attributes:
        images: The split, its images still encoded.
        processor: Image processor of the backbone.
        options: What the processor is told beside the images.
        labels: Class of every row.
        index: Position of every row in the split that it was drawn from.
    """

    images: Dataset
    processor: BaseImageProcessor
    options: dict[str, Any]
    labels: np.ndarray
    index: np.ndarray
    num_cut: int = 0

    def __len__(self) -> int:
        return len(self.index)

    @property
    def lengths(self) -> np.ndarray:
        """1 for every row: all images have one size."""
        return np.ones(len(self), dtype=np.int64)

    def rows(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Return the rows at some positions, as a collator takes them."""
        chosen = [int(self.index[position]) for position in positions]
        images = [image.convert("RGB") for image in self.images[chosen][IMAGE]]
        processed = self.processor(images, return_tensors="pt", **self.options)[PIXELS]
        return [
            {PIXELS: pixels, LABEL: int(self.labels[position]), INDEX: index}
            for pixels, position, index in zip(processed, positions, chosen, strict=True)
        ]

    def select(self, positions: Sequence[int]) -> "Pixels":
        """Return some of the rows; they keep their `index`."""
        chosen = np.asarray(positions, dtype=np.int64)
        return Pixels(
            images=self.images,
            processor=self.processor,
            options=self.options,
            labels=self.labels[chosen],
            index=self.index[chosen],
        )


def read_pixels(split: Dataset, processor: BaseImageProcessor, *, size: int | None) -> Pixels:
    """Return the images of a split.

    Args:
        split: Columns `image` and `label`.
        processor: Image processor of the backbone.
        size: Side in pixels that images are resized and cropped to; None is the processor's own.
    """
    return Pixels(
        images=split.select_columns([IMAGE]),
        processor=processor,
        options={} if size is None else _sized(processor, size),
        labels=column_array(split, LABEL),
        index=np.arange(len(split)),
    )


def _sized(processor: BaseImageProcessor, size: int) -> dict[str, Any]:
    """Return options for square images of a side; a processor may resize by the shortest edge."""
    square = {"height": size, "width": size}
    own = getattr(processor, "size", None) or {}
    resized = {"shortest_edge": size} if "shortest_edge" in own else square
    options: dict[str, Any] = {"size": resized}
    if getattr(processor, "crop_size", None):
        options["crop_size"] = square
    return options
