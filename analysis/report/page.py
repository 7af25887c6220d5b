"""The page: tables and charts of many runs in one HTML file that asks for nothing from outside."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import vl_convert
import yaml
from markupsafe import Markup

from analysis.compare import KEYS, Comparison, compare
from analysis.compare_text import (
    Row,
    drop_sentence,
    first_sentence,
    interval_notes,
    ranking_sentences,
    share_cells,
)
from analysis.controls import dataset_name, missing_controls
from analysis.count_axis import count_axis
from analysis.curves import SCORES, SHARES, with_gain_retained, with_gap
from analysis.figures import metric_label
from analysis.load import DATASET_KEYS, FLOOR, HOLD_DENSE, PATH, RunSet, comparability_notes
from analysis.ranks import stages_at
from analysis.report import look
from analysis.report.curve_chart import chart_values, curve_chart
from analysis.report.glyphs import glyph
from analysis.report.rank_chart import rank_chart, rank_map_series
from analysis.report.sentences import short_names, what_you_see
from analysis.report.series import CURVES, GAP, MEASURES, series

_FOLDER = Path(__file__).parent
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
    """

    key: str
    title: str
    subtitle: str
    path_stages: pd.DataFrame
    stages: pd.DataFrame
    rows: list[Row]
    drops: list[Row]
    first: list[Row]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A finished page and what is to be said beside it.

    Attributes:
        html: The whole file.
        used: Rows of `RunSet.runs` that are on it.
        excluded: Folder and reason of every run that is not.
        notes: Sentences that a reader needs beside the curves.
    """

    html: str
    used: pd.DataFrame
    excluded: list[tuple[Path, str]]
    notes: list[str]


def report(runs: RunSet) -> Page:
    """Return the page of `runs`.

    Raises:
        ValueError: If no path run has a curve, or two floor runs of one seed disagree.
    """
    comparison = compare(runs)
    left_out = {path for path, _ in comparison.excluded}
    used = runs.runs[[Path(str(path)) not in left_out for path in runs.runs["path"]]]
    stages = runs.stages[runs.stages["run_id"].isin(used["run_id"])]
    stages = with_gap(with_gain_retained(stages))
    datasets = _datasets(comparison, stages)
    r = int(runs.ranks["r"].max()) if len(runs.ranks) else 1
    roles = sorted(set(stages["role"]) - {PATH, FLOOR, HOLD_DENSE})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.jinja").render(
        style=(_FOLDER / "page.css").read_text("utf-8"),
        script=(_FOLDER / "page.js").read_text("utf-8"),
        bundle=_bundle(),
        data=_json(
            {
                "curve_spec": curve_chart(),
                "curves": {d.key: _curve_data(d) for d in datasets},
                "maps": {d.key: _map_data(d, runs.ranks, r) for d in datasets},
            }
        ),
        sentences=what_you_see(comparison, runs, stages),
        datasets=[
            {**_block(d), "toggle": name}
            for d, name in zip(datasets, short_names([d.rows[0] for d in datasets]), strict=True)
        ],
        measures=MEASURES,
        curves=[_legend(curve) for curve in CURVES if curve != GAP],
        gap=_legend(GAP),
        roles=[
            {**_legend(role), "shown": role in look.SHOWN_ROLES}
            for role in (FLOOR, HOLD_DENSE, *roles)
            if role in (*roles, *stages["role"])
        ],
        num_stages=int(stages.loc[stages["role"] == PATH, "stage"].max()),
        first_stage=_first_stage(datasets),
        rank_colours=look.RANK_COLOURS,
        full_rank=r,
        shares=list(SHARES),
        ranking=ranking_sentences(comparison.ranking) if len(comparison.ranking) else [],
        counts=_role_counts(used),
        runs=_run_rows(used, runs.configs),
        excluded=[{"path": str(path), "reason": reason} for path, reason in comparison.excluded],
        notes=comparability_notes(used),
        states=used["state"].value_counts().sort_index().to_dict(),
    )
    return Page(html=html, used=used, excluded=comparison.excluded, notes=comparison.notes)


def _datasets(comparison: Comparison, stages: pd.DataFrame) -> list[Dataset]:
    variants = comparison.runs.drop_duplicates("run_id").set_index("run_id")["variant"]
    blocks = list(comparison.table.groupby(KEYS, sort=True))
    datasets: list[Dataset] = []
    for index, (names, block) in enumerate(blocks):
        same = (stages[DATASET_KEYS] == list(names[:-1])).all(axis=1)
        is_path = stages["role"] == PATH
        own = stages["run_id"].map(variants) == names[-1]
        drops, first = (
            table[(table[KEYS] == list(names)).all(axis=1)].to_dict("records")
            for table in (comparison.dataset_inflections, comparison.first)
        )
        drops.sort(key=lambda row: SCORES.index(str(row["score"])))
        task, backbone, setting, variant = map(str, names)
        whole = dataset_name(task, backbone, setting, variant)
        # the task is the heading; what stands in brackets after it, the line below
        details = whole[len(task) :].strip(" ()")
        datasets.append(
            Dataset(
                key=f"d{index}",
                title=task,
                subtitle=details,
                path_stages=stages[same & is_path & own],
                stages=stages[same & (~is_path | own)],
                rows=block.to_dict("records"),
                drops=drops,
                first=first,
            )
        )
    return datasets


def _block(dataset: Dataset) -> dict[str, Any]:
    first = dataset.rows[0]
    seeds = int(str(first["seeds"]))
    controls = sorted(set(dataset.stages["role"]) - {PATH})
    several = "" if seeds > 1 else ": no interval over seeds"
    return {
        "key": dataset.key,
        "title": dataset.title,
        "subtitle": dataset.subtitle,
        "facts": f"{seeds} {'seed' if seeds == 1 else 'seeds'}{several} · "
        f"{float(str(first['dense_params'])):,.0f} parameters dense",
        "drops": [_capital(drop_sentence(row)) for row in dataset.drops],
        "first": [_capital(first_sentence(row)) for row in dataset.first],
        "missing": missing_controls(dataset.stages),
        "interval_notes": [_capital(note) for note in interval_notes(dataset.rows)],
        "undefined_gains": sorted(_undefined_gains(dataset)),
        "controls": controls,
        "shares": [
            {"score": row["score"], "reference": row["reference"], "cells": _split(share_cells(row))}
            for row in dataset.rows
        ],
    }  # fmt: skip


def _undefined_gains(dataset: Dataset) -> set[str]:
    return {
        str(row["score"])
        for row in dataset.rows
        if row["reference"] == "gain" and row["status"] != "defined"
    }


def _curve_data(dataset: Dataset) -> dict[str, Any]:
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
            else f"no inflection (p = {float(str(row['p_value'])):.2g})",
            "sentence": drop_sentence(row),
            **{name: 10 ** float(str(row[name])) for name in ("drop", "drop_low", "drop_high")},
        }
        for row in dataset.drops
    ]
    metric = metric_label(str(dataset.path_stages["metric"].iloc[0]))
    return {
        "values": chart_values(axis, metric=metric),
        "tables": {
            "breaks": {"x": [axis.zero_break] if axis.has_zero else []},
            "points": _columns(tables.points),
            "means": _columns(tables.means),
            "references": _columns(tables.references),
            "drops": _columns(pd.DataFrame(drops)),
        },
    }


def _map_data(dataset: Dataset, ranks: pd.DataFrame, r: int) -> dict[str, Any] | None:
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


def _first_stage(datasets: Sequence[Dataset]) -> int:
    """Return the stage at which the maps open: where the first dataset keeps 95 % of dense."""
    at = stages_at(datasets[0].path_stages, retention=0.95)
    return min(at.values(), default=0)


def _legend(name: str) -> dict[str, Any]:
    # made here from constants, so safe to put into the page as it is
    return {"name": name, "glyph": Markup(glyph(name))}


def _role_counts(used: pd.DataFrame) -> str:
    counts = used["role"].value_counts()
    order = [PATH, FLOOR, HOLD_DENSE, *sorted(set(counts.index) - {PATH, FLOOR, HOLD_DENSE})]
    return ", ".join(f"{counts[role]} {role}" for role in order if role in counts)


def _run_rows(used: pd.DataFrame, configs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    order = ["task", "backbone", "setting", "role", "seed", "run_id"]
    return [
        {
            **{str(key): value for key, value in row.items()},
            "git": str(row["git_sha"] or "")[:8] + ("+" if row["git_dirty"] else ""),
            "config": yaml.safe_dump(configs[str(row["run_id"])], sort_keys=False),
        }
        for row in used.sort_values(order).to_dict("records")
    ]


def _columns(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table by column, without columns that hold nothing: a third of the size of rows."""
    kept = table.dropna(axis="columns", how="all")
    return {str(name): _numbers(kept[name].tolist(), digits=_DIGITS) for name in kept}


def _numbers(value: Any, *, digits: int) -> Any:
    """Return JSON's own types, rounded; what is not finite becomes null."""
    if isinstance(value, list):
        return [_numbers(item, digits=digits) for item in value]  # pyright: ignore[reportUnknownVariableType]  # of any depth
    if isinstance(value, float | np.floating):
        if not np.isfinite(value):
            return None
        rounded = float(f"{value:.{digits}g}")
        return int(rounded) if rounded.is_integer() else rounded
    return value


def _json(value: Any) -> str:
    """Return JSON that is safe inside of a script element, whatever the names hold."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _split(cells: list[str]) -> list[list[str]]:
    return [cell.split("\n") for cell in cells]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


@lru_cache(maxsize=1)
def _bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed in one script: window.vegaEmbed."""
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in text.lower()
    return text
