"""What runs will cost, from the times of finished runs that are like them."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sorakit.config import RunConfig
from sorakit.records import (
    META_FILE,
    config_to_dict,
    is_complete,
    packed_in,
    read_config,
    read_timings,
    run_id,
    run_path,
)
from sorakit.training.time_left import describe_seconds

_DATA_KEYS = ("data_dir", "train_file", "dataset", "subset", "train_examples")
"""Options of a task that say whose data they are: of other data a pass takes another time."""
MOST_RUNS = 300
"""Finished runs that are looked at; more would not tell more, and reading them takes time."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """What a finished run took.

    Attributes:
        dense: Seconds of the dense stage.
        later: Seconds of the sparsifying stages.
    """

    dense: float
    later: float


class CostModel:
    """Medians over finished runs: those that differ in the seed only, or those of the same kind.

    The same kind: task, backbone, method, length of inputs, size of batches, and control. While
    none is finished, the stages that running ones have behind them stand for those before them,
    and until then what was expected of the kind.
    """

    def __init__(self) -> None:
        self._twins: dict[str, list[Times]] = {}
        self._kinds: dict[str, list[Times]] = {}
        self._running: dict[str, Times] = {}
        self._expected: dict[str, Times] = {}
        self._seen: set[Path] = set()
        self._keys: dict[str, tuple[str, str]] = {}

    @property
    def num_runs(self) -> int:
        """Finished runs that the estimates rest on."""
        return len(self._seen)

    def add(self, path: Path) -> None:
        """Take a finished run into account; one without times is left out."""
        times = _read_times(path)
        if times is None or path in self._seen:
            return
        self._seen.add(path)
        config = read_config(path)
        self._twins.setdefault(_twin_key(config), []).append(times)
        self._kinds.setdefault(_kind_key(config), []).append(times)

    def look_at_running(self, path: Path, *, num_stages: int) -> None:
        """Take the stages that a running run has behind it into account.

        Args:
            path: Its run folder.
            num_stages: Sparsifying stages that it will have.
        """
        rows = read_timings(path)
        later = [float(row["seconds"]) for row in rows[1:] if "seconds" in row]
        if later and "seconds" in rows[0]:
            seconds = num_stages * math.fsum(later) / len(later)
            times = Times(dense=float(rows[0]["seconds"]), later=seconds)
            self._running[_kind_key(read_config(path))] = times

    def expect(self, config: RunConfig, times: Times) -> None:
        """Take what a run of this kind is expected to take, until one has shown it."""
        self._expected[_kind_key(config_to_dict(config))] = times

    def has_finished(self, run_id: str) -> bool:
        """Return whether a run like one that `seconds` was asked for has been finished.

        Args:
            run_id: Its run id.
        """
        twin, kind = self._keys[run_id]
        return twin in self._twins or kind in self._kinds

    def seconds(self, config: RunConfig, *, run_id: str, with_dense: bool) -> float | None:
        """Return what a run will take, or None when no finished run is like it.

        Args:
            config: Its configuration.
            run_id: Its run id, by which it is remembered.
            with_dense: Whether it trains its dense stage, or starts from one that is shared.
        """
        if run_id not in self._keys:
            content = config_to_dict(config)
            self._keys[run_id] = (_twin_key(content), _kind_key(content))
        twin, kind = self._keys[run_id]
        found = self._twins.get(twin) or self._kinds.get(kind)
        if not found:
            known = self._running.get(kind) or self._expected.get(kind)
            if known is None:
                return None
            found = [known]
        later = statistics.median(times.later for times in found)
        return later + (statistics.median(times.dense for times in found) if with_dense else 0.0)


def cost_model(folders: Iterable[Path], *, tasks: Sequence[str]) -> CostModel:
    """Return the cost model of the finished runs of some tasks below `folders`."""
    model = CostModel()
    for folder in folders:
        # Run folders of a sweep stand below the task, records that are kept in the folder itself.
        for root in [*(folder / task for task in tasks), folder]:
            folders_below = [meta.parent for meta in root.glob(f"*/{META_FILE}")]
            for path in sorted([*folders_below, *packed_in(root)]):
                if model.num_runs >= MOST_RUNS:
                    return model
                if is_complete(path):
                    model.add(path)
    return model


def describe_run_cost(config: RunConfig) -> str | None:
    """Return what a run will take, by the finished runs beside it, or None without one like it.

    Args:
        config: Resolved configuration; its run is not complete.
    """
    path = run_path(config)
    folders = [path.parent.parent, path.parent]
    costs = cost_model(folders, tasks=[config.task.name, path.parent.name])
    seconds = costs.seconds(config, run_id=run_id(config), with_dense=True)
    if seconds is None:
        return None
    spent = math.fsum(float(row.get("seconds", 0.0)) for row in read_timings(path))
    left = describe_seconds(max(0.0, seconds - spent))
    return f"About {left}, going by finished runs of this kind."


def _read_times(path: Path) -> Times | None:
    rows = read_timings(path)
    seconds = {int(row["stage"]): float(row["seconds"]) for row in rows if "seconds" in row}
    if 0 not in seconds:
        return None
    return Times(dense=seconds.pop(0), later=math.fsum(seconds.values()))


def _twin_key(config: dict[str, Any]) -> str:
    rest = {name: value for name, value in config.items() if name not in {"seed", "out_dir"}}
    return json.dumps(rest, sort_keys=True)


def _kind_key(config: dict[str, Any]) -> str:
    options = {
        "task": ("name", "max_length", *_DATA_KEYS),
        "backbone": ("name",),
        "method": ("name",),
        "optim": ("batch_size",),
        "stage": ("control",),
    }
    content = cast(dict[str, dict[str, Any]], config)
    kind = {name: [content[name].get(key) for key in keys] for name, keys in options.items()}
    return json.dumps(kind, sort_keys=True)
