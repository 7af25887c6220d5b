"""Inflections of many runs: one row a run and score, one row a dataset and score."""

from collections import Counter

import numpy as np
import pandas as pd

from analysis.curves import SCORES
from analysis.intervals import fisher_p_value, student_t_interval
from analysis.load import KEYS, PATH
from analysis.slope_changepoint import ALPHA, MIN_POINTS, find_slope_changepoint
from analysis.smooth import landmarks
from sorakit.curve_grid import curve_points


def inflections_by_seed(stages: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (path run, score): shape, test and landmarks of its curve.

    Positions are log10 of non-zero parameters. A curve with fewer than `MIN_POINTS` distinct counts
    has `num_points` and nothing else. Shape and test of a score, of its percent of dense and of its
    gain are the same: they differ by scale and offset.
    """
    rows: list[dict[str, object]] = []
    for _, run in stages[stages["role"] == PATH].groupby("run_id", sort=True):
        identity = {key: run[key].iloc[0] for key in [*KEYS, "seed", "run_id"]}
        points = {score: curve_points(run, score) for score in SCORES}
        x = points[SCORES[0]][0]  # that of every score
        smooth = (
            landmarks(x, np.stack([y for _, y in points.values()], axis=1))
            if len(x) >= MIN_POINTS
            else ()
        )
        for index, (score, (_, y)) in enumerate(points.items()):
            row: dict[str, object] = {**identity, "score": score, "num_points": len(x)}
            if len(x) >= MIN_POINTS:
                found = find_slope_changepoint(x, y)
                row |= {
                    "p_value": found.p_value,
                    "shape": found.shape,
                    "detected": found.detected,
                    "drop": found.drop,
                    "drop_low": found.low,
                    "drop_high": found.high,
                    "low_is_open": found.low_is_open,
                    "high_is_open": found.high_is_open,
                    "levelling": found.levelling,
                }
                names = ("max_curvature_knee", "second_derivative_zero")
                row |= {n: float(v[index]) for n, v in zip(names, smooth, strict=True)}
            rows.append(row)
    columns = [
        *KEYS, "seed", "run_id", "score", "num_points", "p_value", "shape", "detected", "drop",
        "drop_low", "drop_high", "low_is_open", "high_is_open", "levelling", "max_curvature_knee",
        "second_derivative_zero",
    ]  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=columns)


def inflections_by_dataset(by_seed: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (dataset, score): whether its curves drop, and where.

    The p value is Fisher's over the seeds; the dataset has an inflection if it is at most 0.05 and
    most of its seeds have a shape with a drop. The interval is Student's over the drops of all
    seeds: that of the detected ones alone covers less (`experiments/inflection_validation.py`). One
    seed has the interval of its own profile.

    Args:
        by_seed: What `inflections_by_seed` returns.
    """
    rows: list[dict[str, object]] = []
    for names, group in by_seed.groupby([*KEYS, "score"], sort=True, dropna=False):
        known = group[group["p_value"].notna()]
        p_value = fisher_p_value(known["p_value"].tolist())
        with_drop = int((known["shape"] != "levelling").sum())
        drop = student_t_interval(known["drop"].tolist())
        low, high = drop.low, drop.high
        if len(known) == 1:
            low, high = (float(known[name].iloc[0]) for name in ("drop_low", "drop_high"))
        shapes = Counter(known["shape"])
        rows.append(
            {
                **dict(zip([*KEYS, "score"], names, strict=True)),
                "seeds": len(group),
                "seeds_tested": len(known),
                "seeds_detected": int((known["detected"] == True).sum()),  # noqa: E712  # may be NA
                "p_value": p_value,
                "detected": p_value <= ALPHA and with_drop > len(known) / 2,
                "shape": shapes.most_common(1)[0][0] if shapes else None,
                "drop": drop.mean,
                "drop_low": low,
                "drop_high": high,
                **{
                    name: _mean(known[name])
                    for name in ("levelling", "max_curvature_knee", "second_derivative_zero")
                },
            }
        )
    return pd.DataFrame(rows)


def _mean(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.astype(float).mean()) if len(known) else float("nan")
