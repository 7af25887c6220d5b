"""Landmarks of a smooth fit: the knee of largest curvature, the zero of the second derivative.

The fit is the cubic smoothing spline (Reinsch 1967), natural at its ends, with its smoothness by
generalized cross-validation (Craven & Wahba 1979) in which every degree of freedom costs 1.4, for
plain cross-validation undersmooths at a dozen points (Kim & Gu 2004). Neither landmark has a test:
noise has knees too. `analysis.slope_changepoint` asks whether there is anything to find.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from analysis.slope_changepoint import FloatArray

_SMOOTHNESS = np.logspace(-6, 2, 33)  # of the spline over x scaled to [0, 1]
_COST_OF_FREEDOM = 1.4
_NUM_GRID = 201
_FLAT = 1e-6  # second derivatives below are rounding, on axes scaled to [0, 1]


@dataclass(frozen=True, kw_only=True)
class Smoother:
    """Smoothing splines over one x as linear maps, for any number of curves at once.

    Attributes:
        grid: Shape `(grid,)`: from 0 to 1, x scaled.
        hats: Shape `(smoothness, points, points)`: y to fitted values, by smoothness.
        value: Shape `(grid, points)`: fitted values to the spline on the grid.
        first: Shape `(grid, points)`: to its first derivative.
        second: Shape `(grid, points)`: to its second derivative.
    """

    grid: FloatArray
    hats: FloatArray
    value: FloatArray
    first: FloatArray
    second: FloatArray

    def fit(self, y: FloatArray) -> FloatArray:
        """Return fitted values `(points, curves)` of `y`, each curve with its own smoothness."""
        points = len(y)
        freedom = np.trace(self.hats, axis1=1, axis2=2)
        fitted = self.hats @ y
        squares = ((y - fitted) ** 2).sum(axis=1)
        penalty = np.maximum(points - _COST_OF_FREEDOM * freedom, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.where(penalty[:, None] > 0, squares / penalty[:, None] ** 2, np.inf)
        return np.take_along_axis(fitted, score.argmin(axis=0)[None, None], axis=0)[0]


def smoother(x: FloatArray) -> Smoother:
    """Return the smoothing splines over `x`, rising, with at least four points."""
    scaled = (x - x[0]) / (x[-1] - x[0])
    unit = CubicSpline(scaled, np.eye(len(x)), bc_type="natural")
    knots = unit(scaled, 2)  # the second derivative is linear between them
    gaps = np.diff(scaled)
    mass = np.diag(np.r_[gaps, 0.0] + np.r_[0.0, gaps]) / 3
    mass += (np.diag(gaps, 1) + np.diag(gaps, -1)) / 6
    roughness = knots.T @ mass @ knots  # integral of the squared second derivative
    grid = np.linspace(0.0, 1.0, _NUM_GRID)
    penalised = np.eye(len(x)) + _SMOOTHNESS[:, None, None] * roughness
    hats = np.linalg.inv(penalised).astype(np.float64)
    return Smoother(
        grid=grid, hats=hats, value=unit(grid), first=unit(grid, 1), second=unit(grid, 2)
    )


def knees(maps: Smoother, fitted: FloatArray) -> FloatArray:
    """Return where curves `(points, curves)` bend down most, on [0, 1]; NaN where none does.

    Curvature depends on the axes: both are scaled to [0, 1] (Satopää et al. 2011), y by the range
    of the fit.
    """
    spline = maps.value @ fitted
    span = np.ptp(spline, axis=0)
    scale = 1 / np.where(span > 0, span, 1.0)
    first, second = (d @ fitted * scale for d in (maps.first, maps.second))
    bend = -second / (1 + first**2) ** 1.5
    best = bend.argmax(axis=0)
    found = (np.take_along_axis(bend, best[None], axis=0)[0] > _FLAT) & (best > 0)
    return np.where(found & (best < len(maps.grid) - 1), maps.grid[best], np.nan)


def inflections(maps: Smoother, fitted: FloatArray) -> FloatArray:
    """Return where curves `(points, curves)` are steepest inside, on [0, 1]; NaN where nowhere.

    There the second derivative changes from + to - as x rises: the inflection of a sigmoid. Of
    several, the steepest.
    """
    span = np.ptp(maps.value @ fitted, axis=0)
    second = (maps.second @ fitted) / np.where(span > 0, span, 1.0)
    first = maps.first @ fitted
    crosses = (second[:-1] > 0) & (second[1:] <= 0) & (np.abs(second).max(axis=0) > _FLAT)
    crosses[0] = False  # natural ends: the second derivative starts at 0 whatever the curve
    crosses[-1] = False
    at = np.where(crosses, first[:-1], -np.inf).argmax(axis=0)
    before, after = (np.take_along_axis(second, (at + k)[None], axis=0)[0] for k in (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        zero = maps.grid[at] + before / (before - after) * maps.grid[1]
    return np.where(crosses.any(axis=0), zero, np.nan)


def landmarks(x: FloatArray, curves: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return knee and inflection of curves over one x; see `find_max_curvature_knee`.

    Args:
        x: Shape `(points,)`: log10 of non-zero parameters, rising; at least four.
        curves: Shape `(points, curves)`.
    """
    maps = smoother(x)
    fitted = maps.fit(curves)
    low, span = float(x[0]), float(x[-1] - x[0])
    return low + span * knees(maps, fitted), low + span * inflections(maps, fitted)


def find_max_curvature_knee(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the log10 of non-zero parameters at which a smooth fit of one curve bends down most.

    NaN where it bends down nowhere inside.

    Args:
        x: log10 of non-zero parameters, distinct, in any order; at least four.
        y: Values of the curve there.
    """
    return float(landmarks(*_sorted(x, y))[0][0])


def find_inflection(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the log10 of non-zero parameters at which the second derivative of a fit is 0.

    The steepest such point at which the slope of the smooth fit has a maximum; NaN without any.

    Args:
        x: log10 of non-zero parameters, distinct, in any order; at least four.
        y: Values of the curve there.
    """
    return float(landmarks(*_sorted(x, y))[1][0])


def _sorted(x: Sequence[float], y: Sequence[float]) -> tuple[FloatArray, FloatArray]:
    order = np.argsort(np.asarray(x, dtype=float), kind="stable")
    xs, ys = (np.asarray(values, dtype=float)[order] for values in (x, y))
    if len(xs) < 4 or not (np.diff(xs) > 0).all() or not np.isfinite(ys).all():
        raise ValueError("`x` and `y` must hold at least four distinct, finite points.")
    return xs, ys[:, None]
