"""Which of two datasets needs fewer parameters, as a table: a row a pair, a column a measure."""

from collections import Counter
from collections.abc import Hashable, Mapping

import pandas as pd

from analysis.compressibility import REFERENCES
from analysis.curves import SCORES
from analysis.intervals import p_text
from analysis.load import DATASET_KEYS, KEYS
from analysis.number_text import compact
from analysis.slope_changepoint import ALPHA

Names = dict[tuple[object, ...], str]
"""Dataset -> its short name."""

RANKED = [(score, reference) for score in SCORES for reference in REFERENCES]
"""The columns: a score, and what d90 is a share of."""


def dataset_names(table: pd.DataFrame) -> Names:
    """Return a short name for every dataset of `Comparison.table`: the task, and what it takes.

    Backbone and setting are named where a task has several; configurations are numbered, for their
    options are longer than a sentence bears.
    """
    datasets = table.drop_duplicates(KEYS).to_dict("records")
    names: Names = {}
    numbers: Counter[tuple[object, ...]] = Counter()
    for row in datasets:
        same_task = [other for other in datasets if other["task"] == row["task"]]
        details = [
            str(row[key]).rstrip("/").rsplit("/", 1)[-1]
            for key in ("backbone", "setting")
            if len({other[key] for other in same_task}) > 1
        ]
        name = str(row["task"]) + (f" ({', '.join(details)})" if details else "")
        dataset = tuple(row[key] for key in DATASET_KEYS)
        numbers[dataset] += 1
        order = f" #{numbers[dataset]}" if row["variant"] else ""
        names[key_of(row)] = name + order
    return names


def key_of(row: Mapping[Hashable, object], suffix: str = "") -> tuple[object, ...]:
    """Return the values of `KEYS` in a row of any table."""
    return tuple(row[f"{key}{suffix}"] for key in KEYS)


def ranking_rows(ranking: pd.DataFrame, names: Names) -> list[list[str]]:
    """Return a row a pair of datasets: both names, and a cell for each of `RANKED`.

    A cell names the one that needs fewer parameters, by what factor, and on a second line the
    adjusted p; it is "not told apart" with both where p is larger than 0.05, and "-" where one of
    them has fewer than two seeds or no answer.

    Args:
        ranking: `Comparison.ranking`.
        names: Of the datasets; see `dataset_names`.
    """
    cells: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for row in ranking.to_dict("records"):
        fewer, more = (names[key_of(row, f"_{side}")] for side in ("fewer", "more"))
        first, second = sorted([fewer, more])
        pair = cells.setdefault((first, second), {})
        p_value = row["p_holm"]
        if pd.notna(p_value):
            told = f"{fewer} ÷ {compact(row['ratio'])}" if p_value <= ALPHA else "not told apart"
            pair[row["score"], row["reference"]] = f"{told}\n{p_text(p_value)}"
    return [
        [" and ".join(pair), *(found.get(measure, "-") for measure in RANKED)]
        for pair, found in sorted(cells.items())
    ]
