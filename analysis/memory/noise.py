# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""Label noise as a probe: what is only memorised is known, and so where it is forgotten."""

import numpy as np
import pandas as pd

from analysis.compressibility import fewest_params, retention_points
from analysis.intervals import Interval, student_t_interval
from analysis.load import FLOOR, KEYS, PATH
from analysis.memory.examples import require_classes
from analysis.slope_changepoint import FloatArray
from sorakit.metric_names import GENERALIZATION_SPLIT, MEMORIZATION_SPLIT

CLEAN = "clean train"
FITTED = "noisy train, wrong label"
RETURNED = "noisy train, true label"
VALIDATION = "validation"
CURVES = (CLEAN, FITTED, RETURNED, VALIDATION)

NOISE_SHARE = 0.5
"""Share of the noise that is kept at d50: half of what the dense adapter fits beyond the floor."""
VALIDATION_SHARE = 0.9
"""Share of the gain in validation that is kept at d90."""


def noise_curves(examples: pd.DataFrame) -> pd.DataFrame:
    """Return the four curves of every run with label noise, a row a (run, stage, curve).

    `clean train`: share of the clean training examples that are right. `noisy train, wrong label`:
    share of the noisy ones that are given their wrong label, which nothing but memory can do.
    `noisy train, true label`: share of them that are given the label before the noise.
    `validation`: accuracy. Columns: what names the run and stage, `curve`, `value`, `count`.

    Args:
        examples: Rows of `example_table`.

    Raises:
        ValueError: If no run has noisy examples, or a task has no classes.
    """
    with_noise = examples.loc[examples["is_noisy"].astype(bool), "run_id"].unique()
    if not len(with_noise):
        raise ValueError(
            "`RUNS` must hold a run with label noise, got none. Run with `task.label_noise`."
        )
    own = examples[examples["run_id"].isin(with_noise)]
    require_classes(own)
    trained = own["split"] == MEMORIZATION_SPLIT
    noisy = own["is_noisy"].astype(bool)
    right = own["correct"].astype(float)
    returned = (own["prediction"] == own["clean_label"]).astype(float)
    members = {
        CLEAN: (trained & ~noisy, right),
        FITTED: (trained & noisy, right),
        RETURNED: (trained & noisy, returned),
        VALIDATION: (own["split"] == GENERALIZATION_SPLIT, right),
    }
    names = [*KEYS, "seed", "run_id", "role", "stage", "num_nonzero_params"]
    parts: list[pd.DataFrame] = []
    for curve, (chosen, values) in members.items():
        grouped = own[chosen].assign(value=values[chosen]).groupby(names, sort=False)["value"]
        part = grouped.agg(["mean", "size"]).reset_index()
        parts.append(part.rename(columns={"mean": "value", "size": "count"}).assign(curve=curve))
    order = {curve: place for place, curve in enumerate(CURVES)}
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(
        ["run_id", "stage", "curve"], key=lambda c: c.map(order) if c.name == "curve" else c
    ).reset_index(drop=True)


def noise_forgetting(curves: pd.DataFrame) -> pd.DataFrame:
    """Return where the noise of every path is forgotten, and what validation does there.

    Columns: identity, `fitted_dense`, `fitted_floor`, `noise_d50`: fewest parameters that keep half
    of the wrong labels fitted beyond the floor; `validation_d90`: fewest that keep 90 % of the gain
    in validation; `ratio`: noise_d50 / validation_d90, above 1 where noise goes first;
    `validation_dense`, `validation_at_d50`: at the stage nearest to noise_d50 in log, and `rise`,
    their difference. NaN where the seed has no floor, or dense is not above it.

    Args:
        curves: Rows of `noise_curves`.
    """
    floors = {
        (*_dataset(rows), int(rows["seed"].iloc[0]), str(rows["curve"].iloc[0])): float(
            rows["value"].iloc[0]
        )
        for _, rows in curves[curves["role"] == FLOOR].groupby(["run_id", "curve"])
    }
    found: list[dict[str, object]] = []
    for run_id, run in curves[curves["role"] == PATH].groupby("run_id", sort=True):
        by_curve = {str(name): rows.sort_values("stage") for name, rows in run.groupby("curve")}
        noise, validation = by_curve[FITTED], by_curve[VALIDATION]
        seed = int(run["seed"].iloc[0])
        of_floor = {
            curve: floors.get((*_dataset(run), seed, curve), float("nan"))
            for curve in (FITTED, VALIDATION)
        }
        half = _fewest(noise, of_floor[FITTED], NOISE_SHARE)
        most = _fewest(validation, of_floor[VALIDATION], VALIDATION_SHARE)
        dense = float(validation["value"].iloc[0])
        there = _nearest(validation, half)
        found.append(
            {
                **{key: run[key].iloc[0] for key in KEYS},
                "seed": seed,
                "run_id": run_id,
                "fitted_dense": float(noise["value"].iloc[0]),
                "fitted_floor": of_floor[FITTED],
                "noise_d50": half,
                "validation_d90": most,
                "ratio": half / most if most > 0 else float("nan"),
                "validation_dense": dense,
                "validation_at_d50": there,
                "rise": there - dense,
            }
        )
    return pd.DataFrame(found)


def noise_summary(forgetting: pd.DataFrame) -> pd.DataFrame:
    """Return one row a dataset: means over seeds with 95 % Student-t intervals.

    Of `noise_d50`, `validation_d90` and `ratio` geometric ones, of `rise` an arithmetic one.
    """
    rows: list[dict[str, object]] = []
    for names, block in forgetting.groupby(KEYS, sort=True):
        row: dict[str, object] = dict(zip(KEYS, names, strict=True))
        row["seeds"] = int(block["run_id"].nunique())
        for name in ("noise_d50", "validation_d90", "ratio"):
            logs = np.log10(block[name].where(block[name] > 0).to_numpy(dtype=float))
            row |= _ends(name, student_t_interval(logs.tolist()), power=True)
        row |= _ends("rise", student_t_interval(block["rise"].tolist()), power=False)
        rows.append(row)
    return pd.DataFrame(rows)


def _ends(name: str, interval: Interval, *, power: bool) -> dict[str, float]:
    ends = {
        name: interval.mean,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
        f"{name}_count": interval.count,
    }
    if not power:
        return ends
    return {key: value if key.endswith("_count") else 10.0**value for key, value in ends.items()}


def _dataset(rows: pd.DataFrame) -> tuple[object, ...]:
    return tuple(rows[key].iloc[0] for key in ("task", "backbone", "setting"))


def _fewest(rows: pd.DataFrame, floor: float, share: float) -> float:
    points = retention_points(rows)
    values = rows["value"].to_numpy(dtype=float)
    gain = values[0] - floor
    if not gain > 0:
        return float("nan")
    kept: FloatArray = (values - floor) / gain
    return float(fewest_params(points, kept, [share])[0])


def _nearest(rows: pd.DataFrame, count: float) -> float:
    counts = rows["num_nonzero_params"].to_numpy(dtype=float)
    if not count > 0:
        return float("nan")
    distance = np.abs(np.log10(np.where(counts > 0, counts, np.nan)) - np.log10(count))
    if np.isnan(distance).all():
        return float("nan")
    return float(rows["value"].to_numpy(dtype=float)[int(np.nanargmin(distance))])
