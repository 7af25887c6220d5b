"""Run folders -> tidy tables, with every run that is left out listed beside its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis.configurations import agrees, differences
from sorakit.records import (
    DENSE_STAGES_DIR,
    FLOOR,
    PATH,
    STAGES_FILE,
    STATUS_FILE,
    Run,
    StageRecord,
    execution_of,
    find_runs,
    is_run_folder,
    load_run,
    measure_columns,
    role_of,
)
from sorakit.records.matching import (
    data_of,
    experiment_options,
    matching_ids,
    setting_of,
    source_of,
)

SORA = "sora"
"""The method of paths and their controls; runs of another method are its rivals, or the floor."""
HOLD_DENSE = "hold_dense"
FROM_SCRATCH = "from_scratch"
NULL_FLOOR = "shuffled_labels_floor"
"""Role of a head-only run on permuted labels: the reference of what an adapter memorises of them.
No path has it as its floor."""
_SHUFFLED_LABELS = "shuffled_labels"

DATASET_KEYS = ["task", "backbone", "setting"]
"""What is learnt, and by which model."""
KEYS = [*DATASET_KEYS, "variant"]
"""What one panel or one block of a table shows: a dataset and, where they differ, the options."""
SEED_KEYS = [*DATASET_KEYS, "seed"]
"""What a path, its floor and its controls have in common; `floor_id` and `dense_id` hold it."""

_FLOAT_COLUMNS = [
    field.name
    for field in fields(StageRecord)
    if "None" in str(field.type) and "str" not in str(field.type)
]
_REQUIRED_COLUMNS = [
    "num_nonzero_params",
    "num_adapter_params",
    "metric",
    "memorization",
    "generalization",
    "memorization_loss",
    "generalization_loss",
]


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
    with one run id and the same stages, the one with most of them counts.

    Args:
        paths: Run folders, packs, or folders that hold some at any depth.
        with_ranks: Read the rank tables too, the largest part of most records.

    Raises:
        ValueError: If a path is no folder, if no run below `paths` can be used, or if two of one
            run id have other results.
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
        _require_one_result(kept, dropped)
        used[run.run_id] = kept
        excluded.append((dropped.path, f"same run id as {kept.path}"))
    if not used:
        listed = "".join(f"; {path}: {reason}" for path, reason in excluded)
        raise ValueError(
            "`RUNS` must hold at least one run with a finished stage, got none in "
            f"{', '.join(str(path) for path in paths)} ({len(excluded)} left out{listed})."
        )
    identities = _with_short_settings([_identity(run) for run in used.values()], [*used.values()])
    sources = [_source(run) for run in used.values()]
    table = pd.DataFrame([{**i, **s} for i, s in zip(identities, sources, strict=True)])
    configs = {run_id: run.config for run_id, run in used.items()}
    names = _variants(table, configs)
    for identity in identities:
        identity["variant"] = names[str(identity["run_id"])]
    return RunSet(
        runs=table.assign(variant=table["run_id"].map(names)),
        stages=_typed_stages(_stack([run.stages for run in used.values()], identities)),
        ranks=_typed_ranks(_stack([run.ranks for run in used.values()], identities)),
        excluded=sorted(excluded),
        configs=configs,
    )


def _with_short_settings(
    identities: list[dict[str, object]], runs: Sequence[Run]
) -> list[dict[str, object]]:
    """Return what names runs, without where own data lie if the dataset's name says it all.

    That is so where all runs of one name read the same files and columns.
    """
    sources: dict[object, set[tuple[object, ...]]] = {}
    for identity, run in zip(identities, runs, strict=True):
        sources.setdefault(identity["task"], set()).add(source_of(run.config))
    return [
        {**identity, "setting": setting_of(run.config, with_source=False)}
        if len(sources[identity["task"]]) == 1
        else identity
        for identity, run in zip(identities, runs, strict=True)
    ]


def select_paths(runs: RunSet, wanted: Mapping[str, str]) -> RunSet:
    """Return `runs` with those paths only whose options have the wanted values, and their controls.

    Args:
        runs: What was loaded.
        wanted: Dotted option, for example gates.gate_lr -> its value as text.

    Raises:
        ValueError: If no run has such an option.
    """
    found = {
        run_id: experiment_options(config, with_data=True)
        for run_id, config in runs.configs.items()
    }
    for key in wanted:
        if not any(key in option for option in found.values()):
            raise ValueError(f"`--only` must name an option of a run, got {key!r}.")
    reasons: dict[str, str] = {}
    for run_id in runs.runs.loc[runs.runs["role"] == PATH, "run_id"]:
        option = found[str(run_id)]
        other = [key for key, text in wanted.items() if not agrees(option.get(key), text)]
        if other:
            named = ", ".join(f"{key} is {option.get(key)}" for key in other)
            reasons[str(run_id)] = f"not selected: {named}"
    is_left = ~runs.runs["run_id"].isin(list(reasons))
    theirs = controls_of(runs.runs, runs.runs[(runs.runs["role"] == PATH) & ~is_left])
    kept = controls_of(runs.runs, runs.runs[(runs.runs["role"] == PATH) & is_left])
    for run_id in runs.runs.loc[theirs & ~kept, "run_id"]:
        reasons[str(run_id)] = "not selected: control of a path that is not"
    folders = {str(row["run_id"]): Path(row["path"]) for row in runs.runs.to_dict("records")}
    return _without(runs, reasons, folders) if reasons else runs


def with_curves(runs: RunSet) -> RunSet:
    """Return `runs` without path runs that have no curve; they are listed with the reason."""
    folders = {str(row["run_id"]): Path(row["path"]) for row in runs.runs.to_dict("records")}
    reasons: dict[str, str] = {}
    for run_id, run in runs.stages[runs.stages["role"] == PATH].groupby("run_id"):
        if not (run["stage"] == 0).any():
            reasons[str(run_id)] = "no dense stage: nothing to compare with"
        elif len(run) < 2:
            reasons[str(run_id)] = "single stage: no curve"
    return _without(runs, reasons, folders) if reasons else runs


def _without(runs: RunSet, reasons: Mapping[str, str], folders: Mapping[str, Path]) -> RunSet:
    """Return `runs` without some, which are listed with the reason; variants are named anew."""
    excluded = [(folders[run_id], reason) for run_id, reason in reasons.items()]
    left = runs.runs[~runs.runs["run_id"].isin(list(reasons))].reset_index(drop=True)
    names = _variants(left, runs.configs)
    stages, ranks = (
        table[table["run_id"].isin(left["run_id"])].reset_index(drop=True) if len(table) else table
        for table in (runs.stages, runs.ranks)
    )
    left, stages, ranks = (
        table.assign(variant=table["run_id"].map(names)) if len(table) else table
        for table in (left, stages, ranks)
    )
    return replace(
        runs, runs=left, stages=stages, ranks=ranks, excluded=sorted([*runs.excluded, *excluded])
    )


def controls_of(table: pd.DataFrame, paths: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows of a table are of a floor or a control of some of `paths`.

    Args:
        table: Rows of runs or of their stages.
        paths: Rows of path runs.
    """
    is_floor = (table["role"] == FLOOR) & table["floor_id"].isin(paths["floor_id"])
    is_of_path = (table["role"] != PATH) & (table["method"] == SORA)
    is_control = is_of_path & table["dense_id"].isin(paths["dense_id"])
    return is_floor | is_control


def _variants(runs: pd.DataFrame, configs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return run id -> what sets a path apart from the other paths of its dataset.

    Options of the configuration and the method version, "" where all agree, and for controls. Two
    runs of one seed are two seeds' worth of evidence only if they are one experiment, and here they
    are not.
    """
    named: dict[str, str] = dict.fromkeys(runs["run_id"], "")
    for _, group in runs[runs["role"] == PATH].groupby(DATASET_KEYS):
        named |= differences(
            {
                str(row["run_id"]): {
                    **experiment_options(configs[str(row["run_id"])]),
                    "method_version": row["method_version"],
                }
                for row in group.to_dict("records")
            }
        )
    return named


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
        permuted = group["role"].isin([_SHUFFLED_LABELS, NULL_FLOOR])
        count = group.loc[~permuted, "data_fingerprint"].nunique()
        if count > 1:
            notes.append(f"The runs of {task} saw {count} different data sets (fingerprints).")
        executions = sorted(set(group["execution"]))
        if len(executions) > 1:
            notes.append(
                f"The runs of {task} were executed in {len(executions)} ways "
                f"({'; '.join(executions[:3])}): one configuration has other last bits in each."
            )
    unfinished = runs[runs["state"] != "completed"]
    notes += [
        f"Run {row['run_id']} ({row['task']}, seed {row['seed']}) is {row['state']}; "
        "its stages so far are used."
        for row in unfinished.to_dict("records")
    ]
    return notes


def _candidates(paths: Sequence[Path]) -> list[Path]:
    """Return each run once, with folders that look like a run but lack its meta data.

    The dense stages that a sweep shares look so too, and are none.
    """
    found: dict[Path, Path] = {}
    for root in paths:
        folders = find_runs(root)
        folders += [
            file.parent
            for name in (STATUS_FILE, STAGES_FILE)
            for file in root.rglob(name)
            if not is_run_folder(file.parent)
            and DENSE_STAGES_DIR not in file.relative_to(root).parts
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


def _require_one_result(kept: Run, dropped: Run) -> None:
    """Refuse two results of one run id: which of them a table is of would be chance.

    Raises:
        ValueError: If a stage that both have differs.
    """
    columns = [column for column in kept.stages if column in dropped.stages]
    for number in range(len(dropped.stages)):
        first, second = (run.stages[columns].iloc[number] for run in (kept, dropped))
        if not first.equals(second):
            raise ValueError(
                f"`RUNS` must hold one result of run {kept.run_id}, got two that differ from stage "
                f"{first['stage']} on: {kept.path} ({execution_of(kept.meta)}) and {dropped.path} "
                f"({execution_of(dropped.meta)}). Name one of the two folders only."
            )


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
        **data_of(config),
        "method": method,
        "control": control,
        "role": _role(method, control),
        "state": run.state,
        **matching_ids(config, method_version=run.meta.get("method_version")),
    }


def _role(method: str, control: str) -> str:
    if role_of(method, "none") == FLOOR and control == _SHUFFLED_LABELS:
        return NULL_FLOOR
    if method != SORA and control != "none":
        raise ValueError(f"method {method!r} with control {control!r} has no place in these tables")
    return role_of(method, control)


def _source(run: Run) -> dict[str, Any]:
    git: dict[str, Any] = run.meta.get("git") or {}
    return {
        "method_version": run.meta.get("method_version"),
        "git_sha": git.get("sha"),
        "git_dirty": git.get("dirty"),
        "data_fingerprint": run.meta.get("data_fingerprint"),
        "execution": execution_of(run.meta),
        "num_stages": len(run.stages) - 1,
        "path": str(run.path),
    }


def _stack(tables: list[pd.DataFrame], identities: list[dict[str, Any]]) -> pd.DataFrame:
    kept = [(table, who) for table, who in zip(tables, identities, strict=True) if len(table)]
    if not kept:
        return pd.DataFrame()
    stacked = pd.concat([table for table, _ in kept], ignore_index=True)
    # once for all runs: a tenth of the time of a column after the other in each of them
    named = pd.DataFrame([who for _, who in kept])
    rows = np.repeat(np.arange(len(kept)), [len(table) for table, _ in kept])
    return pd.concat([named.iloc[rows].reset_index(drop=True), stacked], axis="columns")


def _typed_stages(stages: pd.DataFrame) -> pd.DataFrame:
    # A measure is null where a record is older, or where it is not defined.
    measures = [name for name in measure_columns() if stages[name].dtype == object]
    return stages.astype(dict.fromkeys([*_FLOAT_COLUMNS, *measures], "float64"))


def _typed_ranks(ranks: pd.DataFrame) -> pd.DataFrame:
    return ranks if ranks.empty else ranks.astype({"layer": "Int64"})
