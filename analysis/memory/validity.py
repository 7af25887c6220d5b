# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""Are the measures valid? How well each tells what is known to be memorised from what is not.

Three things are known of a run on a subset with noise and planted copies: which examples it was
trained on, which of those have a wrong label, and which stand in the pool twice. A measure of
memorization should tell the first (as OpenUnlearning's meta-evaluation of its metrics asks), find
the second more memorised, and the third less, since a copy generalizes to its twin.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from analysis.intervals import student_t_interval
from analysis.load import PATH
from analysis.memory.counterfactual import counterfactual_memorization
from analysis.memory.forgetting import data_map, lost_examples
from analysis.memory.membership import lira_scores
from sorakit.membership import auc
from sorakit.metric_names import COPIES, LEFT_OUT_SPLIT, MEMORIZATION_SPLIT

TRAINED = "trained on, not left out"
NOISY = "wrong label, not clean"
SINGLE = "once, not twice in the pool"
QUESTIONS = (TRAINED, NOISY, SINGLE)

_POOL = [MEMORIZATION_SPLIT, LEFT_OUT_SPLIT]


def validity_table(examples: pd.DataFrame) -> pd.DataFrame:
    """Return the AUC of every measure at every question, a row a (measure, question, stage).

    Each measure is a score that is higher where it says memorised. `trained` is asked of the whole
    pool; the others of what a run was trained on, or of the pool for counterfactual memorization.
    Columns: `measure`, `question`, `stage` (NaN for measures of a whole path), `auc` (mean over
    runs), `low`, `high` (95 % Student-t interval over runs, which share examples: too narrow for
    another pool), `runs`.

    Args:
        examples: Rows of `example_table`.

    Raises:
        ValueError: If no run is on a subset.
    """
    with_subset = examples.loc[examples["split"] == LEFT_OUT_SPLIT, "run_id"].unique()
    own = examples[
        examples["run_id"].isin(with_subset)
        & (examples["role"] == PATH)
        & examples["split"].isin(_POOL)
    ].copy()
    if own.empty:
        raise ValueError(
            "`RUNS` must hold runs on subsets, got none. Sweep over `task.subset_seed` with "
            "`task.subset_fraction`."
        )
    if COPIES not in own:
        own[COPIES] = 1
    own[COPIES] = own[COPIES].fillna(1)
    own["loss_score"] = -own["loss"].astype(float)
    own["right_score"] = own["correct"].astype(float)
    rows: list[dict[str, object]] = []
    columns = {"low loss": "loss_score", "right": "right_score", "margin": "margin"}
    for name, column in columns.items():
        rows += _by_stage(own, name, column)
    rows += _by_stage(lira_scores(own), "LiRA", "score")
    rows += _by_path(own)
    rows += _of_pool(examples)
    return pd.DataFrame(rows)


def _by_stage(table: pd.DataFrame, measure: str, column: str) -> list[dict[str, object]]:
    return [
        row
        for stage, block in table.groupby("stage", sort=True)
        for row in _answers(block, measure, column, stage=float(str(stage)))
    ]


def _by_path(own: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows of measures that one number an example and path gives."""
    first = own[own["stage"] == 0].set_index(["run_id", "split", "index"])
    flags = first[["is_noisy", COPIES]]
    lost = lost_examples(own)
    # never right is lost before dense; kept is lost after the last stage
    lost["late"] = -np.log10(lost["lost_params"].where(lost["lost_params"] > 0, 0.5).fillna(1e12))
    maps = data_map(own, axis="stage")
    maps["events_score"] = -maps["events"]
    measures = {
        "lost late along the path": (lost, "late"),
        "confidence over stages": (maps, "confidence"),
        "variability over stages": (maps, "variability"),
        "few forgetting events": (maps, "events_score"),
    }
    rows: list[dict[str, object]] = []
    for name, (table, column) in measures.items():
        joined = table[["run_id", "split", "index", column]].merge(
            flags, left_on=["run_id", "split", "index"], right_index=True
        )
        rows += _answers(joined, name, column, stage=float("nan"))
    return rows


def _of_pool(examples: pd.DataFrame) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    table = counterfactual_memorization(examples).dropna(subset=["memorization"])
    for stage, block in table.groupby("stage", sort=True):
        groups = {
            NOISY: (block["is_noisy"], ~block["is_noisy"]),
            SINGLE: (block["copies"] == 1, block["copies"] > 1),
        }
        for question, (yes, no) in groups.items():
            value = auc(block.loc[yes, "memorization"], block.loc[no, "memorization"])
            rows.append(
                {
                    "measure": "counterfactual memorization",
                    "question": question,
                    "stage": float(str(stage)),
                    "auc": value,
                    "low": float("nan"),
                    "high": float("nan"),
                    "runs": 1,
                }
            )
    return rows


def _answers(
    table: pd.DataFrame, measure: str, column: str, *, stage: float
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    questions: dict[str, Callable[[pd.DataFrame], tuple[pd.Series, pd.Series]]] = {
        TRAINED: lambda run: (run["split"] == MEMORIZATION_SPLIT, run["split"] == LEFT_OUT_SPLIT),
        NOISY: lambda run: _among_trained(run, run["is_noisy"].astype(bool)),
        SINGLE: lambda run: _among_trained(run, run[COPIES] == 1),
    }
    for question, groups in questions.items():
        values: list[float] = []
        for _, run in table.groupby("run_id", sort=True):
            yes, no = groups(run)
            values.append(auc(run.loc[yes, column], run.loc[no, column]))
        interval = student_t_interval(values)
        rows.append(
            {
                "measure": measure,
                "question": question,
                "stage": stage,
                "auc": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "runs": interval.count,
            }
        )
    return rows


def _among_trained(run: pd.DataFrame, chosen: pd.Series) -> tuple[pd.Series, pd.Series]:
    trained = run["split"] == MEMORIZATION_SPLIT
    return trained & chosen, trained & ~chosen
