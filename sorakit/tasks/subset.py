"""A random subset of the training examples: each run its own, the others evaluated beside it."""

from dataclasses import replace

import numpy as np

from sorakit.metric_names import POOL_INDEX
from sorakit.tasks.base import Task
from sorakit.tasks.sample import classes_of, stratified_sample


def with_subset(task: Task, fraction: float | None, seed: int) -> Task:
    """Return the task with a share of its training examples; null changes nothing.

    Exactly `round(fraction * n)` of the n examples stay, of every class its share, to rounding. The
    others become `left_out`: runs of many seeds have each example among both, and tell what
    training on it does (Feldman and Zhang 2020).

    Args:
        task: Any task; held-out splits are left as they are.
        fraction: Share that stays, in (0, 1).
        seed: Seed of the draw.

    Returns:
        A new task whose `train` and `left_out` have the column `pool_index`: the position of an
        example before the draw.

    Raises:
        ValueError: If too few examples stay for one of every class, or none is left out.
    """
    if fraction is None:
        return task
    classes = classes_of(task)
    count = round(fraction * len(classes))
    num_classes = len(np.unique(classes))
    if not num_classes <= count < len(classes):
        raise ValueError(
            f"`task.subset_fraction` must keep at least the number of classes ({num_classes}) and "
            f"leave one example out, got {fraction} of {len(classes)} examples."
        )
    pool = task.train.add_column(POOL_INDEX, np.arange(len(classes)))
    kept = stratified_sample(classes, count, seed=(seed, 3))
    left_out = np.setdiff1d(np.arange(len(classes)), kept)
    return replace(task, train=pool.select(kept), left_out=pool.select(left_out))
