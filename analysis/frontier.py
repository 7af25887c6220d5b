"""The frontier: which adapter of N parameters is best, and by how much.

That N parameters suffice says little by itself. It is set against the best that N parameters do
otherwise: as many ranks drawn at random or kept by their strength, and a plain LoRA of a smaller
rank. N is a share of the full SoRA adapter; every score is read off on straight lines in log N
within one seed, and never outside of what that seed measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.controls import RANDOM_MASK, block_of
from analysis.curves import SCORES
from analysis.intervals import Interval, student_t_interval, welch_interval
from analysis.load import (
    DATASET_KEYS,
    FLOOR,
    FROM_SCRATCH,
    KEYS,
    NULL_FLOOR,
    PATH,
    SORA,
    require_path_run,
)
from sorakit.curve_grid import values_at

SHARES = (0.2, 0.1, 0.05, 0.02, 0.01)
"""Of the full SoRA adapter, all ranks of it."""
HARD_MASK_RETRAIN = "hard_mask_retrain"
CONTROLS = (RANDOM_MASK, HARD_MASK_RETRAIN, FROM_SCRATCH)
"""Controls that are another way to an adapter of N parameters."""
NOT_TOLD_APART = "not told apart"
NOT_MEASURED = "not measured"
BEST = "best_"
"""What the columns about the best adapter begin with."""

Scores = Mapping[int, float]
"""Seed -> score; NaN where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One adapter minus another.

    Attributes:
        interval: Mean and 95 % interval.
        paired: Whether seeds were paired; otherwise it is Welch's interval of two groups.
    """

    interval: Interval
    paired: bool


def frontier(stages: pd.DataFrame, *, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """Return how the path of every dataset stands beside its rivals at shares of the full adapter.

    Rivals are the controls in `CONTROLS`, and the runs of every other method on the same data,
    backbone and seed; those of one method and seed are one curve over their numbers of parameters.
    Of several with one number, the one with the smallest training loss counts: no validation data
    decides.

    Args:
        stages: Stage table.
        shares: Shares of the parameters of the full SoRA adapter, in (0, 1].

    Returns:
        One row a (dataset, score, share, role), the path among the roles: `KEYS`, `score`, `share`,
        `params`, `role`; `mean`, `low`, `high`, `seeds` of its score; path minus role as
        `difference`, `difference_low`, `difference_high`, `pairs`, `paired` with the `verdict`
        (the better one's role, not told apart, or not measured; empty for the path itself). And of
        the place as a whole: `best_role`, the one with the largest mean; `best_against`, the path,
        or where the path is best its closest rival; their difference as `best_difference`, with
        its interval, and `best_verdict`.

    Raises:
        ValueError: If no row of `stages` is of a path.
    """
    require_path_run(stages)
    rows: list[dict[str, object]] = []
    for names, _ in stages[stages["role"] == PATH].groupby(KEYS, sort=True):
        curves = _curves(stages, names)
        full = max(float(run["num_adapter_params"].max()) for run in curves[PATH].values())
        for score in SCORES:
            at = {
                role: {
                    seed: values_at(run, score, [share * full for share in shares])
                    for seed, run in by_seed.items()
                }
                for role, by_seed in curves.items()
            }
            for column, share in enumerate(shares):
                place: dict[str, object] = dict(zip(KEYS, names, strict=True))
                place |= {"score": score, "share": share, "params": share * full}
                values = {
                    role: {seed: float(value[column]) for seed, value in by_seed.items()}
                    for role, by_seed in at.items()
                }
                rows += [{**place, **row} for row in _place(values)]
    return pd.DataFrame(rows)


def difference(first: Scores, second: Scores) -> Difference:
    """Return first minus second, paired where two seeds or more match, and by Welch otherwise.

    Args:
        first: Scores of one adapter.
        second: Scores of another.
    """
    pairs = [first[seed] - second[seed] for seed in first if seed in second]
    known = [value for value in pairs if np.isfinite(value)]
    groups = [[value for value in own.values() if np.isfinite(value)] for own in (first, second)]
    if len(known) >= 2 or min(map(len, groups)) < 2:
        return Difference(interval=student_t_interval(known), paired=True)
    return Difference(interval=welch_interval(*groups), paired=False)


def _place(values: Mapping[str, Scores]) -> list[dict[str, object]]:
    """Return a row a role for one score at one share."""
    means = {role: student_t_interval(list(own.values())) for role, own in values.items()}
    ranked = sorted((role for role in means if means[role].count), key=lambda r: -means[r].mean)
    best: dict[str, object] = {f"{BEST}role": ranked[0] if ranked else "", f"{BEST}against": ""}
    if PATH in ranked and len(ranked) > 1:
        against = ranked[1] if ranked[0] == PATH else PATH
        best[f"{BEST}against"] = against
        found = _told(values[ranked[0]], values[against], ranked[0], against)
    else:
        found = _told({}, {}, "", "")
    best |= {f"{BEST}{name}": value for name, value in found.items()}
    rows: list[dict[str, object]] = []
    for role, mean in means.items():
        told = _told(values[PATH], values[role], PATH, role)
        if role == PATH:
            told |= {"difference": np.nan, "pairs": 0, "verdict": ""}
            told |= {"difference_low": np.nan, "difference_high": np.nan}
        own = {"mean": mean.mean, "low": mean.low, "high": mean.high, "seeds": mean.count}
        rows.append({"role": role, **own, **told, **best})
    return rows


def _told(first: Scores, second: Scores, first_role: str, second_role: str) -> dict[str, object]:
    found = difference(first, second)
    interval = found.interval
    if not interval.count:
        verdict = NOT_MEASURED
    elif interval.contains_zero:
        verdict = NOT_TOLD_APART
    else:
        verdict = first_role if interval.mean > 0 else second_role
    return {
        "difference": interval.mean,
        "difference_low": interval.low,
        "difference_high": interval.high,
        "pairs": interval.count,
        "paired": found.paired,
        "verdict": verdict,
    }


def _curves(stages: pd.DataFrame, names: Sequence[object]) -> dict[str, dict[int, pd.DataFrame]]:
    """Return role -> seed -> stages of one block, the path first: a curve over parameters each."""
    block = block_of(stages, names)
    curves = {PATH: _by_seed(block[block["role"] == PATH])}
    for role in CONTROLS:
        own = block[block["role"] == role]
        if len(own):
            curves[role] = _by_seed(own)
    same_data = (stages[DATASET_KEYS] == list(names)[: len(DATASET_KEYS)]).all(axis=1)
    is_floor = stages["role"].isin([FLOOR, NULL_FLOOR])
    others = stages[same_data & (stages["method"] != SORA) & ~is_floor]
    for role, own in others.groupby("role", sort=True):
        trained = own.sort_values("train_loss").drop_duplicates(["seed", "num_nonzero_params"])
        curves[str(role)] = _by_seed(trained)
    return curves


def _by_seed(stages: pd.DataFrame) -> dict[int, pd.DataFrame]:
    return {int(str(seed)): own for seed, own in stages.groupby("seed", sort=True)}
