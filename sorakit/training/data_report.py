"""What a run's data hold that its scores depend on: recorded in `meta.json`, and said."""

import warnings
from typing import Any

from sorakit.metric_names import GENERALIZATION_SPLIT
from sorakit.tasks.base import Task
from sorakit.tasks.overlap import Overlap, find_overlap
from sorakit.training.data import TRAIN, AdaptationData

_SAID_FROM = 0.01
"""Share of the examples of a split from which on a fault is said, and not only recorded."""


def data_report(task: Task, data: AdaptationData, *, max_length: int) -> dict[str, Any]:
    """Return the entry `data` of `meta.json`, and warn of what spoils a comparison.

    Args:
        task: Texts and labels.
        data: The same, tokenised.
        max_length: Longest input, in tokens.
    """
    overlap = find_overlap(task)
    for sentence in _warnings(task, overlap, data.num_cut, max_length):
        warnings.warn(sentence, stacklevel=2)
    return {
        "source": task.source,
        "train": len(task.train),
        "validation": len(task.validation),
        "test": None if task.test is None else len(task.test),
        "longer_than_max_length": data.num_cut,
        "held_out_in_train": overlap.held_out_in_train,
        "repeated_in_train": overlap.repeated_in_train,
        "other_label_in_train": overlap.other_label_in_train,
    }


def _warnings(task: Task, overlap: Overlap, num_cut: dict[str, int], max_length: int) -> list[str]:
    found = []
    if overlap.held_out_in_train:
        share = _share(overlap.held_out_in_train, len(task.validation))
        found.append(
            f"{share} of the held-out examples are in the training data too: generalization counts "
            "what was memorised."
        )
    if overlap.other_label_in_train:
        share = _share(overlap.other_label_in_train, len(task.train))
        found.append(
            f"{share} of the training examples have a text that another one has with another label:"
            " no model can memorise them all."
        )
    cut = {
        TRAIN: (num_cut[TRAIN], len(task.train), "training"),
        GENERALIZATION_SPLIT: (num_cut[GENERALIZATION_SPLIT], len(task.validation), "held-out"),
    }
    said = [
        f"{_share(count, total)} of the {name} texts"
        for count, total, name in cut.values()
        if count >= _SAID_FROM * total and count
    ]
    if said:
        found.append(
            f"{' and '.join(said)} are longer than `task.max_length` ({max_length} tokens) and are "
            "cut."
        )
    return found


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})"
