# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""Counterfactual memorization and influence, from random subsets (Feldman and Zhang 2020)."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.load import PATH
from analysis.memory.examples import POOL_KEYS, groups, pairs_matrix, require_classes
from analysis.slope_changepoint import FloatArray
from sorakit.metric_names import (
    COPIES,
    GENERALIZATION_SPLIT,
    LEFT_OUT_SPLIT,
    MEMORIZATION_SPLIT,
)

LEAST_RUNS = 8
"""Runs on subsets below which nothing is said of an example."""


def counterfactual_memorization(examples: pd.DataFrame) -> pd.DataFrame:
    """Return how much training on an example raises the chance to get it right.

    `memorization` = share of the runs trained on it that have it right - share of the runs that
    left it out (Eq. 1), in [-1, 1]; `se`: its standard error, from the spread over runs on either
    side. Columns: pool, `stage`, `num_nonzero_params` (geometric mean over runs), `index`,
    `memorization`, `se`, `right_in`, `right_out`, `runs_in`, `runs_out`, `is_noisy`, `copies`.

    Args:
        examples: Rows of `example_table`.

    Raises:
        ValueError: If there are fewer than `LEAST_RUNS` runs on subsets of one pool.
    """
    parts: list[pd.DataFrame] = []
    for names, block in _blocks(examples):
        pool = block[block["split"].isin([MEMORIZATION_SPLIT, LEFT_OUT_SPLIT])]
        rows = pool.assign(
            right=pool["correct"].astype(float),
            inside=(pool["split"] == MEMORIZATION_SPLIT).astype(float),
        )
        right = pairs_matrix(rows, value="right")
        inside = pairs_matrix(rows, value="inside").to_numpy() == 1
        table = _differences(right.to_numpy(), inside)
        table.insert(0, "index", right.columns.to_numpy())
        of_example = pool.drop_duplicates("index").set_index("index")
        table["is_noisy"] = table["index"].map(of_example["is_noisy"].astype(bool))
        copies = of_example[COPIES] if COPIES in of_example else pd.Series(dtype=float)
        table["copies"] = table["index"].map(copies).fillna(1).astype(int)
        parts.append(table.assign(**names, num_nonzero_params=_mean_count(block)))
    return pd.concat(parts, ignore_index=True)


def influence(examples: pd.DataFrame) -> pd.DataFrame:
    """Return what training on an example does to every validation example.

    `influence` = share of the runs trained on `index` that have `held_out` right - that of the runs
    that left it out (Eq. 2); `se` as there; `z`: by the test of two equal shares, whose error is
    that of all runs together and so is no 0 where a side is unanimous; `is_told`: whether |z| is
    beyond what the largest of all pairs would be by chance in 5 % of such tables (Bonferroni,
    normal).

    Args:
        examples: Rows of `example_table`.

    Returns:
        A row a (pool, stage, index, held_out), those of the largest |z| first.

    Raises:
        ValueError: If there are fewer than `LEAST_RUNS` runs on subsets of one pool.
    """
    parts: list[pd.DataFrame] = []
    for names, block in _blocks(examples):
        pool = block[block["split"].isin([MEMORIZATION_SPLIT, LEFT_OUT_SPLIT])]
        trained = pool.assign(inside=(pool["split"] == MEMORIZATION_SPLIT).astype(float))
        inside = pairs_matrix(trained, value="inside")
        held_out = block[block["split"] == GENERALIZATION_SPLIT]
        right = pairs_matrix(
            held_out.assign(right=held_out["correct"].astype(float)), value="right"
        )
        right = right.loc[inside.index]
        shape = (inside.shape[1], right.shape[1])
        values, errors = influence_matrix(right.to_numpy(), inside.to_numpy() == 1)
        table = pd.DataFrame(
            {
                "index": np.repeat(inside.columns.to_numpy(), shape[1]),
                "held_out": np.tile(right.columns.to_numpy(), shape[0]),
                "influence": values.ravel(),
                "se": errors.ravel(),
            }
        )
        inside_count = (inside.to_numpy() == 1).sum(axis=0).astype(float)[:, None]
        share = right.to_numpy().mean(axis=0)[None, :]
        outside_count = len(right) - inside_count
        error = np.sqrt(share * (1 - share) * (1 / inside_count + 1 / outside_count))
        table["z"] = (values / np.where(error > 0, error, np.nan)).ravel()
        bound = float(stats.norm.isf(0.025 / len(table)))
        table["is_told"] = table["z"].abs() > bound
        order = table["z"].abs().sort_values(ascending=False, kind="stable").index
        parts.append(table.loc[order].assign(**names, num_nonzero_params=_mean_count(block)))
    return pd.concat(parts, ignore_index=True)


def influence_matrix(right: FloatArray, inside: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Return influence and its standard error, `(pool, held_out)`.

    Args:
        right: Which held-out example is right in which run, `(runs, held_out)`.
        inside: Which example of the pool was trained on in which run, `(runs, pool)`.
    """
    means: list[FloatArray] = []
    errors: list[FloatArray] = []
    for chosen in (inside.astype(float), (~inside).astype(float)):
        count = chosen.sum(axis=0)[:, None]
        mean = (chosen.T @ right) / np.where(count > 0, count, np.nan)
        # right is 0 or 1, so its mean square is its mean
        variance = (mean - mean**2) * count / np.where(count > 1, count - 1, np.nan)
        means.append(mean)
        errors.append(variance / count)
    return np.asarray(means[0] - means[1]), np.sqrt(errors[0] + errors[1])


def _differences(right: FloatArray, inside: np.ndarray) -> pd.DataFrame:
    """Return the columns of `counterfactual_memorization` from `(runs, examples)`."""
    columns: dict[str, FloatArray] = {}
    errors: list[FloatArray] = []
    for name, chosen in (("in", inside), ("out", ~inside)):
        count = chosen.sum(axis=0).astype(float)
        mean = np.where(chosen, right, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)
        variance = (mean - mean**2) * count / np.where(count > 1, count - 1, np.nan)
        errors.append(variance / count)
        columns |= {f"right_{name}": mean, f"runs_{name}": count}
    difference = columns["right_in"] - columns["right_out"]
    return pd.DataFrame(
        {"memorization": difference, "se": np.sqrt(errors[0] + errors[1]), **columns}
    )


def _blocks(examples: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    with_subset = examples.loc[examples["split"] == LEFT_OUT_SPLIT, "run_id"].unique()
    own = examples[examples["run_id"].isin(with_subset) & (examples["role"] == PATH)]
    if len(own):
        require_classes(own)
    blocks = [
        (names, block)
        for names, block in groups(own, [*POOL_KEYS, "stage"])
        if block["run_id"].nunique() >= LEAST_RUNS
    ]
    if not blocks:
        most = own.groupby(POOL_KEYS)["run_id"].nunique().max() if len(own) else 0
        raise ValueError(
            f"`RUNS` must hold {LEAST_RUNS} runs on subsets of one pool, got {most}. Sweep over "
            "`task.subset_seed` with `task.subset_fraction`."
        )
    return blocks


def _mean_count(block: pd.DataFrame) -> float:
    counts = block.drop_duplicates("run_id")["num_nonzero_params"].clip(lower=1)
    return float(10.0 ** np.log10(counts.to_numpy(dtype=float)).mean())
