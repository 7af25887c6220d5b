# pyright: standard
# names of groups and columns are unions in the stubs of pandas, which strict refuses everywhere
"""Example tables of many runs: what became of every example at every stage."""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from analysis.load import KEYS, RunSet
from sorakit.metric_names import LEFT_OUT_SPLIT
from sorakit.records.examples import read_examples

POOL_KEYS = ["task", "backbone", "pool", "variant"]
"""A dataset whose runs differ by seed and by the subset that they train on."""
RUN_COLUMNS = [*KEYS, "pool", "seed", "run_id", "role"]
OLDER = "older"
_NEEDED = ("stage", "split", "index", "loss", "correct", "prediction", "probability", "is_noisy")
_SUBSET_SEED = re.compile(r"(, )?subset_seed=\d+")


def example_table(runs: RunSet, *, roles: Collection[str] | None = None) -> pd.DataFrame:
    """Return the examples of every run, a row a (run, stage, split, example).

    Columns: those of `examples.parquet`, `num_nonzero_params`, what names the run, and `pool`: its
    setting without the seed of its subset, which stands for `setting` too: runs on subsets of one
    pool are one dataset. `attrs[OLDER]` lists the runs whose records, of an
    older release, say too little of their examples and are left out.

    Args:
        runs: What was loaded.
        roles: Roles of the runs to read; null reads all.

    Raises:
        ValueError: If no such run has records of its examples.
    """
    tables: list[pd.DataFrame] = []
    older: list[str] = []
    counts = runs.stages.set_index(["run_id", "stage"])["num_nonzero_params"]
    for row in runs.runs.to_dict("records"):
        if roles is not None and row["role"] not in roles:
            continue
        examples = read_examples(Path(str(row["path"])))
        if examples is None or not set(_NEEDED) <= set(examples):
            older.append(str(row["run_id"]))
            continue
        own = counts.loc[str(row["run_id"])]
        table = examples[examples["stage"].isin(own.index)].copy()
        table["num_nonzero_params"] = table["stage"].map(own).to_numpy(dtype=float)
        for name in (*KEYS, "seed", "run_id", "role"):
            table[name] = row[name]
        table["pool"] = table["setting"] = pool_of(str(row["setting"]))
        tables.append(table)
    if not tables:
        named = "" if roles is None else f" with the role {' or '.join(sorted(roles))}"
        raise ValueError(
            f"`RUNS` must hold a run{named} with records of its examples' predictions, got none."
        )
    found = pd.concat(tables, ignore_index=True)
    found.attrs[OLDER] = older
    return found


def groups(
    table: pd.DataFrame, keys: Sequence[str], *, sort: bool = True
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield what the rows of each group have in common, by column, and its rows; NaN is a group."""
    for names, own in table.groupby([*keys], sort=sort, dropna=False):
        yield dict(zip(keys, cast(tuple[Any, ...], names), strict=True)), own


def pool_of(setting: str) -> str:
    """Return a setting without the seed of the subset."""
    return _SUBSET_SEED.sub("", setting).removeprefix(", ") or "default"


def require_classes(examples: pd.DataFrame) -> None:
    """Refuse examples without classes: a number is neither right nor wrong.

    Raises:
        ValueError: If some example has no `correct`.
    """
    missing = examples["correct"].isna()
    if missing.any():
        task = examples.loc[missing, "task"].iloc[0]
        raise ValueError(
            f"`RUNS` must be of tasks with classes, got {task}, whose answers are numbers or have "
            "no single class."
        )


def non_members(run: pd.DataFrame, *, held_out: str) -> pd.DataFrame:
    """Return rows that a run was not trained on: what its subset leaves out, or a held-out split.

    Args:
        run: Examples of one run.
        held_out: The split that is taken where there is no subset.
    """
    left_out = run[run["split"] == LEFT_OUT_SPLIT]
    return left_out if len(left_out) else run[run["split"] == held_out]


def pairs_matrix(rows: pd.DataFrame, *, value: str) -> pd.DataFrame:
    """Return a column of a split as a table, a row a run and a column an example; NaN if absent."""
    table = rows.pivot(index="run_id", columns="index", values=value)
    return table.astype(np.float64)
