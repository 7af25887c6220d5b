"""The held-out split of a dataset that has none: a tenth of its training split, class by class."""

import warnings

import numpy as np
from datasets import Dataset

from sorakit.metric_names import LABEL
from sorakit.tasks.base import column_array
from sorakit.tasks.sample import stratified_sample

_SHARE = 0.1
HOW = f"{_SHARE:.0%} of the training split held out"
"""What the source of a task says of a held-out split that was made."""


def hold_out(examples: Dataset, *, is_classes: bool, option: str) -> tuple[Dataset, Dataset]:
    """Return training and held-out examples, drawn with seed 42 whatever the run's seed; say so.

    Args:
        examples: The training split.
        is_classes: Whether labels are classes, each of which then keeps its share.
        option: Option that names a held-out split, for the message.

    Raises:
        ValueError: If there are too few examples.
    """
    labels = column_array(examples, LABEL)
    classes = labels if is_classes else np.zeros(len(labels), dtype=np.int64)
    count = max(round(_SHARE * len(labels)), len(np.unique(classes)))
    if 2 * count > len(labels):
        raise ValueError(
            f"`{option}` must be set when a tenth of the training split is too little to hold out, "
            f"got null with {len(labels)} examples."
        )
    warnings.warn(
        f"The dataset has no held-out split: {_SHARE:.0%} of the training split is held out, class "
        "by class, drawn with seed 42.",
        stacklevel=3,
    )
    held_out = stratified_sample(classes, count)
    rest = np.setdiff1d(np.arange(len(labels)), held_out)
    return examples.select(rest), examples.select(held_out)
