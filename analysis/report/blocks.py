"""The blocks of the page: what it holds of one dataset, as text and as data of its charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare import Comparison
from analysis.compare_text import (
    Row,
    control_sentences,
    drop_sentence,
    first_sentence,
    interval_notes,
    levels_off,
    share_cells,
)
from analysis.controls import block_of, dataset_name, missing_controls
from analysis.count_axis import count_axis
from analysis.curves import SCORES
from analysis.doubts import doubt_sentences
from analysis.figures import metric_label
from analysis.intervals import p_text
from analysis.load import KEYS, PATH
from analysis.ranking_table import dataset_names
from analysis.report.curve_chart import chart_values
from analysis.report.rank_chart import rank_chart, rank_map_series
from analysis.report.sentences import number
from analysis.report.series import series, value_limits_of

_DIGITS = 5  # significant digits of numbers in the page


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One block of the page.

    Attributes:
        key: Its id in the page.
        title: What it is called.
        subtitle: Backbone and options.
        path_stages: Stages of its paths.
        stages: Stages of its paths, floors and controls.
        rows: Its rows of `Comparison.table`.
        drops: Its rows of `Comparison.dataset_inflections`.
        first: Its rows of `Comparison.first`.
        controls: How far its paths are from their controls, in sentences.
    """

    key: str
    title: str
    subtitle: str
    path_stages: pd.DataFrame
    stages: pd.DataFrame
    rows: Sequence[Row]
    drops: Sequence[Row]
    first: Sequence[Row]
    controls: Sequence[str]


def datasets_of(comparison: Comparison, stages: pd.DataFrame) -> list[Dataset]:
    """Return the blocks of the page, by name.

    Args:
        comparison: Comparison of the runs.
        stages: Their stages, with the columns of `with_gain_retained` and `with_gap`.
    """
    blocks = list(comparison.table.groupby(KEYS, sort=True))
    titles = dataset_names(comparison.table)
    datasets: list[Dataset] = []
    for index, (names, block) in enumerate(blocks):
        own = block_of(stages, names)
        drops, first = (
            table[(table[KEYS] == list(names)).all(axis=1)].to_dict("records")
            for table in (comparison.dataset_inflections, comparison.first)
        )
        drops.sort(key=lambda row: SCORES.index(str(row["score"])))
        task, backbone, setting, variant = map(str, names)
        whole = dataset_name(task, backbone, setting, variant)
        # below the heading stands everything that a full name has in brackets
        details = whole[len(task) :].strip(" ()")
        datasets.append(
            Dataset(
                key=f"d{index}",
                title=titles[names],
                subtitle=details,
                path_stages=own[own["role"] == PATH],
                stages=own,
                rows=block.to_dict("records"),
                drops=drops,
                first=first,
                controls=control_sentences(comparison.controls, names),
            )
        )
    return datasets


def block_text(dataset: Dataset) -> dict[str, Any]:
    """Return what the page says of one dataset."""
    first = dataset.rows[0]
    seeds = int(str(first["seeds"]))
    several = "" if seeds > 1 else ": no interval over seeds"
    return {
        "key": dataset.key,
        "title": dataset.title,
        "subtitle": dataset.subtitle,
        "facts": f"{seeds} {'seed' if seeds == 1 else 'seeds'}{several} · "
        f"{number(first['dense_params']):,.0f} parameters dense",
        "drops": [_capital(drop_sentence(row)) for row in dataset.drops],
        "first": [_capital(first_sentence(row)) for row in dataset.first],
        "controls": [_capital(sentence) for sentence in dataset.controls],
        "missing": [*missing_controls(dataset.stages), *doubt_sentences(dataset.path_stages)],
        "interval_notes": [_capital(note) for note in interval_notes(dataset.rows)],
        "undefined_gains": sorted(_undefined_gains(dataset)),
        "shares": [
            {
                "score": row["score"],
                "reference": row["reference"],
                "cells": [cell.split("\n") for cell in share_cells(row)],
            }
            for row in dataset.rows
        ],
    }  # fmt: skip


def _undefined_gains(dataset: Dataset) -> set[str]:
    return {
        str(row["score"])
        for row in dataset.rows
        if row["reference"] == "gain" and row["status"] != "defined"
    }


def curve_data(dataset: Dataset) -> dict[str, Any]:
    """Return parameters and tables of the chart of its curves."""
    tables = series(dataset.stages, undefined_gains=_undefined_gains(dataset))
    axis = count_axis(
        [
            *tables.points["num_nonzero_params"].astype(float),
            *dataset.path_stages["num_nonzero_params"].astype(float),
        ]
    )
    drops = [
        {
            "curve": row["score"],
            "detected": bool(row["detected"]),
            "none": "not tested: too few counts"
            if row["seeds_tested"] == 0
            else f"{levels_off(row) or 'no inflection'} ({p_text(number(row['p_value']))})",
            "sentence": drop_sentence(row),
            **{name: 10 ** number(row[name]) for name in ("drop", "drop_low", "drop_high")},
        }
        for row in dataset.drops
    ]
    metric = metric_label(str(dataset.path_stages["metric"].iloc[0]))
    return {
        "values": chart_values(axis, value_limits_of(tables), metric=metric),
        "tables": {
            "breaks": {"x": [axis.zero_break] if axis.has_zero else []},
            "points": _columns(tables.points),
            "means": _columns(tables.means),
            "references": _columns(tables.references),
            "drops": _columns(pd.DataFrame(drops)),
        },
    }


def map_data(dataset: Dataset, ranks: pd.DataFrame, r: int) -> dict[str, Any] | None:
    """Return chart and maps of one dataset; None where no matrix of a layer is adapted."""
    own = ranks[ranks["run_id"].isin(dataset.path_stages["run_id"])] if len(ranks) else ranks
    if own.empty or own["layer"].isna().all():
        return None
    maps = rank_map_series(own, dataset.path_stages)
    return {
        "spec": rank_chart(layers=maps.layers, matrices=maps.matrices, r=r),
        "layers": maps.layers,
        "matrices": maps.matrices,
        "series": [
            {
                "label": one.label,
                "ranks": _numbers(one.ranks.reshape(len(one.ranks), -1).tolist(), digits=3),
                "captions": one.captions,
                "remarks": one.remarks,
                "outside": one.outside,
            }
            for one in maps.series
        ],
    }


def _columns(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table by column, without columns that hold nothing: a third of the size of rows."""
    kept = table.dropna(axis="columns", how="all")
    return {str(name): _numbers(kept[name].tolist(), digits=_DIGITS) for name in kept}


def _numbers(value: Any, *, digits: int) -> Any:
    """Return JSON's own types, rounded; what is not finite becomes null."""
    if isinstance(value, list):
        return [_numbers(item, digits=digits) for item in value]  # pyright: ignore[reportUnknownVariableType]  # of any depth
    if isinstance(value, float):  # numpy's are
        if not np.isfinite(value):
            return None
        rounded = float(f"{value:.{digits}g}")
        return int(rounded) if rounded.is_integer() else rounded
    return value


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
