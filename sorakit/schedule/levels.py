"""Thresholds and target counts of a run: pure functions of the configuration."""

import math
from itertools import pairwise

from sorakit.config import XiConfig


def levels(config: XiConfig) -> tuple[float, ...]:
    """Return xi of every stage: `num_stages + 1` strictly increasing values from `xi.start`.

    geometric: `start, first, first * q, ...` with `q = ratio` or, when `end` is given, the q that
        reaches `end`.
    linear: equal steps from `start` to `end`. list: `start`, then the listed levels. A `target`
        schedule has no levels: see `target_counts`.

    Args:
        config: Threshold schedule, valid by construction.

    Returns:
        Thresholds in gate units per optimizer step; entry k belongs to stage k, 0 is dense.

    Raises:
        ValueError: If two levels are the same number, or one is too large for a number.
    """
    try:
        values = _levels(config)
    except OverflowError:
        values = (config.start, math.inf)
    if not math.isfinite(values[-1]) or any(a >= b for a, b in pairwise(values)):
        raise ValueError(
            f"`xi` must give {config.num_stages + 1} finite, strictly increasing levels, got "
            f"{values[0]:.6g} to "
            f"{values[-1]:.6g}. Change `xi.end`, `xi.ratio` or `xi.num_stages`."
        )
    return values


def target_counts(*, dense: int, smallest: int, num_stages: int) -> tuple[int, ...]:
    """Return the non-zero parameters at which stages 1 to `num_stages` end.

    `dense^(1 - k/K) * smallest^(k/K)`, rounded: evenly spaced in log.

    Args:
        dense: Non-zero parameters at the end of the dense stage.
        smallest: Count of the last stage: one rank, or the budget. Must be in [1, dense].
        num_stages: Number K of sparsifying stages.
    """
    ratio = smallest / dense
    return tuple(round(dense * ratio ** (k / num_stages)) for k in range(1, num_stages + 1))


def _levels(config: XiConfig) -> tuple[float, ...]:
    if config.spacing == "list":
        assert config.levels is not None
        return (config.start, *config.levels)
    count = config.num_stages
    if config.spacing == "linear":
        assert config.end is not None
        step = (config.end - config.start) / count
        return (*(config.start + step * stage for stage in range(count)), config.end)
    if config.end is None:
        return (config.start, *(config.first * config.ratio**k for k in range(count)))
    if count == 1:
        return (config.start, config.end)
    ratio = (config.end / config.first) ** (1 / (count - 1))
    return (config.start, *(config.first * ratio**k for k in range(count - 1)), config.end)
