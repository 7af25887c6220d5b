"""How few parameters keep how much: d99, d95, d90, d50, areas and losses, of one run.

Shares are of the dense score (the paper's axis) or of the gain, score - floor over dense - floor:
a share of the score that the floor reaches by itself needs no adapter, a share of the gain does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from analysis.curves import SCORES, SHARES, area_weights
from analysis.load import KEYS, PATH
from analysis.slope_changepoint import FloatArray
from sorakit.retention import ROUNDING

Reference = Literal["dense", "gain"]
REFERENCES: tuple[Reference, ...] = ("dense", "gain")


@dataclass(frozen=True, kw_only=True)
class RetentionPoints:
    """The distinct counts of one run and which stages belong to them.

    Attributes:
        counts: Shape `(points,)`, rising; 0 may be among them.
        weights: Shape `(points,)`: stages of each count.
        averages: Shape `(stages, points)`: means over the stages of a count.
        dense: Count of the dense stage; NaN without one.
    """

    counts: FloatArray
    weights: FloatArray
    averages: FloatArray
    dense: float


def retention_points(run: pd.DataFrame) -> RetentionPoints:
    """Return the distinct counts of the stages of one run, in their order in `run`."""
    counts, index = np.unique(run["num_nonzero_params"].to_numpy(dtype=float), return_inverse=True)
    member = (index[:, None] == np.arange(len(counts))).astype(float)
    weights = member.sum(axis=0)
    dense = run.loc[run["stage"] == 0, "num_nonzero_params"]
    return RetentionPoints(
        counts=counts,
        weights=weights,
        averages=member / weights,
        dense=float(dense.iloc[0]) if len(dense) else float("nan"),
    )


def fewest_params(
    points: RetentionPoints, retained: FloatArray, shares: Sequence[float]
) -> FloatArray:
    """Return the fewest non-zero parameters that keep each of `shares`, from an isotonic fit.

    The fit rises with the number of parameters (least squares, each count weighted by its stages);
    between two counts it is a straight line in log10. Where even the sparsest adapter keeps the
    share and none at all was not measured, or does not, that adapter's count is the answer: an
    upper bound. The dense stage keeps everything by definition, also where the fit is below.

    Args:
        points: Points of the run.
        retained: Shape `(stages,)`: share of the reference kept by each stage.
        shares: Shares to keep, in (0, 1].

    Returns:
        Counts, one a share; 0 where no adapter is needed; NaN where a value is missing.
    """
    if np.isnan(retained).any():
        return np.full(len(shares), np.nan)
    fit = isotonic_regression(retained @ points.averages, weights=points.weights).x
    return _crossings(points.counts, fit, np.asarray(shares, dtype=float))


def fewest_params_measured(points: RetentionPoints, retained: FloatArray, share: float) -> float:
    """Return the smallest count of a stage that keeps `share`, as measured."""
    if np.isnan(retained).any():
        return float("nan")
    best = np.array([retained[column > 0].max() for column in points.averages.T])
    keeps = best >= share * (1 - ROUNDING)
    return float(points.counts[keeps.argmax()]) if keeps.any() else float("nan")


def area_of(points: RetentionPoints, retained: FloatArray) -> FloatArray:
    """Return the area under retention curves, `area_under_curve` for many curves of one run.

    Args:
        points: Points of the run.
        retained: Shape `(..., stages)`.
    """
    alive = points.counts > 0
    if not alive.any():
        return np.full(retained.shape[:-1], np.nan)
    weights = area_weights(np.log10(points.counts[alive]), points.dense)
    return np.asarray((retained @ points.averages[:, alive]) @ weights)


def _crossings(counts: FloatArray, fit: FloatArray, shares: FloatArray) -> FloatArray:
    keeps = fit >= (shares * (1 - ROUNDING))[:, None]
    first = np.where(keeps.any(axis=1), keeps.argmax(axis=1), len(counts) - 1)
    before = np.maximum(first - 1, 0)
    # left of the first count, and of the first above 0, there is nothing to interpolate with
    between = keeps.any(axis=1) & (first > 0) & (counts[before] > 0)
    answer = counts[first]
    at, left, share = first[between], before[between], shares[between]
    below, above = np.log10(counts[left]), np.log10(counts[at])
    step = np.minimum(1.0, (share - fit[left]) / (fit[at] - fit[left]))
    answer[between] = 10 ** (below + step * (above - below))
    return answer


def retained(run: pd.DataFrame, score: str, reference: Reference) -> FloatArray:
    """Return the share of the reference that each stage of one run keeps, `(stages,)`.

    NaN where the reference is not positive or not known.

    Args:
        run: Stages of one run, with the columns of `with_gain_retained`.
        score: memorization or generalization.
        reference: dense or gain.
    """
    if reference == "gain":
        return run[f"{score}_gain_retained"].to_numpy(dtype=float)
    dense = run[f"{score}_dense"].to_numpy(dtype=float)
    return run[score].to_numpy(dtype=float) / np.where(dense > 0, dense, np.nan)


def compressibility(stages: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (path run, score, reference).

    Columns: identity, `dense_params`, for every share `d90` (isotonic), `d90_measured` and
    `d90_is_bound` (the sparsest adapter measured keeps it still: the true number may be smaller),
    `area` (mean share retained over log10 of the count from dense to 1 % of it) and
    `compression_loss` (1 - area: what is lost on average down to there).

    Args:
        stages: Stage table with the columns of `with_gain_retained`.
    """
    rows: list[dict[str, object]] = []
    for _, run in stages[stages["role"] == PATH].groupby("run_id", sort=True):
        identity = {key: run[key].iloc[0] for key in [*KEYS, "seed", "run_id"]}
        points = retention_points(run)
        smallest = points.counts[points.counts > 0].min(initial=np.inf)
        for score in SCORES:
            for reference in REFERENCES:
                kept = retained(run, score, reference)
                area = area_of(points, kept)
                row: dict[str, object] = {
                    **identity,
                    "score": score,
                    "reference": reference,
                    "dense_params": points.dense,
                    "area": float(area),
                    "compression_loss": 1 - float(area),
                }
                counts = fewest_params(points, kept, list(SHARES.values()))
                for (name, share), fewest in zip(SHARES.items(), counts.tolist(), strict=True):
                    row[name] = fewest
                    row[f"{name}_measured"] = fewest_params_measured(points, kept, share)
                    row[f"{name}_is_bound"] = fewest == smallest
                rows.append(row)
    return pd.DataFrame(rows)
