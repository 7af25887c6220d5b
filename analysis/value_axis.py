"""How far an axis of scores reaches: it follows the curves, and wide intervals end at its edge.

The 95 % Student-t interval of two seeds is thirteen times as wide as their distance: an axis that
held it whole would show flat curves.
"""

from collections.abc import Iterable

import numpy as np

MARGIN = 0.3
"""By how much an interval may widen an axis at each end, in heights of the curves."""
_LEAST = 0.05  # height of curves that are flat, as a share of their size


def value_limits(values: Iterable[float]) -> tuple[float, float]:
    """Return the ends that intervals may stretch an axis to; what goes beyond is cut there.

    Args:
        values: Everything that is drawn as a point or a line; NaNs are left out.

    Returns:
        Lower and upper end, in the unit of the values; infinite where there is no value.
    """
    known = np.array([value for value in values if np.isfinite(value)], dtype=float)
    if not len(known):
        return float("-inf"), float("inf")
    low, high = float(known.min()), float(known.max())
    margin = MARGIN * max(high - low, _LEAST * float(np.abs(known).max()), 1e-9)
    return low - margin, high + margin
