"""Tasks whose answer is a text that is written: your own texts, or classes by their names."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset

from sorakit.config import TaskConfig
from sorakit.metric_names import CLEAN_LABEL, LABEL, TEXT, TEXT_PAIR
from sorakit.tasks.base import Task, column_array
from sorakit.variants import OBJECTIVES

if TYPE_CHECKING:
    import sorakit.objectives

_BETWEEN = "\n"
"""What stands between the two texts of a pair when they become one prompt."""
_BEFORE_ANSWER = "\n"
"""What ends a prompt whose answer is the name of a class."""


def is_texts_alone(config: TaskConfig) -> bool:
    """Return whether your own data are texts, or prompts with responses, and have no labels."""
    return config.goal is not None and config.goal.labels == "texts"


def with_objective(task: Task, config: TaskConfig) -> Task:
    """Return the task with `task.objective` and its score.

    Of a classification whose answers are to be written, the text (or both, a line each) becomes the
    prompt, and the name of the class the response. Noisy labels stay marked.

    Args:
        task: A task, its label noise drawn.
        config: The `task` section of a run.

    Raises:
        ValueError: If the objective has no such score, or takes other labels.
    """
    if task.label_names and config.objective is None and config.metric is None:
        return task  # as its file made it; objectives import torch, which a dry run does without
    name = config.objective or task.objective
    goal = cast("sorakit.objectives.Objective", OBJECTIVES.load(name))
    if config.metric is not None and config.metric not in goal.metrics:
        raise ValueError(
            f"`task.metric` must be one of {', '.join(goal.metrics)} where `task.objective` is "
            f"{name}, got {config.metric!r}."
        )
    if goal.labels == "texts":
        task = _written(task) if task.label_names else task
        metric = config.metric or goal.metrics[0]
        further = tuple(other for other in goal.further_metrics if other != metric)
        return replace(task, objective=name, metric=metric, extra_metrics=further)
    found = "classes" if task.label_names else "numbers"
    if goal.labels != found:
        raise ValueError(
            f"`task.objective` must be one for {found}, as the labels of {task.name} are, got "
            f"{name!r}."
        )
    return replace(task, objective=name, metric=config.metric or task.metric)


def _written(task: Task) -> Task:
    columns_of_text = [name for name in (TEXT, TEXT_PAIR) if name in task.train.column_names]

    def split(examples: Dataset) -> Dataset:
        names = [task.label_names[label] for label in column_array(examples, LABEL)]
        texts = list(zip(*(examples[name] for name in columns_of_text), strict=True))
        columns: dict[str, Any] = {
            name: examples[name]
            for name in examples.column_names
            if name not in (TEXT, TEXT_PAIR, LABEL, CLEAN_LABEL)
        }
        columns[TEXT] = [_BETWEEN.join(parts) + _BEFORE_ANSWER for parts in texts]
        columns[TEXT_PAIR] = names
        columns[LABEL] = [0] * len(names)
        return Dataset.from_dict(columns)

    others = {
        name: split(examples)
        for name in ("test", "left_out")
        if (examples := getattr(task, name)) is not None
    }
    return replace(
        task, train=split(task.train), validation=split(task.validation), label_names=(), **others
    )
