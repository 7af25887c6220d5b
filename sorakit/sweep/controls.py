"""The controls of a path: what a path is compared with, as configurations. Free of torch.

A control differs from its path in one thing. Those that train stages of a given length take as many
steps as the path did, which is known when the path is done; the others train until they converge,
as the path's dense stage does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import pandas as pd
import yaml

from sorakit.config import RunConfig, XiConfig
from sorakit.controls import Control
from sorakit.options import Choice, checked_values, flatten
from sorakit.records import FLOOR, PATH, role_of, run_id
from sorakit.variants import ADAPTERS, CONTROLS

CONTROL = "stage.control"
_LENGTH = "stage.epochs"
_METHOD = "method.name"
_RANK = "method.r"
_PATTERN = "method.rank_pattern"
LORA_PATTERN = "lora_pattern"
_HEAD_ONLY = "head_only"
_HOLD_DENSE = "hold_dense"
_EXAMPLE = "[floor, hold_dense, random_mask, lora: [1, 2, 4]]"


@dataclass(frozen=True, kw_only=True)
class ControlRule:
    """A control that every path of a sweep gets.

    Attributes:
        name: floor, another method (as lora), or a value of `stage.control`.
        options: What it changes beside, by dotted option.
        stage: Of lora_pattern: the stage of the path whose ranks it has; null of the others.
    """

    name: str
    options: Choice
    stage: int | None = None

    @property
    def waits_for_path(self) -> bool:
        """Whether it takes steps or ranks from its path, which must be done before it can begin."""
        if self.stage is not None:
            return True
        if self.name == FLOOR or self._is_method or _LENGTH in self.options:
            return False
        control = cast(type[Control], CONTROLS.load(self.name))
        return not control.is_null_model and not control.restarts

    @property
    def choice(self) -> Choice:
        """What distinguishes it from its path, by dotted option."""
        if self.name == FLOOR:
            return {_METHOD: _HEAD_ONLY}
        return {_METHOD if self._is_method else CONTROL: self.name, **self.options}

    @property
    def _is_method(self) -> bool:
        return self.name in _rivals()


def control_rules(entries: object) -> list[ControlRule]:
    """Return the controls that a list names, as `controls` of a sweep file gives it.

    An entry is a name, or a name with what belongs to it: for another method (as lora, the rival at
    the same number of parameters) the ranks r, for lora_pattern the stages of the path whose ranks
    it has, for the others options that they change beside.

    Raises:
        ValueError: If an entry is none.
    """
    if not isinstance(entries, list):
        raise ValueError(  # noqa: TRY004  # a user's mistake in a file
            f"`controls` must be a list such as {_EXAMPLE}, got {entries!r}."
        )
    rules: list[ControlRule] = []
    for entry in cast(list[Any], entries):
        named = cast(dict[Any, Any], entry) if isinstance(entry, dict) else {entry: None}
        for name, value in named.items():
            rules += _rules(name, value)
    for rule in rules:
        if rules.count(rule) > 1:
            raise ValueError(f"`controls` must name a control once, got {rule.name} twice.")
    return rules


def parse_controls(text: str) -> list[ControlRule]:
    """Return the controls of a command line: `floor,random_mask`, or `floor,lora: [1, 2]`.

    Raises:
        ValueError: If the text names none.
    """
    try:
        content = yaml.safe_load(text if text.lstrip().startswith("[") else f"[{text}]")
    except yaml.YAMLError as error:
        raise ValueError(
            f"`--controls` must be names such as floor,random_mask, got {text!r}."
        ) from error
    return control_rules(content)


def is_path(config: RunConfig) -> bool:
    """Return whether a run is a path, and so may have controls."""
    return role_of(config.method.name, config.stage.control) == PATH


def control_of(path: RunConfig, rule: ControlRule) -> RunConfig:
    """Return the configuration of a control; its steps are still those of the path's file.

    Args:
        path: The path.
        rule: What its control is.

    Raises:
        ValueError: If the path cannot have that control.
    """
    changes = dict(rule.choice)
    if rule.stage is not None:  # stands in for the ranks until the path is done
        changes[_PATTERN] = {f"stage {rule.stage} of {run_id(path)}": 1}
    if _RANK in changes:  # the same scaling lora_alpha / r at every r
        changes["method.lora_alpha"] = path.method.lora_alpha * changes[_RANK] / path.method.r
    try:
        return _changed(path, changes)
    except ValueError as error:
        raise ValueError(f"Control {rule.name}: {error}") from error


def with_steps_of(control: RunConfig, path_stages: pd.DataFrame) -> RunConfig:
    """Return a control whose ranks are chosen in as many steps as those of its path on average.

    Both then train as many steps before their refits, which end by convergence. `hold_dense` has
    no level and no target that would end it, so it has as many stages, too.

    Args:
        control: The control.
        path_stages: Stages of its path, which is done.
    """
    stages = path_stages.iloc[1:]
    sparsifying = stages["epochs"] - stages["refit_epochs"].astype(float).fillna(0.0)
    if sparsifying.empty:  # no gate was left after the dense stage: there is nothing to match
        return control
    epochs = round(float(sparsifying.mean()), 3)
    stage = replace(
        control.stage,
        epochs=epochs,
        max_epochs=max(control.stage.max_epochs, epochs),
        until="length",
    )
    xi = control.xi
    if control.stage.control == _HOLD_DENSE:
        xi = _with_num_stages(xi, len(sparsifying))
    return replace(control, stage=stage, xi=xi)


def with_ranks_of(control: RunConfig, path_ranks: pd.DataFrame, *, stage: int) -> RunConfig:
    """Return a lora_pattern with the ranks that a stage of its path has left.

    Args:
        control: The control.
        path_ranks: Ranks of its path, which is done.
        stage: The stage.

    Raises:
        ValueError: If the path has no such stage, or no rank is left there.
    """
    rows = path_ranks[path_ranks["stage"] == stage]
    ranks = {str(row["module"]): int(row["nonzero_rank"]) for row in rows.to_dict("records")}
    kept = {module: rank for module, rank in ranks.items() if rank > 0}
    if not kept:
        left = "no rank" if len(rows) else f"{int(path_ranks['stage'].max())} stages"
        raise ValueError(
            f"`controls.{LORA_PATTERN}` must be stages of the path in which a rank is left, got "
            f"{stage} of a path with {left}."
        )
    return replace(control, method=replace(control.method, rank_pattern=kept))


def _with_num_stages(xi: XiConfig, num_stages: int) -> XiConfig:
    levels = None if xi.levels is None else xi.levels[:num_stages]
    return replace(xi, num_stages=num_stages, levels=levels)


def _rivals() -> tuple[str, ...]:
    """Return the methods that are neither Algorithm 1 nor its floor."""
    roles = {name: ADAPTERS.load(name).role for name in ADAPTERS.names}
    return tuple(name for name, role in roles.items() if role not in (PATH, FLOOR))


def _rules(name: object, value: object) -> Iterator[ControlRule]:
    if name == LORA_PATTERN:
        stages = cast(list[Any], value) if isinstance(value, list) else [value]
        for stage in stages:
            if not isinstance(stage, int) or isinstance(stage, bool) or stage < 1:
                raise ValueError(
                    f"`controls.{name}` must be stages of the path such as [2, 4], got {value!r}."
                )
            yield ControlRule(name=LORA_PATTERN, options={}, stage=stage)
        return
    if name in _rivals():
        ranks = cast(list[Any], value) if isinstance(value, list) else [value]
        for rank in ranks:
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise ValueError(
                    f"`controls.{name}` must be ranks such as [1, 2, 4], got {value!r}."
                )
            yield ControlRule(name=str(name), options={_RANK: rank})
        return
    if name == FLOOR:
        if value is not None:
            raise ValueError(f"`controls.{FLOOR}` must have no options, got {value!r}.")
        yield ControlRule(name=FLOOR, options={})
        return
    [control] = _checked_name(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"`controls.{control}` must hold options and values, got {value!r}.")
    yield ControlRule(name=control, options=_checked_options(control, cast(Choice, value or {})))


def _checked_name(name: object) -> list[str]:
    try:
        names = checked_values(CONTROL, [name])
    except ValueError:
        names = ["none"]
    if names == ["none"]:
        methods = ", ".join(_rivals())
        raise ValueError(
            f"`controls` must name floor, {methods} or a value of `stage.control`, got {name!r}. "
            "See `sorakit run --help`."
        )
    return names


def _checked_options(control: str, options: Choice) -> Choice:
    """Return the options of a control, typed: they may change only what follows the dense stage."""
    checked: Choice = {}
    for option, value in flatten(options).items():
        section = option.partition(".")[0]
        kept = {"xi.start", CONTROL}
        if section not in ("xi", "stage") or option in kept:
            raise ValueError(
                f"`controls.{control}` may change what follows the dense stage, options of xi and "
                f"stage, got {option!r}. With another dense stage it is not the path's control."
            )
        [checked[option]] = checked_values(option, [value])
    return checked


def _changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    sections: dict[str, Choice] = {}
    for option, value in changes.items():
        section, _, name = option.partition(".")
        sections.setdefault(section, {})[name] = value
    return replace(
        config,
        **{name: replace(getattr(config, name), **values) for name, values in sections.items()},
    )
