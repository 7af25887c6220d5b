"""How few parameters keep how much: d99, d95, d90, d50, areas and losses, of one run.

Shares are of the dense score (the paper's axis) or of the gain, score - floor over dense - floor:
a share of the score that the floor reaches by itself needs no adapter, a share of the gain does.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from analysis.curves import SCORES, SHARES, area_under_curve
from analysis.inflection import FloatArray
from analysis.load import PATH, SEED_KEYS

Reference = Literal["dense", "gain"]
REFERENCES: tuple[Reference, ...] = ("dense", "gain")

_ROUNDING = 1e-12  # 0.9 * 0.8 comes out above the score 0.72


@dataclass(frozen=True, kw_only=True)
class RetentionPoints:
    """The distinct counts of one run and which stages belong to them.

    Attributes:
        counts: Shape `(points,)`, rising; 0 may be among them.
        weights: Shape `(points,)`: stages of each count.
        averages: Shape `(stages, points)`: means over the stages of a count.
    """

    counts: FloatArray
    weights: FloatArray
    averages: FloatArray


def retention_points(run: pd.DataFrame) -> RetentionPoints:
    """Return the distinct counts of the stages of one run, in their order in `run`."""
    counts, index = np.unique(
        run["num_nonzero_params"].to_numpy(dtype=float), return_inverse=True
    )
    member = (index[:, None] == np.arange(len(counts))).astype(float)
    weights = member.sum(axis=0)
    return RetentionPoints(counts=counts, weights=weights, averages=member / weights)


def fewest_params(points: RetentionPoints, retained: FloatArray, share: float) -> float:
    """Return the fewest non-zero parameters that keep `share`, from an isotonic fit.

    The fit rises with the number of parameters (least squares, each count weighted by its stages);
    between two counts it is a straight line in log10. Where even the sparsest adapter keeps the
    share and none at all was not measured, or does not, that adapter's count is the answer: an
    upper bound. The dense stage keeps everything by definition, also where the fit is below.

    Args:
        points: Points of the run.
        retained: Shape `(stages,)`: share of the reference kept by each stage.
        share: Share to keep, in (0, 1].

    Returns:
        A count; 0 where no adapter is needed; NaN where a value is missing.
    """
    if np.isnan(retained).any():
        return float("nan")
    fit = isotonic_regression(retained @ points.averages, weights=points.weights).x
    keeps = fit >= share * (1 - _ROUNDING)
    if not keeps.any():
        return float(points.counts[-1])
    first = int(keeps.argmax())
    if first == 0 or points.counts[first - 1] == 0:
        return float(points.counts[first])
    below, above = np.log10(points.counts[first - 1]), np.log10(points.counts[first])
    step = (share - fit[first - 1]) / (fit[first] - fit[first - 1])
    return float(10 ** (below + min(1.0, step) * (above - below)))


def fewest_params_measured(points: RetentionPoints, retained: FloatArray, share: float) -> float:
    """Return the smallest count of a stage that keeps `share`, as measured."""
    if np.isnan(retained).any():
        return float("nan")
    best = np.array([retained[column > 0].max() for column in points.averages.T])
    keeps = best >= share * (1 - _ROUNDING)
    return float(points.counts[keeps.argmax()]) if keeps.any() else float("nan")


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
        identity = {key: run[key].iloc[0] for key in [*SEED_KEYS, "run_id"]}
        points = retention_points(run)
        smallest = points.counts[points.counts > 0].min(initial=np.inf)
        dense = run.loc[run["stage"] == 0, "num_nonzero_params"]
        for score in SCORES:
            for reference in REFERENCES:
                kept = retained(run, score, reference)
                area = area_under_curve(run.assign(retained=kept), "retained")
                row: dict[str, object] = {
                    **identity,
                    "score": score,
                    "reference": reference,
                    "dense_params": float(dense.iloc[0]) if len(dense) else float("nan"),
                    "area": area,
                    "compression_loss": 1 - area,
                }
                for name, share in SHARES.items():
                    fewest = fewest_params(points, kept, share)
                    row[name] = fewest
                    row[f"{name}_measured"] = fewest_params_measured(points, kept, share)
                    row[f"{name}_is_bound"] = fewest == smallest
                rows.append(row)
    return pd.DataFrame(rows)
