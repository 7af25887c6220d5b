# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""Membership inference: privacy against compression, by loss threshold and by LiRA."""

import numpy as np
import pandas as pd

from analysis.load import KEYS
from analysis.memory.examples import POOL_KEYS, non_members, pairs_matrix
from analysis.slope_changepoint import FloatArray
from sorakit.membership import auc, true_positive_rate
from sorakit.metric_names import GENERALIZATION_SPLIT, LEFT_OUT_SPLIT, MEMORIZATION_SPLIT

LOSS = "loss"
LIRA = "lira"
LEAST_REFERENCES = 4
"""Reference runs on either side of an example below which LiRA says nothing of it."""


def membership_table(examples: pd.DataFrame) -> pd.DataFrame:
    """Return how well attacks tell training examples from others, a row a (run, stage, attack).

    `loss`: an example of less loss is taken for a member (Yeom et al. 2018). `lira`: see
    `lira_scores`; only of runs on subsets of one pool. Columns: what names the run,
    `num_nonzero_params`, `attack`, `auc`, `tpr` at 1 % false positives (NaN below 100
    non-members), `members`, `others`.

    Others are the examples that the run's subset leaves out; without a subset, the validation
    split, whose distribution may differ.

    Args:
        examples: Rows of `example_table`.
    """
    rows: list[dict[str, object]] = []
    for (_, _), run in examples.groupby(["run_id", "stage"], sort=True):
        rows.append(_row(run, LOSS, -run["loss"].to_numpy(dtype=float)))
    if (examples["split"] == LEFT_OUT_SPLIT).any():
        scored = lira_scores(examples)
        for (_, _), run in scored.groupby(["run_id", "stage"], sort=True):
            rows.append(_row(run, LIRA, run["score"].to_numpy(dtype=float)))
    return pd.DataFrame(rows)


def lira_scores(examples: pd.DataFrame) -> pd.DataFrame:
    """Return the likelihood ratio of every example of every run on a subset (LiRA).

    Of each example the confidence `log(p / (1 - p))` of its label in the other runs of its pool
    gives two normal distributions, of runs that it was trained in and of runs that it was left out
    of; the score is the log of their ratio at the run's own confidence (Carlini et al. 2022). The
    variances are shared by all examples of a side, as the authors do with few reference runs. NaN
    below `LEAST_REFERENCES` runs on a side.

    Args:
        examples: Rows of `example_table`; those of runs without a subset are left out.

    Returns:
        Rows of the memorization and left-out splits with the column `score`.
    """
    with_subset = examples.loc[examples["split"] == LEFT_OUT_SPLIT, "run_id"].unique()
    own = examples[
        examples["run_id"].isin(with_subset)
        & examples["split"].isin([MEMORIZATION_SPLIT, LEFT_OUT_SPLIT])
    ]
    parts: list[pd.DataFrame] = []
    for _, block in own.groupby([*POOL_KEYS, "role", "stage"], sort=True):
        rows = block.assign(
            confidence=label_confidence(block["loss"].to_numpy(dtype=float)),
            inside=(block["split"] == MEMORIZATION_SPLIT).astype(float),
        )
        confidence = pairs_matrix(rows, value="confidence")
        inside = pairs_matrix(rows, value="inside")
        scores = likelihood_ratios(confidence.to_numpy(), inside.to_numpy() == 1)
        table = pd.DataFrame(scores, index=confidence.index, columns=confidence.columns)
        stacked = table.reset_index().melt(id_vars="run_id", value_name="score")
        parts.append(rows.merge(stacked, on=["run_id", "index"], how="left"))
    return pd.concat(parts, ignore_index=True)


def likelihood_ratios(confidence: FloatArray, inside: np.ndarray) -> FloatArray:
    """Return the log ratio of LiRA of every run and example, each against the other runs.

    Args:
        confidence: Shape `(runs, examples)`.
        inside: Whether the run was trained on the example, of the same shape.

    Returns:
        Shape `(runs, examples)`; NaN below `LEAST_REFERENCES` references on a side.
    """
    sides: list[tuple[FloatArray, FloatArray]] = []
    for chosen in (inside, ~inside):
        count = chosen.sum(axis=0)
        total = np.where(chosen, confidence, 0.0).sum(axis=0)
        # the run itself is no reference of its own
        others = np.maximum(count - chosen, 0)
        means = (total - np.where(chosen, confidence, 0.0)) / np.where(others > 0, others, np.nan)
        means = np.where(others >= LEAST_REFERENCES, means, np.nan)
        centred = np.where(chosen, confidence - total / np.maximum(count, 1), 0.0)
        freedom = float(np.maximum(count - 1, 0).sum())
        variance = float((centred**2).sum()) / freedom if freedom > 0 else float("nan")
        sides.append((means, np.full_like(confidence, max(variance, 1e-12))))
    (mean_in, var_in), (mean_out, var_out) = sides
    log_in = -0.5 * ((confidence - mean_in) ** 2 / var_in + np.log(var_in))
    log_out = -0.5 * ((confidence - mean_out) ** 2 / var_out + np.log(var_out))
    return np.asarray(log_in - log_out)


def label_confidence(losses: FloatArray) -> FloatArray:
    """Return `log(p / (1 - p))` from `-log p`, in nats; a loss of 0 in float32 counts as 1e-7."""
    nats = np.maximum(losses, 1e-7)
    return np.asarray(-nats - np.log(-np.expm1(-nats)))


def _row(run: pd.DataFrame, attack: str, scores: FloatArray) -> dict[str, object]:
    scored = run.assign(score=scores)
    members = scored.loc[scored["split"] == MEMORIZATION_SPLIT, "score"].to_numpy(dtype=float)
    others = non_members(scored, held_out=GENERALIZATION_SPLIT)["score"].to_numpy(dtype=float)
    first = run.iloc[0]
    return {
        **{key: first[key] for key in (*KEYS, "pool", "seed", "run_id", "role")},
        "stage": int(first["stage"]),
        "num_nonzero_params": float(first["num_nonzero_params"]),
        "attack": attack,
        "auc": auc(members, others),
        "tpr": true_positive_rate(members, others),
        "members": len(members),
        "others": len(others),
    }
