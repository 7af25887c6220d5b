"""A sweep file -> the validated configurations of its points. Free of torch.

A sweep file holds options of `sorakit run`, nested or dotted, and:

    config: base.yaml                 # files of options that come before those of this file
    grid: {task.name: [cola, rte], seed: [0, 1, 2]}
    zip: {xi.first: [1e-3, 3e-3], gates.gate_lr: [1, 3]}
    points: [{}, {gates.scale: free}]
    controls: [floor, hold_dense, random_mask, lora: [1, 2, 4]]  # of every path among the points
    records: experiments/results/x    # records of finished runs, which are not run again

The points of the sweep are the product of every list in `grid`, of the lists in `zip` taken
together, and of `points`. Files are relative to the sweep file.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_type_hints

import yaml

from sorakit.config import RunConfig, with_home
from sorakit.options import Choice, checked_values, flatten, one_line
from sorakit.records import YAML_LOADER, run_id
from sorakit.sweep.controls import ControlRule, control_rules, is_path

CONFIG = "config"
GRID = "grid"
ZIP = "zip"
POINTS = "points"
CONTROLS = "controls"
RECORDS = "records"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run of a sweep.

    Attributes:
        config: Its configuration, without a run folder.
        run_id: Its run id.
        choice: What the sweep chose for it, by dotted option.
    """

    config: RunConfig
    run_id: str
    choice: Choice

    @property
    def label(self) -> str:
        """What distinguishes the point from the others of its sweep."""
        return _label(self.choice)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The points of a sweep, each once.

    Attributes:
        name: Of its files.
        points: In the order of the product, the last option changing fastest.
        controls: What every path among them is compared with.
        records: Folders with records of finished runs.
        num_duplicates: Points left out because their configuration was there already.
    """

    name: str
    points: list[Point]
    controls: list[ControlRule]
    records: list[Path]
    num_duplicates: int


@dataclass(kw_only=True)
class _Spec:
    """Sweep files, merged: later ones win, option by option."""

    base: Choice = field(default_factory=dict[str, Any])
    grid: Choice = field(default_factory=dict[str, Any])
    zipped: Choice = field(default_factory=dict[str, Any])
    points: list[Any] = field(default_factory=list[Any])
    controls: list[ControlRule] = field(default_factory=list[ControlRule])
    records: list[Path] = field(default_factory=list[Path])


def load_sweep(files: Sequence[Path]) -> Sweep:
    """Return the points of a sweep, all of them validated.

    Args:
        files: Sweep files. A later one is an overlay: its options and the lists of its `grid`
            replace those of the same name, its `zip`, `points` and `controls` replace the former
            whole.

    Raises:
        ValueError: If a file, an option, a value or a point is wrong.
    """
    spec = _Spec()
    for file in files:
        _merge(spec, read_yaml(file), folder=file.parent)
    return _sweep(spec, name="+".join(file.stem for file in files))


def load_specification(content: Mapping[str, Any], *, name: str) -> Sweep:
    """Return the points of the sweep that a sweep file with this content would be.

    Args:
        content: What the file would hold; its files are relative to the working folder.
        name: Name of the sweep.

    Raises:
        ValueError: As `load_sweep`.
    """
    spec = _Spec()
    _merge(spec, dict(content), folder=Path())
    return _sweep(spec, name=name)


def _sweep(spec: _Spec, *, name: str) -> Sweep:
    axes = _axes(spec)
    base, axes = _checked(spec.base, axes)
    build = _Builder()
    points: dict[str, Point] = {}
    num_points = 0
    for choices in itertools.product(*axes):
        num_points += 1
        choice = {option: value for part in choices for option, value in part.items()}
        try:
            config = build({**base, **choice})
        except ValueError as error:
            where = _label(choice)
            raise ValueError(
                f"Point {num_points} of the sweep{f' ({where})' if where else ''}: {error}"
            ) from error
        key = run_id(config)
        points.setdefault(key, Point(config=config, run_id=key, choice=choice))
    if spec.controls and not any(is_path(point.config) for point in points.values()):
        raise ValueError(
            f"`{CONTROLS}` must have a path to be compared with, got only floors and controls."
        )
    return Sweep(
        name=name,
        points=list(points.values()),
        controls=spec.controls,
        records=spec.records,
        num_duplicates=num_points - len(points),
    )


def one_path(config: RunConfig, *, controls: list[ControlRule]) -> Sweep:
    """Return the sweep of one path and its controls.

    Args:
        config: The path.
        controls: What it is compared with.

    Raises:
        ValueError: If it is no path.
    """
    if not is_path(config):
        raise ValueError(
            "`--controls` must be those of a path, got a run that is none: `method.name` is "
            f"{config.method.name} and `stage.control` {config.stage.control}."
        )
    config = replace(config, out_dir=None)
    name = run_id(config)
    point = Point(config=config, run_id=name, choice={})
    return Sweep(name=name, points=[point], controls=controls, records=[], num_duplicates=0)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        ValueError: If it cannot be read, is no YAML, no mapping, or names a key twice.
    """
    try:
        with file.open("rb") as stream:
            content = yaml.load(stream, Loader=_Loader)  # a SafeLoader
    except OSError as error:
        raise ValueError(
            f"`--config` must be a file that can be read, got {str(file)!r}."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = one_line(str(error))
        raise ValueError(f"`--config` must be YAML, got {str(file)!r}: {reason}.") from error
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        raise ValueError(  # noqa: TRY004  # a user's mistake in a file
            f"`--config` must be YAML with keys and values, got {str(file)!r}, which holds {kind}."
        )
    return cast(dict[str, Any], content)


class _Loader(YAML_LOADER):
    """A safe loader that refuses a key which stands twice: one of the two would be ignored."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} stands twice", key_node.start_mark
                    )
                seen.add(key)
        return YAML_LOADER.construct_mapping(self, node, deep)


def _merge(spec: _Spec, content: dict[str, Any], *, folder: Path) -> None:
    """Let the content of a sweep file, whose files are relative to `folder`, win over a spec."""
    names = (CONFIG, GRID, ZIP, POINTS, CONTROLS, RECORDS)
    keywords = {name: content.pop(name, None) for name in names}
    for name in _as_list(keywords[CONFIG]):
        spec.base |= flatten(read_yaml(folder / str(name)))
    spec.base |= flatten(content)
    if keywords[GRID] is not None:
        spec.grid |= flatten(_mapping(GRID, keywords[GRID]))
    if keywords[ZIP] is not None:
        spec.zipped = flatten(_mapping(ZIP, keywords[ZIP]))
    if keywords[POINTS] is not None:
        spec.points = _as_list(keywords[POINTS])  # an empty list takes those of a former file away
    if keywords[CONTROLS] is not None:
        spec.controls = control_rules(keywords[CONTROLS])
    spec.records += [folder / with_home(str(name)) for name in _as_list(keywords[RECORDS])]


def _axes(spec: _Spec) -> list[list[Choice]]:
    """Return the lists of which the points are the product."""
    axes = [
        [flatten({option: value}) for value in _list(f"{GRID}.{option}", values)]
        for option, values in spec.grid.items()
    ]
    if spec.zipped:
        columns = {name: _list(f"{ZIP}.{name}", values) for name, values in spec.zipped.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"`{ZIP}` must hold lists of equal length, got {lengths}.")
        rows = zip(*columns.values(), strict=True)
        axes.append([flatten(dict(zip(columns, row, strict=True))) for row in rows])
    if spec.points:
        axes.append([flatten(_mapping(POINTS, point)) for point in spec.points])
    owners: set[str] = set()
    for axis in axes:
        options = {option for choice in axis for option in choice}
        twice = sorted(options & owners)
        if twice:
            raise ValueError(
                f"`{twice[0]}` must be in one of `{GRID}`, `{ZIP}` and `{POINTS}`, got it in two."
            )
        owners |= options
    return axes


def _checked(base: Choice, axes: list[list[Choice]]) -> tuple[Choice, list[list[Choice]]]:
    """Return options and choices with every value converted to the type of its option."""
    choices = [base, *itertools.chain.from_iterable(axes)]
    by_option: dict[str, list[Choice]] = {}
    for choice in choices:
        for option in choice:
            by_option.setdefault(option, []).append(choice)
    for option, owners in by_option.items():
        values = checked_values(option, [owner[option] for owner in owners])
        for owner, value in zip(owners, values, strict=True):
            owner[option] = value
        if option == "out_dir" and any(value is not None for value in values):
            raise ValueError(
                f"`out_dir` must be null in a sweep, got {values[0]!r}. Its runs go to "
                "OUT/<group>/<run_id>; set `--out`."
            )
    return base, axes


class _Builder:
    """Makes configurations; sections that were made before are taken again."""

    def __init__(self) -> None:
        hints = get_type_hints(RunConfig)
        self._kinds: dict[str, Any] = {
            name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)
        }
        self._made: dict[tuple[str, str], Any] = {}

    def __call__(self, options: Choice) -> RunConfig:
        sections: dict[str, Choice] = {}
        for option, value in options.items():
            section, _, name = option.rpartition(".")
            sections.setdefault(section, {})[name] = value
        top = sections.pop("", {})
        return RunConfig(**top, **{name: self._section(name, sections[name]) for name in sections})

    def _section(self, name: str, options: Choice) -> Any:
        key = (name, repr(options))
        if key not in self._made:
            self._made[key] = self._kinds[name](**options)
        return self._made[key]


def _label(choice: Choice) -> str:
    return " ".join(f"{option}={value}" for option, value in choice.items())


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return cast(list[Any], value) if isinstance(value, list) else [value]


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"`{name}` must be a list that is not empty, got {value!r}.")
    return cast(list[Any], value)


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004  # a user's mistake in a file
            f"`{name}` must hold options and values, got {value!r}."
        )
    return cast(dict[str, Any], value)
