"""Tasks: texts with labels, split into what is trained on and what is held out."""

from typing import TYPE_CHECKING

from sorakit.config import TaskConfig
from sorakit.quoting import quoted

if TYPE_CHECKING:
    import sorakit.tasks.base

PYDOC_NAMES = ("pydoc_topic", "pydoc_pair", "pydoc_order", "pydoc_text")
GLUE_NAMES = (
    "cola",
    "sst2",
    "mrpc",
    "qqp",
    "stsb",
    "mnli",
    "mnli_mismatched",
    "qnli",
    "rte",
    "wnli",
)
OWN_NAMES = ("files", "hub")
"""Tasks of your own data."""
TASK_NAMES = (*PYDOC_NAMES, *GLUE_NAMES, *OWN_NAMES)

_KEYS_OF = (
    (("files",), ("train_file", "validation_file")),
    (("hub",), ("dataset", "subset", "train_split", "validation_split")),
    (OWN_NAMES, ("text_pair_column",)),
)
"""Tasks, and the options that are theirs alone."""


# The families import `datasets`, which takes a second; `import sorakit.tasks` does not.
def load_task(config: TaskConfig, *, seed: int) -> "sorakit.tasks.base.Task":
    """Return the task of a run: its sample of the training examples, with label noise.

    Copies are planted in the sample, noise is drawn over both, and the subset last: subsets of one
    seed of the noise have the same noisy examples.

    Args:
        config: The `task` section of a run.
        seed: The run's seed, with which label noise is drawn, and the subset without a seed of its
            own.

    Returns:
        The task; its `train` has the boolean column `is_noisy`, False everywhere without label
        noise.

    Raises:
        ValueError: If the name is unknown, a key does not belong to the task, or its data is
            missing or malformed.
    """
    if config.name not in TASK_NAMES:
        raise ValueError(
            f"`task.name` must be one of {', '.join(TASK_NAMES)}, got {quoted(config.name)}."
        )
    _reject_unused_keys(config)
    from sorakit.tasks.as_texts import with_objective
    from sorakit.tasks.duplicates import with_duplicates
    from sorakit.tasks.label_noise import with_label_noise
    from sorakit.tasks.sample import with_train_examples, with_train_halves
    from sorakit.tasks.subset import with_subset

    if config.name in PYDOC_NAMES:
        from sorakit.tasks.pydoc import load_pydoc

        task = load_pydoc(config.name)
    elif config.name in GLUE_NAMES:
        from sorakit.tasks.glue import load_glue

        task = load_glue(config)
    elif config.name == "files":
        from sorakit.tasks.files import load_files

        task = load_files(config)
    else:
        from sorakit.tasks.hub import load_hub

        task = load_hub(config)
    task = with_train_examples(task, config.train_examples)
    if config.split_protocol == "train_halves":
        task = with_train_halves(task)
    task = with_duplicates(task, config.duplicate_examples)
    task = with_label_noise(task, config.label_noise, seed)
    own_seed = seed if config.subset_seed is None else config.subset_seed
    task = with_subset(task, config.subset_fraction, own_seed)
    return with_objective(task, config)


def _reject_unused_keys(config: TaskConfig) -> None:
    for names, keys in _KEYS_OF:
        for key in keys:
            value = getattr(config, key)
            if config.name not in names and value is not None:
                raise ValueError(
                    f"`task.{key}` must be null unless `task.name` is {' or '.join(names)}, "
                    f"got {quoted(value)}."
                )
    if config.name not in OWN_NAMES and config.objective is None and config.metric is not None:
        raise ValueError(
            f"`task.metric` must be null unless `task.name` is {' or '.join(OWN_NAMES)}, or "
            f"`task.objective` is set, got {quoted(config.metric)}."
        )
    if config.name in PYDOC_NAMES and config.data_dir is not None:
        raise ValueError(
            f"`task.data_dir` must be null when `task.name` is {config.name}, "
            f"got {quoted(config.data_dir)}. The task is embedded."
        )
    if config.name not in GLUE_NAMES and config.split_protocol == "sora":
        raise ValueError(
            f"`task.split_protocol` must not be sora when `task.name` is {config.name}, "
            f"got {config.split_protocol!r}."
        )
