"""The page: tables and charts of many runs in one HTML file that asks for nothing from outside."""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
import yaml
from markupsafe import Markup, escape

from analysis.compare import Comparison, compare
from analysis.controls import configuration_notes
from analysis.curves import SHARES, with_gain_retained, with_gap
from analysis.frontier import frontier
from analysis.frontier_text import caution, frontier_heads, frontier_rows
from analysis.load import FLOOR, HOLD_DENSE, KEYS, PATH, RunSet, comparability_notes, with_curves
from analysis.long_names import pieces
from analysis.memory.verbs import memory_blocks
from analysis.ranking_table import RANKED, dataset_names, ranking_rows
from analysis.ranks import Criterion, stages_at
from analysis.report import look
from analysis.report.blocks import Dataset, block_text, curve_data, datasets_of, map_data
from analysis.report.curve_chart import curve_chart
from analysis.report.glyphs import glyph
from analysis.report.opening import opening
from analysis.report.sentences import what_you_see
from analysis.report.series import CURVES, GAP, MEASURES
from analysis.weights import has_refit, with_weights

_FOLDER = Path(__file__).parent


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


def report(runs: RunSet, *, texts: pd.DataFrame | None = None) -> Page:
    """Return the page of `runs`.

    Args:
        runs: What was loaded.
        texts: Rows of `analysis.memory.texts.read_texts`, to list the first and last lost examples.

    Raises:
        ValueError: If no path run has a curve, or two floor runs of one seed disagree.
    """
    runs = with_curves(runs)
    comparison = compare(runs)
    used = runs.runs
    stages = with_gap(with_gain_retained(runs.stages))
    datasets = datasets_of(comparison, stages)
    frontiers = frontier(stages)
    before_refit = _before_refit(comparison, runs)
    r = int(runs.ranks["r"].max()) if len(runs.ranks) else 1
    roles = sorted(set(stages["role"]) - {PATH, FLOOR, HOLD_DENSE})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable  # pyright: ignore[reportUnknownMemberType]  # of jinja2
    html = environment.get_template("page.html.jinja").render(
        style=(_FOLDER / "page.css").read_text("utf-8"),
        script=(_FOLDER / "page.js").read_text("utf-8"),
        bundle=_bundle(),
        data=_json(
            {
                "curve_spec": curve_chart(),
                "curves": {d.key: curve_data(d) for d in datasets},
                "penalised": {d.key: curve_data(d) for d in before_refit},
                "maps": {d.key: map_data(d, runs.ranks, r) for d in datasets},
            }
        ),
        opening=opening(comparison, runs, frontiers),
        sentences=what_you_see(comparison, runs, stages),
        datasets=[block_text(d) for d in datasets],
        measures=MEASURES,
        has_refit=bool(before_refit),
        curves=[_legend(curve) for curve in CURVES if curve != GAP],
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
        ranking=[
            [cell.split("\n") for cell in row]
            for row in ranking_rows(comparison.ranking, dataset_names(comparison.table))
        ],
        measures_ranked=RANKED,
        frontiers=_frontiers(frontiers, datasets),
        caution=caution(frontiers),
        memory=memory_blocks(runs, texts=texts),
        counts=_role_counts(used),
        runs=_run_rows(used, runs.configs),
        excluded=[{"path": str(path), "reason": reason} for path, reason in comparison.excluded],
        notes=[*comparability_notes(used), *configuration_notes(stages)],
        states=used["state"].value_counts().sort_index().to_dict(),
    )
    return Page(html=html, used=used, excluded=comparison.excluded, notes=comparison.notes)


def _breakable(name: str) -> Markup:
    """Return a name as HTML that a browser breaks after separators first."""
    return Markup("<wbr>").join(escape(piece) for piece in pieces(name))


def _before_refit(comparison: Comparison, runs: RunSet) -> list[Dataset]:
    """Return the datasets with the scores before the refit; none where no run has a refit.

    Their inflections are not looked for: what the page says of curves is of the refitted ones.
    """
    if not has_refit(runs.stages):
        return []
    stages = with_gap(with_gain_retained(with_weights(runs.stages, "penalised")))
    return [replace(dataset, drops=[]) for dataset in datasets_of(comparison, stages)]


def _frontiers(table: pd.DataFrame, datasets: list[Dataset]) -> list[dict[str, Any]]:
    """Return the frontier of every dataset that has a rival, as cells of a table."""
    blocks = table.groupby(KEYS, sort=True)  # in the order of the datasets
    return [
        {
            "key": dataset.key,
            "title": dataset.title,
            "heads": [head.split("\n") for head in frontier_heads(block)],
            "rows": [[cell.split("\n") for cell in row] for row in frontier_rows(block)],
        }
        for dataset, (_, block) in zip(datasets, blocks, strict=True)
        if block["role"].nunique() > 1
    ]


def _first_stage(datasets: list[Dataset]) -> int:
    """Return the stage at which the maps open: where the first dataset keeps 95 % of dense."""
    at = stages_at(datasets[0].path_stages, Criterion(kind="retention", value=0.95))
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


def _json(value: Any) -> str:
    """Return JSON that is safe inside of a script element, whatever the names hold."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@lru_cache(maxsize=1)
def _bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed in one script: window.vegaEmbed."""
    text = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in text.lower()
    return text
