"""Path minus control at shares of the full adapter's parameters, paired by seed."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from analysis.controls import RANDOM_MASK, block_of
from analysis.curves import SCORES
from analysis.intervals import student_t_interval
from analysis.load import FLOOR, HOLD_DENSE, KEYS, PATH
from sorakit.curve_grid import values_at

SHARES = (0.5, 0.2, 0.05)
TOLD_SHARE = SHARES[1]
"""The one of which sentences tell."""
FLAT = (FLOOR, HOLD_DENSE)
"""Without a curve: their last score stands at every share."""


def scores_at_shares(run: pd.DataFrame, score: str, shares: Sequence[float]) -> np.ndarray:
    """Return a score of one run at shares of its full adapter, on straight lines in log10.

    NaN outside of what was measured; for a floor and hold_dense, the last score everywhere.

    Args:
        run: Stages of one run.
        score: memorization or generalization.
        shares: Shares of the parameters of the full adapter, all ranks of it, in (0, 1].
    """
    if run["role"].iloc[0] in FLAT:
        return np.full(len(shares), run.sort_values("stage")[score].iloc[-1])
    full = float(run["num_adapter_params"].max())
    return values_at(run, score, [share * full for share in shares])


def control_differences(
    stages: pd.DataFrame,
    *,
    controls: Sequence[str] = (HOLD_DENSE, RANDOM_MASK),
    shares: Sequence[float] = SHARES,
) -> pd.DataFrame:
    """Return one row a (dataset, control, score, share): the mean difference and its interval.

    A seed counts where both path and control were measured at the share.

    Args:
        stages: Stage table.
        controls: Roles; a dataset without one has no row for it.
        shares: Shares of the parameters of the full adapter.

    Returns:
        Columns `KEYS`, `control`, `score`, `share`, and those of an `Interval`: `mean`, `low`,
        `high` (95 % Student-t over seeds), `count`.
    """
    rows: list[dict[str, object]] = []
    for names, _ in stages[stages["role"] == PATH].groupby(KEYS, sort=True):
        block = block_of(stages, names)
        by_role = {str(role): runs for role, runs in block.groupby("role")}
        paths = _by_seed(by_role[PATH])
        for control in controls:
            others = _by_seed(by_role[control]) if control in by_role else {}
            pairs = [(run, others[seed]) for seed, run in paths.items() if seed in others]
            for score in SCORES if pairs else ():
                found = np.array(
                    [
                        scores_at_shares(path, score, shares)
                        - scores_at_shares(other, score, shares)
                        for path, other in pairs
                    ]
                )
                for column, share in enumerate(shares):
                    row: dict[str, object] = dict(zip(KEYS, names, strict=True))
                    row |= {"control": control, "score": score, "share": share}
                    rows.append(row | asdict(student_t_interval(found[:, column].tolist())))
    columns = [*KEYS, "control", "score", "share", "mean", "low", "high", "count"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _by_seed(runs: pd.DataFrame) -> dict[int, pd.DataFrame]:
    return {int(run["seed"].iloc[0]): run for _, run in runs.groupby("seed", sort=True)}
