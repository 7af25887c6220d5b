"""Which stage of a path keeps a share of the dense score."""

import pandas as pd

ROUNDING = 1e-12
"""Relative; what a share of a score is lowered by: 0.9 * 0.8 comes out above the score 0.72."""


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
