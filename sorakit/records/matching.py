"""Which runs belong together: a path, its floor and its controls; the same for W&B and analysis.

A control belongs to the paths that it was made to be compared with: same data, backbone, seed,
method version, everything that decides the dense stage (adapter, gates, `xi.start`, dense stage,
optimizer, precision) and the same refit. What else comes after the dense stage is what a control
changes: levels of xi, lengths of stages. A floor has no adapter, so gates and adapter do not tell
floors apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

from sorakit.config import RunConfig
from sorakit.records.identity import FLOOR, dataset_label, short_hash

DEFAULT_SETTING = "default"

_DATA = ("task", "backbone")  # named by themselves, in every table
_SOURCE = (
    *("data_dir", "train_file", "validation_file", "dataset", "subset", "train_split"),
    *("validation_split", "text_column", "text_pair_column", "label_column"),
)
_NO_OPTION = ("tracking.", "out_dir", "seed", "trainer.accelerator", "trainer.num_threads")
_OF_DENSE = (
    *("method.", "gates.", "xi.start", "dense.", "stage.lr_factor", "optim.", "trainer."),
    *("stage.refit", "refit."),  # a control that is not refitted is none of a path that is
)
_OF_FLOOR = ("method.train_head", "dense.", "stage.lr_factor", "optim.", "trainer.")


def experiment_options(config: Mapping[str, Any], *, with_data: bool = False) -> dict[str, Any]:
    """Return the dotted options that make an experiment, without seed and machine.

    An option that an older record does not have is at its default.

    Args:
        config: Resolved configuration.
        with_data: Those of task and backbone too.
    """
    found = {**_defaults(), **_dotted(config)}
    left_out = _NO_OPTION if with_data else (*_NO_OPTION, *(f"{name}." for name in _DATA))
    return {key: value for key, value in found.items() if not key.startswith(left_out)}


def data_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is learnt, and by which model: `task`, `backbone`, `setting` and `seed`.

    `setting` names what sets data and backbone apart from their defaults, beside their names.

    Args:
        config: Resolved configuration.
    """
    return {
        "task": dataset_label(config["task"]),
        "backbone": config["backbone"]["name"],
        "setting": setting_of(config),
        "seed": int(config["seed"]),
    }


def source_of(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return where the data of a run lie: folder, files, columns, splits."""
    return tuple(config["task"].get(name) for name in _SOURCE)


def matching_ids(config: Mapping[str, Any], *, method_version: object) -> dict[str, str]:
    """Return `dense_id` and `floor_id`: what a path shares with its controls, and with its floor.

    Options at their defaults are left out, so that a new option changes no id.

    Args:
        config: Resolved configuration of a path, a floor or a control.
        method_version: That of the run, from its meta data.
    """
    who = {**data_of(config), "method_version": method_version}
    found = _changed(config)
    return {
        name: short_hash(
            {**who, **{key: value for key, value in found.items() if key.startswith(start)}}
        )
        for name, start in (("dense_id", _OF_DENSE), ("floor_id", _OF_FLOOR))
    }


def curve_id(config: Mapping[str, Any], *, method_version: object) -> str:
    """Return what the runs have in common of which a mean over seeds can be taken.

    Same data, backbone, method version and options; only the seed, and what cannot change an
    experiment, may differ. Options at their defaults are left out, so that a new option changes no
    id.

    Args:
        config: Resolved configuration.
        method_version: That of the run, from its meta data.
    """
    who = {key: value for key, value in data_of(config).items() if key != "seed"}
    return short_hash({**who, "method_version": method_version, **_changed(config)})


def id_column(role: str) -> str:
    """Return which id a floor or control shares with its paths."""
    return "floor_id" if role == FLOOR else "dense_id"


@cache
def _defaults() -> dict[str, Any]:
    return _dotted(asdict(RunConfig()))


def _dotted(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{key}": value
        for name, section in config.items()
        if isinstance(section, dict)
        for key, value in section.items()  # pyright: ignore[reportUnknownVariableType]  # of YAML
    }


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an experiment that are not at their defaults."""
    default = dict(_numbers(experiment_options({})))
    return {
        key: value
        for key, value in _numbers(experiment_options(config))
        if key not in default or default[key] != value
    }


def _numbers(found: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield options with 16 as 16.0: they are the same."""
    for key, value in found.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        yield key, float(value) if whole else value


def setting_of(config: Mapping[str, Any], *, with_source: bool = True) -> str:
    """Return what sets data and backbone of a run apart from their defaults, beside their names.

    Args:
        config: Resolved configuration.
        with_source: Where own data lie too: folder, files, columns, splits.
    """
    named = {"name", "label", *(() if with_source else _SOURCE)}
    ignored = {
        "task": named if config["task"]["name"] == "files" else {*named, "data_dir"},
        "backbone": {*named, "data_dir"},
    }
    default = _defaults()
    different = [
        f"{name}={value}"
        for section in _DATA
        for name, value in config[section].items()
        if name not in ignored[section] and value != default.get(f"{section}.{name}")
    ]
    return ", ".join(different) or DEFAULT_SETTING
