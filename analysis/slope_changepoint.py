"""Where a curve begins to drop: broken lines, a test that there is a break at all, an interval.

Over x = log10(non-zero parameters) a score is compared with three shapes, fitted by least squares
with the breaks profiled out; slopes are those of `y = a + s x + c max(0, b - x) + ...`:

    drop        one break, steeper below it (concave)
    levelling   one break, flatter below it (convex)
    sigmoid     both: it drops below one break and levels off below a sparser one

Most curves of this repository are sigmoids: they start on the dense plateau and end on the floor.
One break cannot show that: the two bends cancel in the fit.

Under the straight line the breaks are not identified, so the usual F distribution does not hold for
the best of all breaks (Davies 1987; Andrews 1993; Hansen 1996), and BIC counts parameters that are
not there: both find breaks in straight lines. The sup-F statistic of each shape depends on nothing
but x, the trimming and the correlation of the errors, so its distribution is simulated for the x of
the curve at hand; the three shapes are tested together by the smallest of their p values, whose
distribution comes from the same simulations. The correlation of neighbouring points cannot be
estimated from a dozen of them (the estimate is biased by more than its range), so the p value is
the largest over AR(1) correlations in `AR1_RANGE`: a maximized Monte Carlo test (Dufour 2006), of a
size of at most 5 % for those. `experiments/inflection_validation.py` measures all of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

Shape = Literal["drop", "levelling", "sigmoid"]
FloatArray: TypeAlias = npt.NDArray[np.float64]

SHAPES: tuple[Shape, ...] = ("drop", "levelling", "sigmoid")
AR1_RANGE = (0.0, 0.3, 0.6)
"""Correlations of neighbouring errors at which null distributions are simulated. The records of
this repository agree with 0; above 0.6 the test is no longer protected."""
MIN_POINTS = 8
"""Distinct counts that a curve needs: a sigmoid's six parameters, and two degrees of freedom."""
ALPHA = 0.05
"""Level of the test."""

_NUM_BREAKS = 41  # candidates; the best one is refined between its neighbours
_PAIR_STEP = 3  # pairs of breaks stand on every third candidate
_NUM_NULL = 999  # (k + 1) / 1000: 0.05 is a p value that can be attained exactly
_NUM_INTERVAL = 199
_SEED = 0
_EXACT = 1e-20  # sums of squares below this share of the values' own are rounding


@dataclass(frozen=True, kw_only=True)
class SlopeChangepoint:
    """The shape of one curve: where it drops, and whether that is more than noise.

    Positions are log10 of non-zero parameters, NaN where the shape has no such break.

    Attributes:
        shape: Shape that describes the curve best; meant only where `detected`.
        p_value: Of the straight line, against the three shapes.
        drop: Break below which the curve falls more steeply. Where the shape is levelling, that of
            the best shape with a drop: every curve has an estimate, most have one that means
            something.
        low: Lower end of the 95 % interval of `drop`.
        high: Upper end.
        low_is_open: The interval reaches the sparsest break allowed: it may go on.
        high_is_open: The interval reaches the densest break allowed.
        levelling: Break below which the curve is flatter.
        sup_f: Statistic of each shape.
        num_points: Distinct counts of the curve.
    """

    shape: Shape
    p_value: float
    drop: float
    low: float
    high: float
    low_is_open: bool
    high_is_open: bool
    levelling: float
    sup_f: dict[Shape, float]
    num_points: int

    @property
    def detected(self) -> bool:
        """Whether the curve drops: the straight line is rejected, for a shape with a drop."""
        return self.p_value <= ALPHA and self.shape != "levelling"


@dataclass(frozen=True, kw_only=True)
class Fits:
    """Best fits of every shape to some curves.

    Attributes:
        sup_f: Shape `(shapes, curves)`.
        drop: Shape `(shapes, curves)`: break of the drop; NaN where the shape does not fit.
        levelling: Shape `(shapes, curves)`: break of the levelling.
        left: Shape `(shapes, curves)`: sums of squares that are left.
    """

    sup_f: FloatArray
    drop: FloatArray
    levelling: FloatArray
    left: FloatArray


class BreakProfile:
    """Least squares of straight and broken lines over one x, for any number of curves at once.

    Breaks are trimmed to three points on either side, a point on the break counted on both; the two
    breaks of a sigmoid have at least two points between them.

    Args:
        x: Shape `(points,)`, rising, at least `MIN_POINTS`.
    """

    def __init__(self, x: FloatArray) -> None:
        self.x = x
        self.breaks: FloatArray = np.linspace(float(x[2]), float(x[-3]), _NUM_BREAKS)
        self.line: FloatArray = np.linalg.qr(np.column_stack([np.ones_like(x), x]))[0]
        hinges = self.hinge(self.breaks)
        self.hinges: FloatArray = hinges / np.linalg.norm(hinges, axis=1, keepdims=True)
        grid = range(0, _NUM_BREAKS, _PAIR_STEP)
        between = [
            (lower, upper)
            for lower in grid
            for upper in grid
            if ((x > self.breaks[lower]) & (x < self.breaks[upper])).sum() >= 2
        ]
        self.lower, self.upper = np.array(between, dtype=int).reshape(-1, 2).T
        low, high = self.hinges[self.lower], self.hinges[self.upper]
        overlap = (low * high).sum(axis=1, keepdims=True)
        length = np.sqrt(1 - overlap**2)
        self._low_alone = (low - overlap * high) / length  # what the lower hinge adds to the upper
        self._high_alone = (high - overlap * low) / length

    def hinge(self, breaks: FloatArray) -> FloatArray:
        """Return what `max(0, b - x)` adds to a straight line, `(breaks, points)`."""
        hinges = np.maximum(0.0, breaks[:, None] - self.x)
        return hinges - (hinges @ self.line) @ self.line.T

    def explained(self, y: FloatArray, shape: Shape) -> FloatArray:
        """Return by how much each break, or pair, lowers the line's sum of squares.

        Args:
            y: Shape `(points, curves)`.
            shape: The changes of slope must have its signs, else the answer is 0.

        Returns:
            Shape `(breaks, curves)`, for a sigmoid `(pairs, curves)`.
        """
        if shape != "sigmoid":
            sign = -1.0 if shape == "drop" else 1.0
            return np.maximum((sign * self.hinges) @ y, 0.0) ** 2
        low = self._low_alone @ y
        high = self.hinges[self.upper] @ y
        bends = (low > 0) & (self._high_alone @ y < 0)
        return np.where(bends, low**2 + high**2, 0.0)

    def line_squares(self, y: FloatArray) -> FloatArray:
        """Return the sums of squares `(curves,)` that straight lines leave."""
        rest = y - self.line @ (self.line.T @ y)
        return (rest * rest).sum(axis=0)

    def fit(self, y: FloatArray) -> Fits:
        """Return the best fits of every shape to `y`, `(points, curves)`."""
        curves = y.shape[1]
        of_line = self.line_squares(y)
        flat = of_line <= _EXACT * (y * y).sum(axis=0)
        missing = np.full(curves, np.nan)
        sup_f, drop, levelling, left = ([missing] * 3 for _ in range(4))
        for index, shape in enumerate(SHAPES):
            most, best = _largest(self.explained(y, shape))
            left[index] = np.maximum(of_line - most, 0.0)
            freedom = len(self.x) - (6 if shape == "sigmoid" else 4)
            with np.errstate(divide="ignore", invalid="ignore"):
                statistic = most / (left[index] / freedom)
            found = (most > 0) & ~flat
            sup_f[index] = np.where(found, np.nan_to_num(statistic), 0.0)
            if shape != "levelling":
                at = self.breaks[best if shape == "drop" else self.upper[best]]
                drop[index] = np.where(found, at, np.nan)
            if shape != "drop":
                at = self.breaks[best if shape == "levelling" else self.lower[best]]
                levelling[index] = np.where(found, at, np.nan)
        arrays = (np.stack(values) for values in (sup_f, drop, levelling, left))
        return Fits(**dict(zip(("sup_f", "drop", "levelling", "left"), arrays, strict=True)))


@dataclass(frozen=True, kw_only=True)
class NullDistribution:
    """Statistics of straight lines over one x, `(simulations,)` or `(shapes, simulations)`, sorted.

    Attributes:
        sup_f: By correlation: statistic of each shape.
        smallest_p: By correlation: smallest p value of the three shapes.
        second_break: 95 % quantile of the F statistic of a sigmoid over one break, the largest over
            correlations.
    """

    sup_f: tuple[FloatArray, ...]
    smallest_p: tuple[FloatArray, ...]
    second_break: float

    def p_values(self, fits: Fits) -> FloatArray:
        """Return the p values `(curves,)` of the straight line, the largest over correlations.

        `(k + 1) / (n + 1)` with k of n simulations at least as extreme (Dufour 2006).
        """
        largest = np.zeros(fits.sup_f.shape[1])
        for sup_f, smallest_p in zip(self.sup_f, self.smallest_p, strict=True):
            smallest: FloatArray = _shape_p_values(fits.sup_f, sup_f).min(axis=0)
            below = smallest_p.searchsorted(smallest, side="right").astype(np.float64)
            largest = np.maximum(largest, (below + 1) / (len(smallest_p) + 1))
        return largest

    def shapes(self, fits: Fits) -> npt.NDArray[np.intp]:
        """Return the index in `SHAPES` of what describes each curve best, `(curves,)`.

        A sigmoid needs a second break that at most 5 % of lines show, or a single break that says
        nothing (p > 0.05) and a smaller p value than that.
        """
        single = fits.sup_f[:2].argmax(axis=0)
        second = second_break_f(fits) > self.second_break
        p = np.max([_shape_p_values(fits.sup_f, sup_f) for sup_f in self.sup_f], axis=0)
        p_single = np.take_along_axis(p, single[None], axis=0)[0]
        hidden = (p_single > ALPHA) & (p[2] < p_single)  # the two bends of a sigmoid cancel
        return np.where((second | hidden) & (fits.sup_f[2] > 0), 2, single)


def drop_fits(fits: Fits, shapes: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the index of the shape whose drop counts as the curve's, `(curves,)`.

    The chosen one; where that is a levelling, the single drop, or else the sigmoid's.
    """
    return np.where(shapes != 1, shapes, np.where(fits.sup_f[0] > 0, 0, 2))


def find_slope_changepoint(
    x: Sequence[float] | FloatArray, y: Sequence[float] | FloatArray
) -> SlopeChangepoint:
    """Return where a curve begins to drop, with a test and an interval.

    The interval inverts the profile of the chosen shape: it holds every break of the drop at which
    the sum of squares is not worse than the best one by more than the 95 % quantile of that
    difference in curves simulated from the fit, the largest over the ends of `AR1_RANGE`. All is
    seeded: equal curves give equal answers.

    Args:
        x: log10 of non-zero parameters, distinct, in any order.
        y: Values of the curve there.

    Raises:
        ValueError: If there are fewer than `MIN_POINTS` points, equal or non-finite ones.
    """
    order = np.argsort(np.asarray(x, dtype=float), kind="stable")
    xs, ys = (np.asarray(values, dtype=float)[order] for values in (x, y))
    _check(xs, ys)
    profile = BreakProfile(xs)
    null = null_distribution(tuple(xs.tolist()))
    fits = profile.fit(ys[:, None])
    shapes = null.shapes(fits)
    chosen, with_drop = int(shapes[0]), int(drop_fits(fits, shapes)[0])
    drop, levelling = float(fits.drop[with_drop, 0]), float(fits.levelling[with_drop, 0])
    low, high, ends = float("nan"), float("nan"), (0, _NUM_BREAKS - 1)
    if np.isfinite(drop):
        drop, levelling = _refined(profile, ys, drop, levelling)
        ends = _interval(profile, ys, SHAPES[with_drop], drop, levelling)
        low, high = (float(profile.breaks[end]) for end in ends)
    if SHAPES[chosen] == "levelling":
        levelling = _refined(profile, ys, float("nan"), float(fits.levelling[chosen, 0]))[1]
    return SlopeChangepoint(
        shape=SHAPES[chosen],
        p_value=float(null.p_values(fits)[0]),
        drop=drop,
        low=low,
        high=high,
        low_is_open=ends[0] == 0,
        high_is_open=ends[1] == _NUM_BREAKS - 1,
        levelling=levelling,
        sup_f=dict(zip(SHAPES, fits.sup_f[:, 0].tolist(), strict=True)),
        num_points=len(xs),
    )


def ar1_factor(rho: float, points: int) -> FloatArray:
    """Return L with `L L^T` the correlation `rho^|i - j|`: L @ white noise is AR(1) noise."""
    index = np.arange(points)
    correlation = rho ** np.abs(index[:, None] - index[None, :])
    return np.linalg.cholesky(correlation).astype(np.float64)


@lru_cache(maxsize=1024)
def null_distribution(x: tuple[float, ...]) -> NullDistribution:
    """Simulate straight lines over `x`, rising, with AR(1) errors."""
    profile = BreakProfile(np.array(x))
    noise = np.random.default_rng(_SEED).standard_normal((len(x), _NUM_NULL))
    fits = [profile.fit(ar1_factor(rho, len(x)) @ noise) for rho in AR1_RANGE]
    sup_f = tuple(np.sort(fit.sup_f, axis=1) for fit in fits)
    pairs = zip(fits, sup_f, strict=True)
    smallest = tuple(np.sort(_shape_p_values(f.sup_f, s).min(axis=0)) for f, s in pairs)
    second = max(float(np.quantile(second_break_f(fit), 1 - ALPHA)) for fit in fits)
    return NullDistribution(sup_f=sup_f, smallest_p=smallest, second_break=second)


def second_break_f(fits: Fits) -> FloatArray:
    """Return how much better, in units of its residuals, a sigmoid is than the best single break.

    The degrees of freedom are left out: they are the same in the simulations.
    """
    single = fits.left[:2].min(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.nan_to_num((single - fits.left[2]) / fits.left[2])
    return np.where(fits.sup_f[2] > 0, gain, 0.0)


def _shape_p_values(sup_f: FloatArray, null: FloatArray) -> FloatArray:
    """Return `(shapes, curves)` p values of statistics against `(shapes, simulations)`."""
    rows = zip(sup_f, null, strict=True)
    counts = [n.searchsorted(f, side="left").astype(np.float64) for f, n in rows]
    below: FloatArray = np.stack(counts)
    return (null.shape[1] - below + 1) / (null.shape[1] + 1)


def _largest(explained: FloatArray) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    if not len(explained):  # so few points that no pair of breaks is allowed
        none = np.zeros(explained.shape[1])
        return none, none.astype(np.intp)
    best = explained.argmax(axis=0)
    return np.take_along_axis(explained, best[None], axis=0)[0], best


def _check(x: FloatArray, y: FloatArray) -> None:
    if len(x) < MIN_POINTS:
        raise ValueError(f"`x` must hold at least {MIN_POINTS} points, got {len(x)}.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("`x` and `y` must be finite, got NaN or infinity.")
    if not (np.diff(x) > 0).all():
        raise ValueError("`x` must be distinct, got equal values. Average the points of one count.")


def _design(x: FloatArray, breaks: Sequence[float]) -> FloatArray:
    hinges = [np.maximum(0.0, at - x) for at in breaks if np.isfinite(at)]
    return np.column_stack([np.ones_like(x), x, *hinges])


def _squares(x: FloatArray, y: FloatArray, breaks: Sequence[float]) -> float:
    design = _design(x, breaks)
    return float(((y - design @ np.linalg.lstsq(design, y)[0]) ** 2).sum())


def _refined(
    profile: BreakProfile, y: FloatArray, drop: float, levelling: float
) -> tuple[float, float]:
    """Return the breaks, each moved to its best place between the grid's neighbours, in turn."""
    both = np.isfinite(drop) and np.isfinite(levelling)
    step = (profile.breaks[1] - profile.breaks[0]) * (_PAIR_STEP if both else 1)

    def moved(at: float, squares: Callable[[float], float]) -> float:
        if not np.isfinite(at):
            return at
        ends = (max(at - step, profile.breaks[0]), min(at + step, profile.breaks[-1]))
        found: Any = minimize_scalar(
            squares, bounds=ends, method="bounded", options={"xatol": 1e-4}
        )
        return float(found.x) if found.fun < squares(at) else at

    for _ in range(3 if both else 1):
        other = levelling
        drop = moved(drop, lambda at, other=other: _squares(profile.x, y, [at, other]))
        other = drop
        levelling = moved(levelling, lambda at, other=other: _squares(profile.x, y, [other, at]))
    return drop, levelling


def _interval(
    profile: BreakProfile, y: FloatArray, shape: Shape, drop: float, levelling: float
) -> tuple[int, int]:
    """Return the ends of the interval as indices of `profile.breaks`, rounded outwards."""
    of_drop = profile.upper if shape == "sigmoid" else np.arange(_NUM_BREAKS)
    explained = profile.explained(y[:, None], shape)[:, 0]
    of_line = float(profile.line_squares(y[:, None])[0])
    best = min(_squares(profile.x, y, [drop, levelling]), of_line - float(explained.max()))
    threshold = _interval_threshold(profile, y, shape, drop, levelling)
    freedom = len(y) - (6 if shape == "sigmoid" else 4)
    worse = of_line - explained - max(best, 0.0)
    kept = of_drop[worse <= threshold * max(best, 0.0) / freedom]
    nearest = np.abs(profile.breaks - drop).argmin()
    kept = np.append(kept, nearest)
    step = _PAIR_STEP if shape == "sigmoid" else 1
    return max(int(kept.min()) - step, 0), min(int(kept.max()) + step, _NUM_BREAKS - 1)


def _interval_threshold(
    profile: BreakProfile, y: FloatArray, shape: Shape, drop: float, levelling: float
) -> float:
    """Return the 95 % quantile of how much worse the true drop fits than the best one.

    In units of the residual variance. Curves are simulated from the fit; its residual variance is
    freed of what the fit took from correlated errors: `E[RSS] = sigma^2 tr(M R)`.
    """
    x, points = profile.x, len(profile.x)
    breaks = [at for at in (drop, levelling) if np.isfinite(at)]
    design = _design(x, breaks)
    coefficients = np.linalg.lstsq(design, y)[0]
    fitted = design @ coefficients
    moves = [c * (x < at) for c, at in zip(coefficients[2:], breaks, strict=True)]
    tangent = np.column_stack([design, *moves])
    left, singular, _ = np.linalg.svd(tangent, full_matrices=False)
    basis = left[:, singular > 1e-9 * singular[0]]
    residual = np.eye(points) - basis @ basis.T
    squares = float(((y - fitted) ** 2).sum())
    of_drop = profile.upper if shape == "sigmoid" else np.arange(_NUM_BREAKS)
    distance = np.abs(profile.breaks[of_drop] - drop)
    at_truth = distance <= distance.min() + 1e-12
    noise = np.random.default_rng(_SEED).standard_normal((points, _NUM_INTERVAL))
    quantiles: list[float] = []
    for rho in (AR1_RANGE[0], AR1_RANGE[-1]):
        factor = ar1_factor(rho, points)
        sigma = (squares / float(np.trace(residual @ factor @ factor.T))) ** 0.5
        curves = fitted[:, None] + sigma * (factor @ noise)
        explained = profile.explained(curves, shape)
        most, true = explained.max(axis=0), explained[at_truth].max(axis=0)
        rest = profile.line_squares(curves) - most
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = np.nan_to_num((most - true) / (rest / (points - 2 - 2 * len(breaks))))
        quantiles.append(float(np.quantile(loss, 0.95)))
    return max(quantiles)
