"""A sample of the training examples: the same one for every seed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sorakit.metric_names import LABEL
from sorakit.tasks.base import Task, column_array

SAMPLE_SEED = 42


def with_train_examples(task: Task, count: int | None) -> Task:
    """Return the task with `count` of its training examples, in their order; null keeps all.

    Args:
        task: Any task; held-out splits are left as they are.
        count: Training examples to keep; all of them, if there are fewer.

    Raises:
        ValueError: If `count` is smaller than the number of classes.
    """
    if count is None or count >= len(task.train):
        return task
    labels = classes_of(task)
    num_classes = len(np.unique(labels))
    if count < num_classes:
        raise ValueError(
            f"`task.train_examples` must be at least the number of classes of the training data "
            f"({num_classes}), got {count}."
        )
    return replace(task, train=task.train.select(stratified_sample(labels, count)))


def with_train_halves(task: Task) -> Task:
    """Return the task with half of its training examples held out in the place of all others.

    The halves are the same for every seed, and keep the share of every class. What is chosen by
    them was not chosen by the official held-out data, which are gone.

    Raises:
        ValueError: If there are fewer training examples than two a class.
    """
    half = with_train_examples(task, (len(task.train) + 1) // 2)
    classes = classes_of(task)
    taken = stratified_sample(classes, len(half.train))
    rest = np.setdiff1d(np.arange(len(classes)), taken)
    if len(rest) < len(np.unique(classes)):
        raise ValueError(
            "`task.split_protocol` must not be train_halves for a task with fewer than two "
            f"training examples a class, got {len(classes)} examples."
        )
    return replace(half, validation=task.train.select(rest), test=None)


def classes_of(task: Task) -> np.ndarray:
    """Return the class of every training example; numbers are one class as far as draws go."""
    labels = column_array(task.train, LABEL)
    return labels if task.label_names else np.zeros(len(labels), dtype=np.int64)


def stratified_sample(
    classes: np.ndarray,
    count: int,
    *,
    seed: int | Sequence[int] = SAMPLE_SEED,
    of_every_class: bool = True,
) -> np.ndarray:
    """Return `count` positions, in ascending order, drawn class by class.

    Every class keeps its share, to rounding (Webster's method). A smaller sample is part of every
    larger one, so that runs on 500 and on 1,000 examples differ by what was added.

    Args:
        classes: Class of every example.
        count: Positions to draw. At most the examples, and at least the number of classes if every
            class has to be there.
        seed: Seed of the draw. Fixed by default: runs of several seeds are compared on the same
            examples. Draws of one run that must not agree with each other add a number of their own
            (label noise 1, new labels 2, subsets 3, copies 4).
        of_every_class: Draw at least one example of every class.
    """
    order = np.random.default_rng(seed).permutation(len(classes))
    shuffled = classes[order]
    # Webster's method gives the next seat to the class with the smallest (held + 1/2) / size.
    turn = np.empty(len(classes))
    for name in np.unique(classes):
        places = np.flatnonzero(shuffled == name)
        turn[places] = (np.arange(len(places)) + 0.5) / len(places)
        if of_every_class:
            turn[places[0]] = 0.0
    return np.sort(order[np.argsort(turn, kind="stable")[:count]])
