"""Rank maps as tables: where the non-zero ranks are, whether they lie shallow or deep, who agrees.

A map holds the non-zero rank of every adapted matrix by layer; matrices outside of layers are left
out. Stages of different runs are made comparable by one criterion: the same stage, the same lambda,
the same share of the dense generalization kept, or the same budget of parameters.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd
from scipy import stats

from analysis.intervals import Interval, student_t_interval
from analysis.load import KEYS, PATH
from sorakit.retention import sparsest_keeping

Kind = Literal["stage", "lambda", "retention", "budget"]

NEAR_LAMBDA = 1.15
"""Factor by which the lambda of a stage may miss the one asked for: half a step of `xi.ratio`."""


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """Which stage of each run is shown.

    Attributes:
        kind: stage: this one. lambda: the nearest, within a factor `NEAR_LAMBDA`. retention: the
            sparsest that keeps this share of dense generalization. budget: the one with most
            non-zero parameters among those with at most so many.
        value: Number of the stage, lambda, share in (0, 1], or count.
    """

    kind: Kind
    value: int | float

    def __post_init__(self) -> None:
        whole = self.kind in ("stage", "budget")
        holds = {
            "stage": self.value >= 0,
            "lambda": 0 < self.value < float("inf"),
            "retention": 0 < self.value <= 1,
            "budget": self.value >= 0,
        }[self.kind]
        if not holds or (whole and self.value != int(self.value)):
            constraint = {
                "stage": "a whole number >= 0",
                "lambda": "> 0 and finite",
                "retention": "in (0, 1]",
                "budget": "a whole number >= 0",
            }[self.kind]
            raise ValueError(f"`{self.kind}` must be {constraint}, got {self.value:g}.")

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"


def parse_criterion(text: str) -> Criterion:
    """Return the criterion that a command line gives, for example retention=0.95.

    Raises:
        ValueError: If it is none.
    """
    kind, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if kind not in get_args(Kind) or np.isnan(value):
        raise ValueError(
            f"`--at` must be stage=K, lambda=X, retention=SHARE or budget=N, got {text!r}."
        )
    return Criterion(kind=cast(Kind, kind), value=value)


def stages_at(stages: pd.DataFrame, at: Criterion, *, role: str = PATH) -> dict[str, int]:
    """Return run id -> stage of every run that has one at the criterion.

    Args:
        stages: Stage table.
        at: Criterion.
        role: Whose runs: path, or a control such as from_scratch.
    """
    chosen: dict[str, int] = {}
    for run_id, run in stages[stages["role"] == role].groupby("run_id", sort=True):
        row = _row_at(run, at)
        if row is not None:
            chosen[str(run_id)] = int(row["stage"])
    return chosen


def _row_at(run: pd.DataFrame, at: Criterion) -> pd.Series | None:
    if at.kind == "retention":
        return sparsest_keeping(run, "generalization", at.value)
    if at.kind == "lambda":
        lambdas = run["lambda"].to_numpy(dtype=float)
        away = np.full(len(lambdas), np.inf)
        away[lambdas > 0] = np.abs(np.log(lambdas[lambdas > 0] / at.value))
        is_kept = (away <= np.log(NEAR_LAMBDA)) & (away == away.min())
    elif at.kind == "stage":
        is_kept = run["stage"].to_numpy(dtype=float) == at.value
    else:
        is_kept = run["num_nonzero_params"].to_numpy(dtype=float) <= at.value
    kept = run.iloc[np.flatnonzero(is_kept)]
    ordered = kept.sort_values(["num_nonzero_params", "stage"])
    return None if kept.empty else ordered.iloc[-1]


def maps_at(
    ranks: pd.DataFrame, stages: pd.DataFrame, at: Criterion, *, role: str = PATH
) -> pd.DataFrame:
    """Return the rank rows of the stages at a criterion, with what is to be said of each stage.

    Args:
        ranks: Rank table.
        stages: Stage table of the same runs.
        at: Criterion.
        role: Whose runs: path, or a control such as from_scratch.

    Raises:
        ValueError: If no run has such a stage, or none has a record of its ranks.
    """
    own = stages[stages["role"] == role]
    if own.empty:
        raise ValueError(f"`RUNS` must hold a {role} run, got {', '.join(_roles(stages))}.")
    chosen = stages_at(stages, at, role=role)
    if not chosen:
        lambdas = own.loc[own["lambda"] > 0, "lambda"].astype(float)
        raise ValueError(
            f"`at` must be met by a stage of a {role} run, got {at}. Their stages go to "
            f"{own['stage'].max()}, lambda from {lambdas.min():.3g} to {lambdas.max():.3g}, "
            f"parameters from {own['num_nonzero_params'].min():,} to "
            f"{own['num_nonzero_params'].max():,}."
        )
    is_chosen = own["stage"] == own["run_id"].map(chosen)
    said = ["xi", "lambda", "num_nonzero_params", "num_adapter_params"]
    about = own.loc[is_chosen, [*KEYS, "seed", "run_id", "stage", *said]]
    columns = ["run_id", "stage", "layer", "matrix", "in_features", "out_features", "r"]
    rows = ranks[[*columns, "nonzero_rank"]] if len(ranks) else ranks
    merged = about.merge(rows, on=["run_id", "stage"]) if len(rows) else rows
    if merged.empty:
        raise ValueError(f"`RUNS` must hold ranks of the stages at {at}, got none.")
    return merged


def without_map(stages: pd.DataFrame, maps: pd.DataFrame, *, role: str = PATH) -> list[str]:
    """Return a sentence on the runs that have no stage in `maps`; none if all have.

    Args:
        stages: Stage table.
        maps: What `maps_at` returned for it.
        role: Whose runs.
    """
    left = stages[(stages["role"] == role) & ~stages["run_id"].isin(maps["run_id"])]
    runs = left.drop_duplicates("run_id").sort_values([*KEYS, "seed"]).to_dict("records")
    named = [f"{row['task']}, seed {row['seed']} ({row['run_id']})" for row in runs]
    return [f"No rank map is shown of {'; '.join(named)}: no such stage."] if named else []


def _roles(stages: pd.DataFrame) -> list[str]:
    return sorted(str(role) for role in set(stages["role"]))


def map_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds of the maps in rows of `maps_at` of one block: layer by matrix."""
    return mean_map(rank_maps(rows, dict(zip(rows["run_id"], rows["stage"], strict=True))))


def rank_maps(ranks: pd.DataFrame, at: dict[str, int]) -> dict[str, pd.DataFrame]:
    """Return run id -> non-zero rank by layer (rows, rising) and matrix (columns, as recorded).

    Args:
        ranks: Rank table.
        at: Run id -> stage; see `stages_at`.
    """
    inside = ranks[ranks["layer"].notna() & ranks["run_id"].isin(list(at))]
    inside = inside[inside["stage"] == inside["run_id"].map(at)]
    return {
        str(run_id): (
            rows.assign(row=rows["layer"].astype(int))
            .pivot(index="row", columns="matrix", values="nonzero_rank")
            .reindex(columns=list(dict.fromkeys(rows["matrix"])))
            .sort_index()
            .rename_axis(index="layer")
            .astype(float)
        )
        for run_id, rows in inside.groupby("run_id", sort=True)
    }


def mean_map(maps: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the mean of maps of one backbone: layer by matrix.

    Raises:
        ValueError: If there is no map, or if they do not have the same layers and matrices.
    """
    tables = list(maps.values())
    if not tables or any(
        set(table.columns) != set(tables[0].columns) or set(table.index) != set(tables[0].index)
        for table in tables
    ):
        raise ValueError("`maps` must be of one backbone: the same layers, the same matrices.")
    aligned = [table.reindex(index=tables[0].index, columns=tables[0].columns) for table in tables]
    mean = np.mean([table.to_numpy(dtype=float) for table in aligned], axis=0)
    return pd.DataFrame(mean, index=tables[0].index, columns=tables[0].columns)


def depth_trend(table: pd.DataFrame) -> float:
    """Return Spearman's correlation between the layer and its mean non-zero rank.

    1: the deeper, the more; NaN where all layers have the same or there are fewer than three.
    """
    means = table.mean(axis=1)
    if len(means) < 3 or means.nunique() < 2:
        return float("nan")
    return float(stats.spearmanr(means.index.to_numpy(dtype=float), means.to_numpy()).statistic)


def depth_trend_interval(maps: dict[str, pd.DataFrame]) -> Interval:
    """Return the mean of `depth_trend` over seeds, with its 95 % Student-t interval.

    No correlation lies outside of [-1, 1], and so neither do the ends.
    """
    found = student_t_interval([depth_trend(table) for table in maps.values()])
    low, high = (float(np.clip(end, -1, 1)) for end in (found.low, found.high))
    return replace(found, low=low, high=high)


def map_agreement(first: pd.DataFrame, second: pd.DataFrame) -> float:
    """Return Spearman's correlation between the cells that two maps have in common.

    NaN where one of them is the same everywhere or fewer than three cells are common.
    """
    other = second.reindex(index=first.index, columns=first.columns)
    a, b = first.to_numpy(dtype=float).ravel(), other.to_numpy(dtype=float).ravel()
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3 or len(set(a[known])) < 2 or len(set(b[known])) < 2:
        return float("nan")
    return float(stats.spearmanr(a[known], b[known]).statistic)


def agreements(maps: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row a pair of maps: `first`, `second` and their `spearman`.

    Between the seeds of a dataset: give it that dataset's maps by run id. Between datasets: give
    it their mean maps by name. Pairs share their members, so their spread is no standard error.
    """
    rows = [
        {"first": a, "second": b, "spearman": map_agreement(maps[a], maps[b])}
        for a, b in combinations(maps, 2)
    ]
    return pd.DataFrame(rows, columns=pd.Index(["first", "second", "spearman"]))
