"""Scores of the refitted weights, or of the penalised ones before the refit.

A stage of a run with a refit has two points: `memorization` and `generalization` are of the
refitted weights, which are exported, and `penalised_*` of those that the threshold left. What has
no refit (the dense stage, older records) has one point, which stands for both.
"""

from typing import Literal

import numpy as np
import pandas as pd

from analysis.curves import SCORES

Weights = Literal["refitted", "penalised"]
_REPLACED = [*SCORES, *(f"{score}_loss" for score in SCORES)]


def has_refit(stages: pd.DataFrame) -> bool:
    """Return whether any stage has a point before its refit."""
    columns = [f"penalised_{score}" for score in SCORES if f"penalised_{score}" in stages]
    return bool(stages[columns].notna().any(axis=None)) if columns else False


def with_weights(stages: pd.DataFrame, weights: Weights) -> pd.DataFrame:
    """Return a stage table whose scores, losses and percent of dense are of `weights`.

    Args:
        stages: Stage table, before `with_gain_retained`.
        weights: refitted: as recorded. penalised: before the refit.
    """
    if weights == "refitted" or not has_refit(stages):
        return stages
    table = stages.copy()
    for name in _REPLACED:
        before = table[f"penalised_{name}"].astype(float)
        table[name] = before.where(before.notna(), table[name].astype(float))
    dense = table[table["stage"] == 0].set_index("run_id")
    for score in SCORES:
        of_dense = table["run_id"].map(dense[score].astype(float))
        percent = 100 * table[score] / of_dense.where(of_dense > 0)
        table[f"{score}_percent"] = percent.astype(np.float64)
    return table
