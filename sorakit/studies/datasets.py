"""What a word after `--data` means: an embedded or GLUE task, a file, a folder, or a Hub id."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from sorakit.options import Choice
from sorakit.quoting import quoted
from sorakit.records import dataset_label
from sorakit.tasks import OWN_NAMES, TASK_NAMES
from sorakit.tasks.tables import SUFFIXES

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_NAMED = re.compile(r"(?P<label>[^=/]+)=(?P<place>.+)")
_TASKS = tuple(name for name in TASK_NAMES if name not in OWN_NAMES)
_KINDS = (
    f"a task ({', '.join(_TASKS)}), an existing file ({', '.join(SUFFIXES)}), an existing folder, "
    "or the id of a dataset on the Hub"
)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset of a study.

    Attributes:
        label: Its name in tables and figures.
        options: What makes it the task of a run, by dotted option.
    """

    label: str
    options: Choice


def dataset_of(word: str) -> Dataset:
    """Return the dataset that a word names, `NAME=PLACE` with a name of one's own.

    A task goes before a file or folder of the same name, which `./mrpc` means.

    Raises:
        ValueError: If it names none.
    """
    named = None if Path(word).exists() else _NAMED.fullmatch(word)
    options = _options(word if named is None else named["place"])
    if named is not None:
        options["task.label"] = named["label"]
    task = {option.removeprefix("task."): value for option, value in options.items()}
    return Dataset(label=dataset_label(task), options=options)


def datasets_of(words: list[str]) -> list[Dataset]:
    """Return the datasets of a study.

    Raises:
        ValueError: If there is none, a word names none, or two have one name.
    """
    if not words:
        raise ValueError(f"`--data` must be given, got nothing. It is {_KINDS}.")
    found = [dataset_of(word) for word in words]
    labels = [dataset.label for dataset in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"`--data` must name datasets with names of their own, got {quoted(label)} twice. "
                "Write `--data NAME=PLACE` for one of them."
            )
    return found


def _options(word: str) -> Choice:
    if word in _TASKS:
        return {"task.name": word}
    place = Path(word).expanduser()
    if place.is_file():
        if place.suffix.lower() not in SUFFIXES:
            raise ValueError(f"`--data` must be {_KINDS}, got the file {quoted(word)}.")
        folder = {} if place.parent == Path() else {"task.data_dir": str(place.parent)}
        return {"task.name": "files", **folder, "task.train_file": place.name}
    if place.is_dir():
        return {"task.name": "hub", "task.data_dir": str(place)}
    near = difflib.get_close_matches(word, _TASKS, n=1, cutoff=0.75)
    looks_like_a_place = place.suffix.lower() in SUFFIXES or not _HUB_ID.fullmatch(word)
    if near or looks_like_a_place or word in OWN_NAMES:
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"`--data` must be {_KINDS}, got {quoted(word)}.{hint}")
    return {"task.name": "hub", "task.dataset": word}
