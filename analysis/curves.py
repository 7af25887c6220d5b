"""Pure functions on stage tables: floors, gain retained, curves over seeds, spacing of counts."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.intervals import student_t_interval
from analysis.load import FLOOR, HOLD_DENSE, KEYS, PATH, SEED_KEYS
from sorakit import metric_names
from sorakit.curve_grid import LOG10_SHARES, curve_points, values_at, values_on_grid
from sorakit.records.matching import id_column
from sorakit.retention import gain_retained, sparsest_keeping

SCORES = [*metric_names.SCORES]  # a list, to select columns with
SHARES = {**metric_names.SHARES, "d50": 0.50}
"""Column suffix -> share of the dense score that must be kept."""
BANDS = [(100, 50), (50, 20), (20, 5), (5, 1)]
"""Upper and lower edge in percent of the dense count; a band holds its upper edge."""


@dataclass(frozen=True, kw_only=True)
class CountSpacing:
    """How densely the stages of one path sample the number of parameters.

    Attributes:
        bands: Band ("100-50", in percent of the dense count) -> number of distinct non-zero counts
            in it.
        largest_ratio: Largest ratio of neighbouring distinct counts whose larger one lies above 1 %
            of the dense count (so the jump across 1 % counts in full); NaN if there is no such
            pair.
        smallest_percent: Smallest non-zero count in percent of the dense count; NaN if there is
            none.
    """

    bands: dict[str, int]
    largest_ratio: float
    smallest_percent: float


def floor_scores(stages: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (dataset, seed, `floor_id`): the scores with no adapter (head_only).

    Raises:
        ValueError: If two floor runs of one seed disagree.
    """
    rows = stages[(stages["role"] == FLOOR) & (stages["stage"] == 0)]
    return _one_a_seed(rows, FLOOR)


def hold_dense_scores(stages: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (dataset, seed, `dense_id`): the last scores of the hold_dense control.

    Raises:
        ValueError: If two hold_dense runs of one seed disagree.
    """
    rows = stages[stages["role"] == HOLD_DENSE].sort_values("stage")
    return _one_a_seed(rows.drop_duplicates("run_id", keep="last"), HOLD_DENSE)


def with_gain_retained(stages: pd.DataFrame) -> pd.DataFrame:
    """Add `<score>_floor`, `<score>_dense` and `<score>_gain_retained`, sorted along each curve.

    Gain retained = (score - floor) / (dense - floor): 1 is dense, 0 is the floor. It is NaN where
    dense - floor is not positive, where the seed has no floor run, and for floor runs themselves.
    Percent of dense stands in the table already (`<score>_percent`, written with the stage).
    Each curve is ordered by `num_nonzero_params`, rising.
    """
    table = stages.merge(
        floor_scores(stages), on=[*SEED_KEYS, "floor_id"], how="left", validate="many_to_one"
    )
    dense = stages[stages["stage"] == 0].set_index("run_id")
    for score in SCORES:
        table[f"{score}_dense"] = table["run_id"].map(dense[score])
        columns = (score, f"{score}_dense", f"{score}_floor")
        own, of_dense, of_floor = (table[name].to_numpy(dtype=float) for name in columns)
        retained = gain_retained(own, dense=of_dense, floor=of_floor)
        table[f"{score}_gain_retained"] = np.where(table["role"] == FLOOR, np.nan, retained)
    order = [*SEED_KEYS, "role", "run_id", "num_nonzero_params"]
    return table.sort_values([*order, "stage"], ignore_index=True)


def summary(stages: pd.DataFrame) -> pd.DataFrame:
    """Return one row a path run, by dataset, variant and seed.

    Columns: `num_stages` (after the dense one), `dense_params`, and for memorization and
    generalization `<score>_dense`, `<score>_floor`, `<score>_hold_dense` and `<score>_d99`, `_d95`,
    `_d90`, `_d50`: the fewest non-zero parameters that keep this percentage of dense, as measured.
    What does not exist is NaN or <NA>.
    """
    paths = stages[stages["role"] == PATH]
    order = [*KEYS, "seed", "run_id"]
    rows = [_summarise(run) for _, run in paths.groupby(order, sort=True)]
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    for role, reference in (
        (FLOOR, floor_scores(stages)),
        (HOLD_DENSE, hold_dense_scores(stages)),
    ):
        keys = [*SEED_KEYS, id_column(role)]
        table = table.merge(reference, on=keys, how="left", validate="many_to_one")
    counts = ["dense_params", *(f"{score}_{column}" for score in SCORES for column in SHARES)]
    return table.astype(dict.fromkeys(counts, "Int64"))


def count_spacing(counts: Iterable[int], dense: int) -> CountSpacing:
    """Measure how densely `counts` sample the range from `dense` down to 1 % of it.

    Args:
        counts: Non-zero parameters of the stages, in any order, zeros and repetitions allowed.
        dense: Count of the dense stage. Must be > 0.

    Raises:
        ValueError: If `dense` is not positive.
    """
    if not dense > 0:
        raise ValueError(f"`dense` must be > 0, got {dense}.")
    distinct = np.array(sorted({int(count) for count in counts if count > 0}, reverse=True))
    bands = {
        f"{upper}-{lower}": sum(lower * dense < 100 * n <= upper * dense for n in distinct.tolist())
        for upper, lower in BANDS
    }
    pairs = zip(distinct[:-1].tolist(), distinct[1:].tolist(), strict=True)
    ratios = [larger / smaller for larger, smaller in pairs if 100 * larger > dense]
    return CountSpacing(
        bands=bands,
        largest_ratio=max(ratios, default=float("nan")),
        smallest_percent=100 * int(distinct[-1]) / dense if len(distinct) else float("nan"),
    )


def flickering_stages(
    path: pd.DataFrame, *, column: str = "gates_flickering", share: float = 0.05
) -> tuple[int, int]:
    """Return how many sparsifying stages of one run ended unsettled, and how many there are.

    Unsettled: more than `share` of the gates that were ever alive at a stage's end changed their
    zero status in its last pass. A gate that died there counts as much as one that came and went.

    Args:
        path: Stages of one run.
        column: gates_flickering, or gates_revived for those that came back from zero alone.
        share: Share of the gates.
    """
    sparse = path[path["stage"] > 0]
    unsettled = sparse[column].astype(float) > share * path["num_nonzero_gates"].max()
    return int(unsettled.sum()), len(sparse)


def area_under_curve(path: pd.DataFrame, column: str, *, down_to: float = 0.01) -> float:
    """Return the mean of `column` over log10 of non-zero parameters, from dense to a share of it.

    Points with one count are averaged, neighbours are joined by straight lines (trapezoids).

    Args:
        path: Stages of one run, the dense one among them.
        column: Column of `path`, for example memorization_gain_retained.
        down_to: Lower end, as a share of the dense count, in (0, 1).

    Returns:
        1 for gain retained means that nothing is lost down to there; NaN where the run does not
        reach that far, has no dense stage, or a value is missing: nothing is extrapolated.

    Raises:
        ValueError: If `down_to` is out of range.
    """
    if not 0 < down_to < 1:
        raise ValueError(f"`down_to` must be in (0, 1), got {down_to}.")
    dense = path.loc[path["stage"] == 0, "num_nonzero_params"]
    x, y = curve_points(path, column)
    if dense.empty or not len(x):
        return float("nan")
    return float(area_weights(x, float(dense.iloc[0]), down_to=down_to) @ y)


def area_weights(x: np.ndarray, dense: float, *, down_to: float = 0.01) -> np.ndarray:
    """Return the weight of each point of a curve in `area_under_curve`, `(points,)`.

    NaN where the points do not reach down that far.

    Args:
        x: log10 of distinct non-zero counts, rising.
        dense: Count of the dense stage.
        down_to: Lower end, as a share of `dense`.
    """
    high = float(np.log10(dense))
    low = high + float(np.log10(down_to))
    if 10 ** x[0] > down_to * dense:
        return np.full(len(x), np.nan)
    grid = np.union1d(x[(x > low) & (x < high)], [low, high])
    gaps = np.diff(grid)
    trapezoid = (np.r_[gaps, 0.0] + np.r_[0.0, gaps]) / 2
    joined = np.stack([np.interp(grid, x, unit) for unit in np.eye(len(x))])
    return joined @ trapezoid / (high - low)


def with_gap(stages: pd.DataFrame) -> pd.DataFrame:
    """Add `gap` and `loss_gap`: memorization - generalization, and the losses the other way round.

    Both are 0 where held-out examples fare as well as training examples, and grow with what was
    only memorised.
    """
    return stages.assign(
        gap=stages["memorization"] - stages["generalization"],
        loss_gap=stages["generalization_loss"] - stages["memorization_loss"],
    )


def seed_curves(stages: pd.DataFrame, column: str, *, num_points: int = 40) -> pd.DataFrame:
    """Return `column` of every run of `stages` on one log grid, a row a (point, run).

    The grid covers what every run covers, so every run has a value everywhere.

    Args:
        stages: Path runs of one dataset, one a seed, with `column`; see `with_gain_retained` and
            `with_gap`.
        column: memorization, generalization, gap, or their percent, gain retained and losses.
        num_points: Points of the grid, evenly spaced in log10.

    Returns:
        Columns `num_nonzero_params`, `run_id` and `value`; no row if the runs have no range in
        common.
    """
    runs = {str(run_id): run for run_id, run in stages.groupby("run_id", sort=True)}
    ranges = [curve_points(run, column)[0] for run in runs.values()]
    low = max((float(10 ** x[0]) for x in ranges if len(x)), default=1.0)
    high = min((float(10 ** x[-1]) if len(x) else 0.0 for x in ranges), default=0.0)
    if low > high:
        return pd.DataFrame(columns=["num_nonzero_params", "run_id", "value"])
    grid: list[float] = np.geomspace(low, high, num_points).tolist()
    values = np.stack([values_at(run, column, grid) for run in runs.values()])
    return pd.DataFrame(
        {
            "num_nonzero_params": np.repeat(grid, len(runs)),
            "run_id": [*runs] * len(grid),
            "value": values.T.ravel(),
        }
    )


def mean_curve(stages: pd.DataFrame, column: str, *, num_points: int = 40) -> pd.DataFrame:
    """Return the mean of `seed_curves` at every point, with its interval.

    Args:
        stages: Path runs of one dataset, one a seed, with `column`.
        column: As for `seed_curves`.
        num_points: Points of the grid.

    Returns:
        Columns `num_nonzero_params`, `mean`, `low`, `high` (95 % Student-t) and `seeds`; no row if
        the runs have no range in common.
    """
    columns = ["num_nonzero_params", "mean", "low", "high", "seeds"]
    curves = seed_curves(stages, column, num_points=num_points)
    if curves.empty:
        return pd.DataFrame(columns=columns)
    rows: list[list[object]] = []
    for count, point in curves.groupby("num_nonzero_params", sort=False):
        interval = student_t_interval(point["value"].tolist())
        rows.append([count, interval.mean, interval.low, interval.high, interval.count])
    return pd.DataFrame(rows, columns=columns)


def share_curve(stages: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the mean of `column` at fixed shares of the full adapter: what W&B shows too.

    A run counts at every share that it was measured at, so that N may fall towards the small ones.

    Args:
        stages: Path runs of one dataset, one a seed, with `column`; see `with_gain_retained` and
            `with_gap`.
        column: As for `seed_curves`.

    Returns:
        Columns `log10_share`, `mean`, `standard_error` (of the seeds, with N - 1), `low`, `high`
        (95 % Student-t) and `seeds` (N), from all ranks down; without shares that no run reaches.
    """
    values = [values_on_grid(run, column) for _, run in stages.groupby("run_id", sort=True)]
    rows: list[dict[str, object]] = []
    for log10_share, at in zip(LOG10_SHARES, zip(*values, strict=True), strict=True):
        known = [float(value) for value in at if np.isfinite(value)]
        if not known:
            continue
        interval = student_t_interval(known)
        error = np.std(known, ddof=1) / np.sqrt(len(known)) if len(known) > 1 else np.nan
        rows.append(
            {
                "log10_share": log10_share,
                "mean": interval.mean,
                "standard_error": float(error),
                "low": interval.low,
                "high": interval.high,
                "seeds": interval.count,
            }
        )
    columns = ["log10_share", "mean", "standard_error", "low", "high", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def _one_a_seed(rows: pd.DataFrame, role: str) -> pd.DataFrame:
    keys = [*SEED_KEYS, id_column(role)]
    distinct = rows.drop_duplicates([*keys, *SCORES])
    ambiguous = distinct[distinct.duplicated(keys, keep=False)]
    if not ambiguous.empty:
        first = ambiguous.iloc[0]
        same = (ambiguous[keys] == first[keys]).all(axis=1)
        run_ids = ", ".join(ambiguous.loc[same, "run_id"])
        raise ValueError(
            f"`RUNS` must hold one {role} result for {first['task']}, {first['backbone']}, "
            f"seed {first['seed']}, got runs {run_ids} with different scores. "
            "Name only the folders of runs that belong together."
        )
    names = {score: f"{score}_{role}" for score in SCORES}
    columns = distinct[[*keys, *SCORES]].rename(columns=names)
    return columns.sort_values(keys, ignore_index=True)


def _summarise(run: pd.DataFrame) -> dict[str, object]:
    columns = [*SEED_KEYS, "variant", "floor_id", "dense_id", "run_id", "metric"]
    row: dict[str, object] = {key: run[key].iloc[0] for key in columns}
    dense = run[run["stage"] == 0]
    row["num_stages"] = int((run["stage"] > 0).sum())
    row["dense_params"] = dense["num_nonzero_params"].iloc[0] if len(dense) else pd.NA
    for score in SCORES:
        row[f"{score}_dense"] = dense[score].iloc[0] if len(dense) else float("nan")
        for column, share in SHARES.items():
            stage = sparsest_keeping(run, score, share)
            row[f"{score}_{column}"] = pd.NA if stage is None else stage["num_nonzero_params"]
    return row
