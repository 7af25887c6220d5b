"""What a run's data hold that its scores depend on: recorded in `meta.json`, and said."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sorakit.metric_names import GENERALIZATION_SPLIT
from sorakit.tasks.base import Task
from sorakit.tasks.overlap import Overlap, find_overlap
from sorakit.training.data import TRAIN

_SAID_FROM = 0.01
"""Share of the examples of a split from which on a fault is said, and not only recorded."""


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """The data of a run as they are trained on.

    Attributes:
        meta: The entry `data` of `meta.json`.
        warnings: One sentence for everything that spoils a comparison of the two scores.
    """

    meta: dict[str, Any]
    warnings: tuple[str, ...]


def data_report(task: Task, num_cut: Mapping[str, int], *, max_length: int) -> DataReport:
    """Return what there is to say of a run's data.

    Args:
        task: Texts and labels.
        num_cut: Split -> its texts that `max_length` cuts, as in `AdaptationData`.
        max_length: Longest input, in tokens.
    """
    overlap = find_overlap(task)
    return DataReport(
        meta={
            "source": task.source,
            "train": len(task.train),
            "validation": len(task.validation),
            "test": None if task.test is None else len(task.test),
            "longer_than_max_length": dict(num_cut),
            **asdict(overlap),
        },
        warnings=(*_overlap_warnings(task, overlap), *_cut_warnings(task, num_cut, max_length)),
    )


def _overlap_warnings(task: Task, overlap: Overlap) -> Iterator[str]:
    examples = len(task.validation)
    if _is_said(overlap.held_out_in_train, examples):
        yield (
            f"{_share(overlap.held_out_in_train, examples)} of the held-out examples are in the "
            "training data too: generalization counts what was memorised."
        )
    examples = len(task.train)
    if _is_said(overlap.other_label_in_train, examples):
        yield (
            f"{_share(overlap.other_label_in_train, examples)} of the training examples have a "
            "text that another one has with another label: no model can memorise them all."
        )


def _cut_warnings(task: Task, num_cut: Mapping[str, int], max_length: int) -> Iterator[str]:
    sizes = {
        TRAIN: (len(task.train), "training"),
        GENERALIZATION_SPLIT: (len(task.validation), "held-out"),
    }
    said = [
        f"{_share(num_cut[split], size)} of the {name} texts"
        for split, (size, name) in sizes.items()
        if _is_said(num_cut[split], size)
    ]
    if said:
        yield (
            f"{' and '.join(said)} are longer than `task.max_length` ({max_length} tokens) and are "
            "cut."
        )


def _is_said(count: int, total: int) -> bool:
    return count > 0 and count >= _SAID_FROM * total


def _share(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.1%})"
