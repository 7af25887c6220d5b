"""Training labels replaced at random: what a model can only memorise."""

from dataclasses import replace

import numpy as np

from sorakit.metric_names import CLEAN_LABEL, IS_NOISY, LABEL, TEXT_PAIR
from sorakit.tasks.base import Task, column_array
from sorakit.tasks.sample import classes_of, stratified_sample


def with_label_noise(task: Task, share: float, seed: int) -> Task:
    """Return the task with a share of its training labels replaced, and marked in `is_noisy`.

    Exactly `round(share * n)` of the n training examples are drawn without replacement, of every
    class its share, to rounding; a smaller share is part of a larger one. A class is replaced by
    another one, uniformly over the others. The numbers of a regression move around a random cycle
    of the drawn examples, so that each gets another example's number (the same value, if two
    examples agree) and their distribution stays.

    Args:
        task: Any task; held-out splits are left as they are.
        share: Share of the training examples, in [0, 1]. With 0, no label changes.
        seed: Seed of the draw.

    Returns:
        A new task whose `train` has the boolean column `is_noisy` and, with noise, `clean_label`.

    Raises:
        ValueError: If `share` is outside [0, 1], or the task has no labels to change.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be in [0, 1], got {share}.")
    if share > 0 and not task.label_names and task.is_written:
        raise ValueError(
            f"`task.label_noise` must be 0 for texts, which have no labels, got {share}."
        )
    labels = column_array(task.train, LABEL)
    count = round(share * len(labels))
    drawn = stratified_sample(classes_of(task), count, seed=(seed, 1), of_every_class=False)
    generator = np.random.default_rng([seed, 2])  # of the new labels, beside that of the draw
    generator.shuffle(drawn)  # the cycle of numbers goes through them in this order
    noisy_labels = labels.copy()
    if not task.label_names:
        noisy_labels[drawn] = np.roll(labels[drawn], 1)
    else:
        num_classes = len(task.label_names)
        assert num_classes >= 2, "there is no other class"
        shift = generator.integers(1, num_classes, size=len(drawn))
        noisy_labels[drawn] = (labels[drawn] + shift) % num_classes
    is_noisy = np.zeros(len(labels), dtype=bool)
    is_noisy[drawn] = True
    return _relabelled(task, noisy_labels, is_noisy)


def with_shuffled_labels(task: Task, seed: int) -> Task:
    """Return the task with its training labels permuted: a null model in which nothing generalizes.

    Of prompts with responses, the responses are.

    Args:
        task: Any task; held-out splits are left as they are.
        seed: Seed of the permutation.

    Returns:
        A new task whose `train` marks in `is_noisy` the examples whose label has changed, or had
        been noisy before, and has `clean_label`.

    Raises:
        ValueError: If the task is texts alone.
    """
    if task.is_written:
        return _with_shuffled_responses(task, seed)
    labels = column_array(task.train, LABEL)
    shuffled = np.random.default_rng(seed).permutation(labels)
    was_noisy = IS_NOISY in task.train.column_names and np.asarray(task.train[IS_NOISY])
    return _relabelled(task, shuffled, (shuffled != labels) | was_noisy)


def _with_shuffled_responses(task: Task, seed: int) -> Task:
    if not task.is_pair:
        raise ValueError(
            "`stage.control` must not be shuffled_labels for texts without responses, got "
            f"{task.name}: they have no labels."
        )
    responses = np.asarray(task.train[TEXT_PAIR], dtype=object)
    shuffled = responses[np.random.default_rng(seed).permutation(len(responses))]
    was_noisy = IS_NOISY in task.train.column_names and np.asarray(task.train[IS_NOISY])
    is_noisy = (shuffled != responses) | was_noisy
    train = task.train.remove_columns([TEXT_PAIR, *({IS_NOISY} & set(task.train.column_names))])
    train = train.add_column(TEXT_PAIR, shuffled.tolist()).add_column(IS_NOISY, is_noisy)
    return replace(task, train=train)


def _relabelled(task: Task, labels: np.ndarray, is_noisy: np.ndarray) -> Task:
    train = task.train
    if (labels != column_array(train, LABEL)).any():
        feature = train.features[LABEL]
        if CLEAN_LABEL not in train.column_names:
            train = train.add_column(CLEAN_LABEL, column_array(train, LABEL), feature=feature)
        train = train.remove_columns(LABEL).add_column(LABEL, labels, feature=feature)
    if IS_NOISY in train.column_names:
        train = train.remove_columns(IS_NOISY)
    return replace(task, train=train.add_column(IS_NOISY, is_noisy))
