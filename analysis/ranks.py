"""Rank maps as tables: where the non-zero ranks are, whether they lie shallow or deep, who agrees.

A map holds the non-zero rank of every adapted matrix by layer; matrices outside of layers are left
out. Stages of different runs are made comparable by one criterion: the same stage, the same share
of the dense generalization kept, or the same budget of parameters.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from analysis.curves import sparsest_keeping
from analysis.intervals import Interval, student_t_interval
from analysis.load import PATH


def stages_at(
    stages: pd.DataFrame,
    *,
    stage: int | None = None,
    retention: float | None = None,
    budget: int | None = None,
) -> dict[str, int]:
    """Return run id -> stage of every path run that has one at the criterion.

    Args:
        stages: Stage table.
        stage: This stage.
        retention: The sparsest stage that keeps this share of dense generalization, in (0, 1].
        budget: The stage with most non-zero parameters among those with at most so many.

    Raises:
        ValueError: If not exactly one criterion is given.
    """
    given = [value for value in (stage, retention, budget) if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"`stage`, `retention` or `budget` must be given alone, got {len(given)} of them."
        )
    chosen: dict[str, int] = {}
    for run_id, run in stages[stages["role"] == PATH].groupby("run_id", sort=True):
        if retention is not None:
            row = sparsest_keeping(run, "generalization", retention)
        else:
            kept = run[run["stage"] == stage] if stage is not None else run
            kept = kept[kept["num_nonzero_params"] <= budget] if budget is not None else kept
            ordered = kept.sort_values(["num_nonzero_params", "stage"])
            row = None if kept.empty else ordered.iloc[-1]
        if row is not None:
            chosen[str(run_id)] = int(row["stage"])
    return chosen


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
    """Return the mean of `depth_trend` over seeds, with its 95 % Student-t interval."""
    return student_t_interval([depth_trend(table) for table in maps.values()])


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
