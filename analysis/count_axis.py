"""The logarithmic axis of non-zero parameters, with a place for 0 left of a break."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class CountAxis:
    """Where counts stand on a logarithmic axis.

    Attributes:
        low: Smallest count above 0.
        high: Largest count.
        left: Left end of the axis.
        right: Right end of the axis.
        zero: Where a count of 0 is drawn; NaN if there is none.
        zero_break: Where the axis is broken between 0 and `low`; NaN if it is not.
        ticks: Counts with a label.
        minor: Counts with a tick.
    """

    low: float
    high: float
    left: float
    right: float
    zero: float
    zero_break: float
    ticks: list[float]
    minor: list[float]

    @property
    def has_zero(self) -> bool:
        """Whether a count of 0 is drawn."""
        return bool(np.isfinite(self.zero))


def count_axis(counts: Iterable[float]) -> CountAxis:
    """Return the axis that shows `counts`.

    Args:
        counts: Non-zero parameters of some stages, zeros and repetitions allowed.
    """
    values = np.array(list(counts), dtype=float)
    nonzero = values[values > 0]
    low, high = (float(nonzero.min()), float(nonzero.max())) if len(nonzero) else (1.0, 10.0)
    decades = max(float(np.log10(high / low)), 0.3)
    has_zero = bool((values == 0).any())
    zero = low / 10 ** (0.16 * decades)
    ticks, minor = _log_ticks(low, high)
    return CountAxis(
        low=low,
        high=high,
        left=(zero if has_zero else low) / 10 ** (0.05 * decades),
        right=high * 10 ** (0.11 * decades),
        zero=zero if has_zero else float("nan"),
        zero_break=low / 10 ** (0.08 * decades) if has_zero else float("nan"),
        ticks=ticks,
        minor=minor,
    )


def _log_ticks(low: float, high: float) -> tuple[list[float], list[float]]:
    """Return major and minor ticks in [low, high]: decades, or 1-2-5 steps where those are few."""
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    minor = [m * 10.0**e for e in exponents for m in range(1, 10) if low <= m * 10.0**e <= high]
    major: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5)):
        major = [s * 10.0**e for e in exponents for s in steps if low <= s * 10.0**e <= high]
        if len(major) >= 3:
            break
    return major or [low], minor
