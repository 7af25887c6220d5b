"""What a stage of a path keeps: of the dense score, and of what the adapter gained."""

import numpy as np
import numpy.typing as npt
import pandas as pd

Scores = float | npt.NDArray[np.float64]

ROUNDING = 1e-12
"""Relative; what a share of a score is lowered by: 0.9 * 0.8 comes out above the score 0.72."""


def gain_retained(score: Scores, *, dense: Scores, floor: Scores) -> npt.NDArray[np.float64]:
    """Return gain retained, `(score - floor) / (dense - floor)`: 1 is dense, 0 is the floor.

    NaN where the dense score is not above the floor: there is no gain to retain.

    Args:
        score: Scores, of any shape.
        dense: Scores of the dense stage, of a shape that broadcasts.
        floor: Scores without an adapter, likewise.
    """
    least = np.asarray(floor, dtype=np.float64)
    gain = np.asarray(dense, dtype=np.float64) - least
    kept = np.asarray(score, dtype=np.float64) - least
    return np.asarray(kept / np.where(gain > 0, gain, np.nan))


def sparsest_keeping(path: pd.DataFrame, score: str, share: float) -> pd.Series | None:
    """Return the stage of one run with fewest parameters among those that keep `share` of dense.

    As measured: no interpolation. Among equal counts the later stage is taken. None where the run
    has no dense stage or its dense score is not positive.

    Args:
        path: Stages of one run.
        score: memorization or generalization.
        share: Share of the dense stage's score, in (0, 1].
    """
    dense = path[path["stage"] == 0]
    if dense.empty or not dense[score].iloc[0] > 0:
        return None
    least = share * float(dense[score].iloc[0]) * (1 - ROUNDING)
    kept: pd.DataFrame = path[path[score] >= least]
    return kept.sort_values(["num_nonzero_params", "stage"], ascending=[True, False]).iloc[0]
