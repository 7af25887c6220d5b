"""What of a configuration makes an experiment: which paths are one curve, which controls theirs.

Two paths are two seeds of one curve only if nothing but the seed differs. A control belongs to the
paths that it was made to be compared with: same data, backbone, seed, method version and everything
that decides the dense stage (adapter, gates, `xi.start`, dense stage, optimizer, precision). What
comes after it is what a control changes: levels of xi, lengths of stages. A floor has no adapter,
so gates and adapter do not tell floors apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import yaml

from sorakit.config import RunConfig
from sorakit.records import FLOOR, short_hash

_DATA = ("task", "backbone")  # named by themselves, in every table
_NO_OPTION = ("tracking.", "out_dir", "seed", "trainer.accelerator", "trainer.num_threads")
_OF_DENSE = ("method.", "gates.", "xi.start", "dense.", "stage.lr_factor", "optim.", "trainer.")
_OF_FLOOR = ("method.train_head", "dense.", "stage.lr_factor", "optim.", "trainer.")


def options(config: Mapping[str, Any], *, with_data: bool = False) -> dict[str, Any]:
    """Return the dotted options that make an experiment, without seed and machine.

    An option that an older record does not have is at its default.

    Args:
        config: Resolved configuration.
        with_data: Those of task and backbone too.
    """
    found = {**_defaults(), **_dotted(config)}
    left_out = _NO_OPTION if with_data else (*_NO_OPTION, *(f"{name}." for name in _DATA))
    return {key: value for key, value in found.items() if not key.startswith(left_out)}


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


def control_ids(config: Mapping[str, Any], who: Mapping[str, Any]) -> dict[str, str]:
    """Return `dense_id` and `floor_id`: what a path shares with its controls, and with its floor.

    Args:
        config: Resolved configuration of a path, a floor or a control.
        who: What else they share: data, backbone, seed, method version.
    """
    found = list(_numbers(options(config)))
    return {
        name: short_hash({**who, **{key: value for key, value in found if key.startswith(start)}})
        for name, start in (("dense_id", _OF_DENSE), ("floor_id", _OF_FLOOR))
    }


def _numbers(found: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield options with 16 as 16.0: they are the same."""
    for key, value in found.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        yield key, float(value) if whole else value


def id_column(role: str) -> str:
    """Return which id a floor or control shares with its paths."""
    return "floor_id" if role == FLOOR else "dense_id"


def differences(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return name -> what sets one experiment apart from the others, "" where all agree.

    Args:
        configs: Name -> options.
    """
    keys = sorted({key for option in configs.values() for key in option})
    different = [k for k in keys if len({_text(o.get(k)) for o in configs.values()}) > 1]
    return {
        name: ", ".join(f"{key}={_text(option.get(key))}" for key in different)
        for name, option in configs.items()
    }


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def agrees(value: object, text: str) -> bool:
    """Return whether an option has the value that a command line gives as `text`."""
    return str(value) == text or value == yaml.safe_load(text)
