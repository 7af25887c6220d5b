"""A path as a curve over log10 of its parameters, and the grid on which curves are averaged.

`analysis` and the mirror in W&B both read curves here, so a mean in W&B is that of `analysis`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Values = npt.NDArray[np.float64]

LOG10_SHARES = (0.0, *(-tenth / 10 for tenth in range(1, 31)))
"""The grid: log10 of shares of the full adapter's parameters, from all to a thousandth.

Evenly spaced, so that the buckets into which W&B divides an x axis never hold two of its points.
"""


def curve_points(run: pd.DataFrame, column: str) -> tuple[Values, Values]:
    """Return log10 of the distinct non-zero counts of one run, rising, and the mean of `column`.

    A stage without parameters has no logarithm and is left out; a missing value makes its point
    NaN.

    Args:
        run: Stages of one run.
        column: Column of `run`.
    """
    counts = run["num_nonzero_params"].to_numpy(dtype=float)
    values = run[column].to_numpy(dtype=float)
    distinct, index = np.unique(counts[counts > 0], return_inverse=True)
    sums = np.bincount(index, weights=values[counts > 0], minlength=len(distinct))
    return np.log10(distinct), sums / np.bincount(index, minlength=len(distinct))


def values_at(run: pd.DataFrame, column: str, counts: Sequence[float]) -> Values:
    """Return `column` of one run at `counts`, on straight lines between its points in log10.

    NaN outside of what was measured: nothing is extrapolated.

    Args:
        run: Stages of one run.
        column: Column of `run`.
        counts: Non-zero parameters, > 0.
    """
    x, y = curve_points(run, column)
    if not len(x):
        return np.full(len(counts), np.nan)
    # an end of the curve, written as a count, must not fall out of it by rounding
    at = np.log10(np.asarray(counts, dtype=float))
    at = np.where(np.isclose(at, x[0], rtol=0, atol=1e-9), x[0], at)
    at = np.where(np.isclose(at, x[-1], rtol=0, atol=1e-9), x[-1], at)
    return np.interp(at, x, y, left=np.nan, right=np.nan)


def values_on_grid(run: pd.DataFrame, column: str) -> Values:
    """Return `column` of one run at every share of `LOG10_SHARES`; NaN where it was not measured.

    Args:
        run: Stages of one run, with `num_adapter_params`: the full adapter, all ranks of it.
        column: Column of `run`.
    """
    full = float(run["num_adapter_params"].max())
    return values_at(run, column, [full * 10**share for share in LOG10_SHARES])
