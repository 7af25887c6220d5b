"""Planted copies of training examples: what a measure of memorization must see differently."""

from dataclasses import replace

import numpy as np
from datasets import concatenate_datasets

from sorakit.metric_names import COPIES
from sorakit.tasks.base import Task
from sorakit.tasks.sample import SAMPLE_SEED, classes_of, stratified_sample


def with_duplicates(task: Task, count: int | None) -> Task:
    """Return the task with `count` of its training examples twice; null changes nothing.

    The copies stand behind all others, and are drawn with seed 42, class by class: the same ones
    for every seed.

    Args:
        task: Any task; held-out splits are left as they are.
        count: Examples to copy.

    Returns:
        A new task whose `train` has the column `copies`: how often the example is in it.

    Raises:
        ValueError: If there are not as many examples, or fewer copies than classes.
    """
    if count is None:
        return task
    classes = classes_of(task)
    least, most = len(np.unique(classes)), len(classes)
    if not least <= count <= most:
        raise ValueError(
            f"`task.duplicate_examples` must be at least the number of classes ({least}) and at "
            f"most the number of training examples ({most}), got {count}."
        )
    drawn = stratified_sample(classes, count, seed=(SAMPLE_SEED, 4))
    copies = np.ones(most + count, dtype=np.int64)
    copies[drawn] = 2
    copies[most:] = 2
    train = concatenate_datasets([task.train, task.train.select(drawn)])
    return replace(task, train=train.add_column(COPIES, copies))
