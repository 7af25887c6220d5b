"""What the curves of one dataset show, as tables: points, means with intervals, references.

A `curve` is memorization, generalization or their gap; a `measure` is what of it is drawn. Every
table has one row a (role, curve, place) with a column for each measure, NaN where the curve does
not have it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.curves import SCORES, mean_curve
from analysis.intervals import student_t_interval
from analysis.load import FLOOR, HOLD_DENSE
from analysis.value_axis import value_limits
from sorakit.curve_grid import curve_points

MEASURES = {
    "raw": "score",
    "percent": "% of the dense score",
    "gain": "gain retained",
    "loss": "loss",
    "gap": "gap",
}
"""Measure -> its name on the page."""
GAP = "gap"
CURVES = [*SCORES, GAP]


@dataclass(frozen=True, kw_only=True)
class Series:
    """The tables behind the curves of one dataset.

    Attributes:
        points: One row a (run, stage, curve): role, run, place on the path, every measure.
        means: One row a (role, curve, count): `seeds`, and every measure's mean, `_low`, `_high`.
        references: The same for what has no place on the axis of counts: the floor, and the end of
            the hold_dense control.
    """

    points: pd.DataFrame
    means: pd.DataFrame
    references: pd.DataFrame


def series(stages: pd.DataFrame, *, undefined_gains: set[str]) -> Series:
    """Return the tables behind the curves of one dataset.

    Args:
        stages: Stages of its paths, floors and controls, with the columns of `with_gain_retained`
            and `with_gap`.
        undefined_gains: Scores whose gain is not told from 0: their gain retained is NaN.
    """
    floors = stages[(stages["role"] == FLOOR) & (stages["stage"] == 0)]
    held = stages[stages["role"] == HOLD_DENSE].sort_values("stage")
    held = held.drop_duplicates("run_id", keep="last")
    along = stages[~stages["role"].isin([FLOOR, HOLD_DENSE])]
    references = [(FLOOR, _floor_shares(floors, stages)), (HOLD_DENSE, held)]
    tables = Series(
        points=pd.concat([_points(along, curve) for curve in CURVES], ignore_index=True),
        means=_stacked(
            [
                _mean(run, curve).assign(role=role, curve=curve)
                for role, run in along.groupby("role", sort=True)
                for curve in CURVES
            ]
        ),
        references=_stacked(
            [
                _mean_of(rows, curve).assign(role=role, curve=curve)
                for role, rows in references
                if len(rows)
                for curve in CURVES
            ]
        ),
    )
    for table in (tables.points, tables.means, tables.references):
        columns = [column for column in table if str(column).startswith("gain")]
        table.loc[table["curve"].isin(list(undefined_gains)), columns] = np.nan
    return tables


def measure_columns(curve: str) -> dict[str, str]:
    """Return measure -> column of the stage table, for the measures that `curve` has."""
    if curve == GAP:
        return {"gap": "gap"}
    return {
        "raw": curve,
        "percent": f"{curve}_percent",
        "gain": f"{curve}_gain_retained",
        "loss": f"{curve}_loss",
    }


def value_limits_of(tables: Series) -> dict[str, tuple[float, float]]:
    """Return measure -> how far its intervals may stretch the axis; see `value_limits`."""
    limits: dict[str, tuple[float, float]] = {}
    for measure in MEASURES:
        drawn = (tables.points, tables.means, tables.references)
        values = [float(value) for table in drawn for value in table[measure]]
        if any(np.isfinite(values)):
            limits[measure] = value_limits(values)
    return limits


def _points(stages: pd.DataFrame, curve: str) -> pd.DataFrame:
    place = ["role", "run_id", "seed", "stage", "xi", "num_nonzero_params", "num_adapter_params"]
    table = stages[place].assign(curve=curve)
    for measure in MEASURES:
        column = measure_columns(curve).get(measure)
        table[measure] = np.nan if column is None else stages[column].astype(float)
    return table


def _mean(stages: pd.DataFrame, curve: str) -> pd.DataFrame:
    """Return every measure's mean along the path; one run stands for itself, at its own counts."""
    runs = [run for _, run in stages.groupby("run_id", sort=True)]
    table = pd.DataFrame()
    for measure, column in measure_columns(curve).items():
        if len(runs) == 1:
            x, y = curve_points(runs[0], column)
            mean = pd.DataFrame({"num_nonzero_params": 10**x, "mean": y, "seeds": 1})
            mean = mean.assign(low=np.nan, high=np.nan)
        else:
            mean = mean_curve(stages, column)
        table["num_nonzero_params"] = mean["num_nonzero_params"].astype(float)
        table["seeds"] = mean["seeds"]
        table[[measure, f"{measure}_low", f"{measure}_high"]] = mean[["mean", "low", "high"]]
    without = stages[stages["num_nonzero_params"] == 0]
    if without["run_id"].nunique() == len(runs):
        # several stages of a run without any parameter: its first one is on the path
        first = without.sort_values("stage").drop_duplicates("run_id")
        table = pd.concat([_mean_of(first, curve).assign(num_nonzero_params=0.0), table])
    return table


def _mean_of(rows: pd.DataFrame, curve: str) -> pd.DataFrame:
    """Return one row: every measure's mean over `rows`, one a seed, with its interval."""
    row: dict[str, float] = {"num_nonzero_params": np.nan, "seeds": float(len(rows))}
    for measure, column in measure_columns(curve).items():
        interval = student_t_interval(rows[column].astype(float).tolist())
        row |= {
            measure: interval.mean,
            f"{measure}_low": interval.low,
            f"{measure}_high": interval.high,
        }
    return pd.DataFrame([row])


def _floor_shares(floors: pd.DataFrame, stages: pd.DataFrame) -> pd.DataFrame:
    """Return the floors in percent of the dense score of their seed's path; their gain is 0."""
    paths = stages[(stages["role"] == "path") & (stages["stage"] == 0)]
    dense = paths.groupby("seed")[[f"{score}_dense" for score in SCORES]].mean()
    table = floors.drop_duplicates("seed").copy()
    for score in SCORES:
        of_seed = table["seed"].map(dense[f"{score}_dense"])
        table[f"{score}_percent"] = 100 * table[score] / of_seed.where(of_seed > 0)
        table[f"{score}_gain_retained"] = 0.0 * of_seed
    return table


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    columns = ["role", "curve", "num_nonzero_params", "seeds"]
    columns += [f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high")]
    # a table without rows has columns without a type, which would decide that of the others
    filled = [table.reindex(columns=columns) for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=columns)
    return pd.concat([table.astype(dict.fromkeys(columns[2:], float)) for table in filled],
                     ignore_index=True)  # fmt: skip
