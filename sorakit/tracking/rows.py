"""What a run looks like in W&B, computed from its folder alone: labels, rows, tables, summary."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from sorakit.curve_grid import LOG10_SHARES, values_on_grid
from sorakit.metric_names import (
    CURVE_COLUMNS,
    CURVE_LOG10_SHARE,
    CURVE_PERCENT,
    CURVE_RUNS,
    GAP,
    GENERALIZATION_GAIN,
    GENERALIZATION_SPLIT,
    LAST_KKT_RESIDUAL,
    LEARNING_RATE,
    MEMORIZATION_GAIN,
    MEMORIZATION_SPLIT,
    OPTIMIZER_STEP,
    RECORDS_DIGEST,
    SCORES,
    SHARES,
    SMALLEST_BUDGET,
    TRAIN_LOSS,
    TRAIN_STAGE,
    TRAIN_XI,
    dense_score,
    extra_metric,
    fewest_params,
    floor_score,
    stage_keys,
)
from sorakit.records import (
    FLOOR,
    PATH,
    Run,
    dataset_label,
    is_packed,
    is_run_folder,
    load_run,
    role_of,
)
from sorakit.records.matching import curve_id, matching_ids
from sorakit.retention import gain_retained, sparsest_keeping

GAINS = {MEMORIZATION_SPLIT: MEMORIZATION_GAIN, GENERALIZATION_SPLIT: GENERALIZATION_GAIN}
STEP_KEYS = {
    "step": OPTIMIZER_STEP,
    "stage": TRAIN_STAGE,
    "train_loss": TRAIN_LOSS,
    "lr": LEARNING_RATE,
    "xi": TRAIN_XI,
}
"""Column of `steps.jsonl` -> key."""
RANK_COLUMNS = ["layer", "matrix", "rank", "strength"]

Row = dict[str, Any]
Scores = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How W&B sorts a run.

    Attributes:
        name: Display name.
        group: The dataset.
        job_type: path, floor, or the control.
        tags: Backbone, method and gate update.
    """

    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]


def curve_name(run: Run) -> str:
    """Return what the runs of one curve share, and no others: the mean is taken over them.

    Dataset, backbone and method (or control), with an id of the options: paths of one dataset with
    other options are never averaged.
    """
    shown = labels(run.config)
    method = shown.tags[1] if shown.job_type == PATH else shown.job_type
    own = curve_id(run.config, method_version=run.meta.get("method_version"))
    return f"{shown.group}, {shown.tags[0]}, {method} [{own[:6]}]"


def labels(config: Mapping[str, Any]) -> Labels:
    """Return the labels of a run with the resolved configuration `config`."""
    method = config["method"]["name"]
    job_type = role_of(method, config["stage"]["control"])
    dataset = dataset_label(config["task"])
    tags = (Path(config["backbone"]["name"]).name, method, config["gates"]["update"])
    return Labels(
        name=f"{dataset}-{job_type}-seed{config['seed']}",
        group=dataset,
        job_type=job_type,
        tags=tuple(tag[:64] for tag in tags),  # W&B takes no longer ones
    )


def shown_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without what is of this machine: folders of the run, the home."""
    return {
        key: without_home(value)
        for key, value in config.items()
        if key not in ("out_dir", "tracking")
    }


def without_home(value: Any) -> Any:
    """Return `value` with the home folder written as ~ in every string."""
    if isinstance(value, str):
        home = str(Path.home())
        return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", value) if len(home) > 1 else value
    if isinstance(value, Mapping):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_home(item) for item in value]
    return value


def step_row(step: Mapping[str, Any]) -> Row:
    """Return what is logged for a line of `steps.jsonl`."""
    return _known({key: step[column] for column, key in STEP_KEYS.items()})


def stage_row(
    stage: Mapping[str, Any], *, dense: Mapping[str, Any], floor: Scores | None = None
) -> Row:
    """Return what is logged for a line of `stages.jsonl`.

    Args:
        stage: The line.
        dense: The line of the dense stage.
        floor: Memorization and generalization with no adapter. Gain retained, (score - floor) /
            (dense - floor), is there where they are and dense lies above them.
    """
    row = {key: stage.get(column) for column, key in stage_keys().items()}
    for split, metrics in (stage.get("extra_metrics") or {}).items():
        row |= {extra_metric(split, metric): value for metric, value in metrics.items()}
    row[GAP] = stage[MEMORIZATION_SPLIT] - stage[GENERALIZATION_SPLIT]
    if floor is not None:
        for score in SCORES:
            retained = gain_retained(stage[score], dense=dense[score], floor=floor[score])
            row[GAINS[score]] = float(retained)
    return _known(row)


def curve_rows(run: Run, floor: Scores | None = None) -> list[Row]:
    """Return the curve of a run on the grid of `sorakit.curve_grid`, from all ranks down.

    One row a share at which the run was measured; none of a run with a single stage, which has no
    curve. All runs have the same shares, so what W&B averages at one of them are values at it.

    Args:
        run: The run.
        floor: As for `stage_row`.
    """
    stages = run.stages
    if len(stages) < 2 or not stages["num_adapter_params"].max() > 0:
        return []
    stages = stages.assign(gap=stages[MEMORIZATION_SPLIT] - stages[GENERALIZATION_SPLIT])
    if floor is not None:
        for score in SCORES:
            dense = float(stages[score].iloc[0])
            retained = gain_retained(
                stages[score].to_numpy(dtype=float), dense=dense, floor=floor[score]
            )
            stages[f"{score}_gain_retained"] = retained
    columns = {column: key for column, key in CURVE_COLUMNS.items() if column in stages}
    values = {key: values_on_grid(stages, column) for column, key in columns.items()}
    rows: list[Row] = []
    for index, share in enumerate(LOG10_SHARES):
        row = _known({key: at[index] for key, at in values.items()})
        if row:
            axes = {CURVE_LOG10_SHARE: share, CURVE_PERCENT: 100 * 10**share, CURVE_RUNS: 1}
            rows.append({**axes, **row})
    return rows


def rank_rows(ranks: pd.DataFrame) -> list[list[Any]]:
    """Return the rank table of one stage: `RANK_COLUMNS`, one row an adapted matrix."""
    return [
        [
            None if pd.isna(rank["layer"]) else int(rank["layer"]),
            rank["matrix"],
            int(rank["nonzero_rank"]),
            math.fsum(rank["strengths"]),
        ]
        for rank in ranks.to_dict("records")
    ]


def strengths(ranks: pd.DataFrame) -> list[float]:
    """Return the strengths of the ranks that are left in one stage."""
    return [value for row in ranks["strengths"] for value in row if value > 0]


def summary(run: Run, floor: Scores | None = None) -> Row:
    """Return the numbers of a whole run; those that do not exist (yet) are left out."""
    stages = run.stages
    row: Row = {RECORDS_DIGEST: records_digest(run, floor)}
    if stages.empty:
        return row
    first, last = stages.iloc[0], stages.iloc[-1]
    counts = stages.loc[stages["num_nonzero_params"] > 0, "num_nonzero_params"]
    row[SMALLEST_BUDGET] = None if counts.empty else int(counts.min())
    row[LAST_KKT_RESIDUAL] = last["kkt_residual"]
    for score in SCORES:
        row[dense_score(score)] = float(first[score])
        row[floor_score(score)] = None if floor is None else floor[score]
        for name, share in SHARES.items() if first["num_adapter_params"] > 0 else ():
            stage = sparsest_keeping(stages, score, share)
            row[fewest_params(score, name)] = (
                None if stage is None else int(stage["num_nonzero_params"])
            )
    return _known(row)


def num_rows(run: Run) -> int:
    """Return how many rows of history a run has."""
    return len(run.steps()) + len(run.stages) + len(curve_rows(run))


def records_digest(run: Run, floor: Scores | None) -> str:
    """Return a hash of everything that is sent of a run."""
    content = [run.stages.to_json(), run.ranks.to_json(), run.steps(), floor, run.config, run.state]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_floors(candidates: Iterable[Path]) -> list[Run]:
    """Return the floors among some folders, with their dense stage; other folders are passed over.

    Args:
        candidates: Folders that may hold floors.
    """
    is_run = (path for path in candidates if is_run_folder(path) or is_packed(path))
    runs = (load_run(path, with_ranks=False) for path in is_run)
    return [run for run in runs if labels(run.config).job_type == FLOOR and not run.stages.empty]


def find_floor(run: Run, floors: Iterable[Run]) -> dict[str, float] | None:
    """Return the scores of the floor of a run: the same head, trained with no adapter.

    None where there is none, or where two disagree: analysis refuses those.

    Args:
        run: The run.
        floors: Floors, of this run and of others.
    """
    wanted = _floor_id(run)
    found = [
        {score: float(floor.stages[score].iloc[0]) for score in SCORES}
        for floor in floors
        if _floor_id(floor) == wanted
    ]
    return found[0] if found and all(scores == found[0] for scores in found) else None


def _floor_id(run: Run) -> str:
    return matching_ids(run.config, method_version=run.meta.get("method_version"))["floor_id"]


def _known(row: Row) -> Row:
    """Return a row without values that do not exist, and with plain numbers."""
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
    return {
        key: value
        for key, value in plain.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
