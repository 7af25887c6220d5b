"""Which experiment a configuration is: run id, key of its dense stage, folder, role."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, cast

from sorakit.config import METHOD_VERSION, RunConfig
from sorakit.records.schema import DENSE_STAGES_DIR
from sorakit.variants import ADAPTERS

_SPLIT_WORDS = re.compile(r"(^|[-_. ])(train(ing)?|\d+-of-\d+)(?=$|[-_. ])", re.IGNORECASE)
"""What a file name says of its split and shard."""

_OWN_TASKS = ("files", "hub")
_UNSAFE = re.compile(r"[^\w.+-]+")
_LONGEST_GROUP = 60
_NOT_GROUPS = (DENSE_STAGES_DIR, "sweeps")
"""Folders beside the groups."""

PATH = "path"
"""Role of a run of Algorithm 1; the role of a control is its name."""
FLOOR = "floor"
"""Role of a run without an adapter."""

_LATER_OPTIONS = (
    ("task", "train_examples"),
    ("task", "dataset"),
    ("task", "subset"),
    ("task", "train_split"),
    ("task", "validation_split"),
    ("task", "objective"),
    ("task", "image_size"),
    ("method", "exclude_modules"),
    ("method", "rank_pattern"),
    ("method", "target_r"),
    ("method", "allocation_epochs"),
    ("method", "bottleneck"),
    ("method", "placement"),
    ("method", "virtual_tokens"),
    ("method", "dimension"),
    ("task", "duplicate_examples"),
    ("task", "subset_fraction"),
    ("task", "subset_seed"),
)
"""Options that came after records with this method version: the default is what a run did before
them, and has no mention, so that it keeps its name."""


def role_of(method: str, control: str) -> str:
    """Return what a run stands for: the path, the floor, another method, or the control it is.

    Args:
        method: `method.name`.
        control: `stage.control`.

    Raises:
        ValueError: If there is no such method.
    """
    role = str(ADAPTERS.load(method).role)
    return control if role == PATH and control != "none" else role


def dataset_label(task: Mapping[str, Any]) -> str:
    """Return the name of a dataset in titles, tables and W&B groups.

    `task.label` if it is set, or the task; of your own files the name of the training file without
    train in it (reviews_train.csv: reviews), or of its folder if nothing is left; of the Hub the
    name of the dataset, or of its folder.

    Args:
        task: The `task` section of a resolved configuration, also of an older record.
    """
    if task.get("label"):
        return str(task["label"])
    if task["name"] == "hub":
        name = PurePosixPath(task.get("dataset") or task["data_dir"]).name
        return f"{name}/{task['subset']}" if task.get("subset") else name
    if task["name"] != "files":
        return str(task["name"])
    file = Path(task.get("data_dir") or "", task["train_file"])
    stem = _SPLIT_WORDS.sub("", file.stem).strip("-_. ")
    return stem or file.parent.name or file.stem


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain nested dictionaries.

    As `dataclasses.asdict` does, in a tenth of its time: a sweep names thousands of runs.
    """
    return {name: _plain(value) for name, value in vars(config).items()}


def short_hash(value: Any) -> str:
    """Return the hash of nested plain values by which folders are named."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_id(config: RunConfig) -> str:
    """Return the short hash that names an experiment.

    It covers the resolved configuration and the method version, without what cannot change the
    experiment: the output folder, the number of threads, the dataset's label and where the run is
    shown.
    """
    content = _named_content(config)
    del content["trainer"]["num_threads"]
    return short_hash({"method_version": METHOD_VERSION, "config": _numbers_as_floats(content)})


def execution_of(meta: Mapping[str, Any]) -> str:
    """Return in words what made a record, as far as that decides the last bits of its numbers.

    Args:
        meta: Its `meta.json`.
    """
    hardware: Mapping[str, Any] = meta.get("hardware") or {}
    versions: Mapping[str, Any] = meta.get("versions") or {}
    threads = hardware.get("threads")
    parts = [
        str(hardware.get("machine") or "unknown machine"),
        f"{threads or 'unknown number of'} thread{'' if threads == 1 else 's'}",
        str(hardware.get("gpu") or "no GPU"),
        f"torch {versions.get('torch') or 'of unknown version'}",
    ]
    return ", ".join(parts)


def dense_config(config: RunConfig) -> dict[str, Any]:
    """Return the part of a configuration that decides the dense stage and its record.

    Two configurations in which it is the same may share the dense stage: they differ only in what
    comes after it. The number of threads is part of it: it decides the last bits.
    """
    content = _named_content(config)
    control = config.stage.control
    del content["refit"]
    stage = {
        "kkt_examples": config.stage.kkt_examples,  # a column of the record
        "null_model": control if config.stage.control_class.is_null_model else None,
    }
    shared = config.method.adapter.dense_name
    if shared is not None:
        content["method"]["name"] = shared
    return {**content, "xi": {"start": config.xi.start}, "stage": stage}


def dense_key(config: RunConfig) -> str:
    """Return the short hash of `dense_config`, with the method version."""
    content = _numbers_as_floats(dense_config(config))
    return short_hash({"method_version": METHOD_VERSION, "config": content})


def run_path(config: RunConfig) -> Path:
    """Return the folder of a run: `out_dir`, or runs/<group>/<run_id> as by `grouped_path`."""
    if config.out_dir is not None:
        return Path(config.out_dir)
    return grouped_path(Path("runs"), config, run_id(config))


def grouped_path(root: Path, config: RunConfig, name: str) -> Path:
    """Return the folder of a run below `root`: <group>/<run id>.

    The group is the task; of your own data, the name of the dataset (`dataset_label`). A label is
    no part of the run id, so a run that is there already, under another label or without one, keeps
    its folder: same experiment, same folder.

    Args:
        root: Folder of the groups.
        config: Configuration of the run.
        name: Its run id.
    """
    task = config.task
    if task.name not in _OWN_TASKS:
        return root / task.name / name
    for there in sorted(root.glob(f"*/{name}")):
        if there.is_dir():
            return there
    return root / _folder_name(dataset_label(vars(task)), task.name) / name


def _folder_name(label: str, task: str) -> str:
    """Return a label as the name of a folder that is no other folder of a sweep's."""
    name = _UNSAFE.sub("-", label)[:_LONGEST_GROUP].strip("-.")
    return f"{task}-{name}".strip("-") if name in _NOT_GROUPS or not name else name


def _named_content(config: RunConfig) -> dict[str, Any]:
    """Return what names a run or a dense stage.

    Of several devices it is their number that changes results, by rounding and dropout. One has no
    mention: a run on it has the name that it had before there could be several. Options that came
    later alike.
    """
    content = config_to_dict(config)
    del content["task"]["label"]
    for section, option in _LATER_OPTIONS:
        if content[section][option] == _default(section, option):
            del content[section][option]
    del content["out_dir"]
    del content["tracking"]
    trainer = content["trainer"]
    del trainer["devices"], trainer["num_nodes"], trainer["strategy"]
    if config.trainer.num_processes > 1:
        trainer["num_processes"] = config.trainer.num_processes
    return content


@cache
def _default(section: str, option: str) -> Any:
    return getattr(getattr(RunConfig(), section), option)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {name: _plain(item) for name, item in vars(value).items()}
    return list(cast(list[Any], value)) if isinstance(value, list) else value


def _numbers_as_floats(value: Any) -> Any:
    """Return nested configuration values with 16 written as 16.0: they are the same experiment."""
    if isinstance(value, dict):
        return {key: _numbers_as_floats(item) for key, item in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_numbers_as_floats(item) for item in cast(list[Any], value)]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
