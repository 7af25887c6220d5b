"""Run folders -> tidy tables, with every run that is left out listed beside its reason."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import yaml

from sorakit.config import BackboneConfig, StageControl, TaskConfig
from sorakit.records import (
    FLOOR,
    PATH,
    STAGES_FILE,
    STATUS_FILE,
    Run,
    StageRecord,
    find_runs,
    is_run_folder,
    load_run,
    role_of,
)

HOLD_DENSE = "hold_dense"

DATASET_KEYS = ["task", "backbone", "setting"]
"""What one panel or one block of a table shows."""
SEED_KEYS = [*DATASET_KEYS, "seed"]
"""What a path, its floor and its hold_dense control have in common."""

DEFAULT_SETTING = "default"

_FLOAT_COLUMNS = [field.name for field in fields(StageRecord) if "None" in str(field.type)]
_REQUIRED_COLUMNS = [
    "num_nonzero_params",
    "num_adapter_params",
    "metric",
    "memorization",
    "generalization",
    "memorization_loss",
    "generalization_loss",
]
_NO_VARIANT = ("task", "backbone", "trainer", "tracking", "seed", "out_dir")


@dataclass(frozen=True, kw_only=True)
class RunSet:
    """Tables of the runs that could be used.

    Attributes:
        runs: One row a run: identity, role, state, versions, folder.
        stages: One row a (run, stage): identity, role and state, then the columns of `StageRecord`.
        ranks: One row a (run, stage, module): identity, role and state, then those of `RankRecord`.
        excluded: Folder and reason of every run that is in no table.
        configs: Run id -> resolved configuration.
    """

    runs: pd.DataFrame
    stages: pd.DataFrame
    ranks: pd.DataFrame
    excluded: list[tuple[Path, str]]
    configs: dict[str, dict[str, Any]]


def load_runs(paths: Sequence[Path], *, with_ranks: bool = True) -> RunSet:
    """Read every run at or below `paths`.

    Runs that are not completed but have stages are kept, with their `state`. Of several folders
    with one run id, the one with most stages counts.

    Args:
        paths: Run folders, or folders that hold run folders at any depth.
        with_ranks: Read the rank tables too, the largest part of most records.

    Raises:
        ValueError: If a path is no folder, or if no run below `paths` can be used.
    """
    excluded: list[tuple[Path, str]] = []
    used: dict[str, Run] = {}
    for folder in _candidates(paths):
        try:
            run = _read_usable(folder, with_ranks=with_ranks)
        except (ValueError, OSError, KeyError, TypeError, yaml.YAMLError) as error:
            excluded.append((folder, _reason(error)))
            continue
        twin = used.get(run.run_id)
        if twin is None:
            used[run.run_id] = run
            continue
        kept, dropped = (twin, run) if len(twin.stages) >= len(run.stages) else (run, twin)
        used[run.run_id] = kept
        excluded.append((dropped.path, f"same run id as {kept.path}"))
    if not used:
        listed = "".join(f"; {path}: {reason}" for path, reason in excluded)
        raise ValueError(
            "`RUNS` must hold at least one run with a finished stage, got none in "
            f"{', '.join(str(path) for path in paths)} ({len(excluded)} left out{listed})."
        )
    identities = [_identity(run) for run in used.values()]
    sources = [_source(run) for run in used.values()]
    return RunSet(
        runs=pd.DataFrame([{**i, **s} for i, s in zip(identities, sources, strict=True)]),
        stages=_typed_stages(_stack([run.stages for run in used.values()], identities)),
        ranks=_typed_ranks(_stack([run.ranks for run in used.values()], identities)),
        excluded=sorted(excluded),
        configs={run_id: run.config for run_id, run in used.items()},
    )


def variants(runs: RunSet) -> dict[str, str]:
    """Return run id -> what sets a path run apart from the other paths of its dataset.

    Options of the configuration and the method version, "" where all agree. Two runs of one seed
    are two seeds' worth of evidence only if they are one experiment, and here they are not.
    """
    named: dict[str, str] = {}
    paths = runs.runs[runs.runs["role"] == PATH]
    for _, group in paths.groupby(DATASET_KEYS):
        options = {
            row["run_id"]: {
                **_options(runs.configs[str(row["run_id"])]),
                "method_version": row["method_version"],
            }
            for row in group.to_dict("records")
        }
        keys = sorted({key for option in options.values() for key in option})
        different = [k for k in keys if len({str(o.get(k)) for o in options.values()}) > 1]
        for run_id, option in options.items():
            named[str(run_id)] = ", ".join(f"{key}={option.get(key)}" for key in different)
    return named


def _options(config: dict[str, Any]) -> dict[str, Any]:
    """Return the dotted options that make an experiment, without data, backbone and machine."""
    options: dict[str, Any] = {}
    for name, section in config.items():
        if name not in _NO_VARIANT:
            options |= {f"{name}.{key}": value for key, value in section.items()}
    return options


def require_path_run(stages: pd.DataFrame) -> None:
    """Refuse tables without a path run: there is no curve in them.

    Raises:
        ValueError: If no row has the role path.
    """
    if not (stages["role"] == PATH).any():
        raise ValueError(
            "`RUNS` must hold at least one path run (method.name sora, stage.control none), got 0."
        )


def comparability_notes(runs: pd.DataFrame) -> list[str]:
    """Return one sentence for everything that makes the used runs questionable to compare."""
    notes: list[str] = []
    versions = sorted({str(version) for version in runs["method_version"]})
    if len(versions) > 1:
        notes.append(
            f"The runs were made by method versions {', '.join(versions)}, "
            "whose numbers differ for one configuration."
        )
    for task, group in runs.groupby("task"):
        # one null model permutes the labels, with its seed: that is what it is for
        count = group.loc[group["role"] != "shuffled_labels", "data_fingerprint"].nunique()
        if count > 1:
            notes.append(f"The runs of {task} saw {count} different data sets (fingerprints).")
    unfinished = runs[runs["state"] != "completed"]
    notes += [
        f"Run {row['run_id']} ({row['task']}, seed {row['seed']}) is {row['state']}; "
        "its stages so far are used."
        for row in unfinished.to_dict("records")
    ]
    return notes


def _candidates(paths: Sequence[Path]) -> list[Path]:
    """Return each run folder once, with folders that look like a run but lack its meta data."""
    found: dict[Path, Path] = {}
    for root in paths:
        folders = find_runs(root)
        folders += [
            file.parent
            for name in (STATUS_FILE, STAGES_FILE)
            for file in root.rglob(name)
            if not is_run_folder(file.parent)
        ]
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    return sorted(found.values())


def _read_usable(folder: Path, *, with_ranks: bool) -> Run:
    run = load_run(folder, with_ranks=with_ranks)
    if run.stages.empty:
        error = run.status.get("error")
        raise ValueError(f"{run.state}, no finished stage" + (f": {error}" if error else ""))
    missing = run.stages[_REQUIRED_COLUMNS].isna().any()
    if missing.any():
        names = ", ".join(missing.index[missing])
        raise ValueError(f"{STAGES_FILE} mixes schemas: {names} missing in some of its stages")
    _identity(run)  # a run that cannot be named cannot be used
    return run


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"unreadable: {error} is missing"
    text = " ".join(str(error).split())
    return text if type(error) is ValueError else f"unreadable: {text}"


def _identity(run: Run) -> dict[str, Any]:
    config = run.config
    method = config["method"]["name"]
    control = config["stage"]["control"]
    return {
        "run_id": run.run_id,
        "task": config["task"]["name"],
        "backbone": config["backbone"]["name"],
        "setting": _setting(config),
        "seed": int(config["seed"]),
        "method": method,
        "control": control,
        "role": _role(method, control),
        "state": run.state,
    }


def _role(method: str, control: str) -> str:
    role = role_of(method, control)
    if role != FLOOR and (method != "sora" or control not in get_args(StageControl)):
        raise ValueError(f"method {method!r} with control {control!r} has no place in these tables")
    return role


def _setting(config: dict[str, Any]) -> str:
    """Name what sets the data and the backbone apart from their defaults, beside their names."""
    different: list[str] = []
    for key, default in (("task", asdict(TaskConfig())), ("backbone", asdict(BackboneConfig()))):
        ignored = {"name"} if config["task"]["name"] == "files" else {"name", "data_dir"}
        different += [
            f"{name}={value}"
            for name, value in config[key].items()
            if name not in ignored and value != default.get(name)
        ]
    return ", ".join(different) or DEFAULT_SETTING


def _source(run: Run) -> dict[str, Any]:
    git: dict[str, Any] = run.meta.get("git") or {}
    return {
        "method_version": run.meta.get("method_version"),
        "git_sha": git.get("sha"),
        "git_dirty": git.get("dirty"),
        "data_fingerprint": run.meta.get("data_fingerprint"),
        "num_stages": len(run.stages) - 1,
        "path": str(run.path),
    }


def _stack(tables: list[pd.DataFrame], identities: list[dict[str, Any]]) -> pd.DataFrame:
    labelled = [
        table.assign(**identity)
        for table, identity in zip(tables, identities, strict=True)
        if not table.empty
    ]
    if not labelled:
        return pd.DataFrame()
    stacked = pd.concat(labelled, ignore_index=True)
    names = list(identities[0])
    return stacked[[*names, *(column for column in stacked if column not in names)]]


def _typed_stages(stages: pd.DataFrame) -> pd.DataFrame:
    return stages.astype(dict.fromkeys(_FLOAT_COLUMNS, "float64"))


def _typed_ranks(ranks: pd.DataFrame) -> pd.DataFrame:
    return ranks if ranks.empty else ranks.astype({"layer": "Int64"})
