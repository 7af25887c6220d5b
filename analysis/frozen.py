"""Frozen tables: the CSV files a paper's figures are drawn from, with their sources."""

import json
from pathlib import Path

import pandas as pd

from analysis.compare import compare
from analysis.compare_text import csv_text
from analysis.curves import with_gain_retained
from analysis.load import PATH, RunSet, with_curves
from analysis.ranks import Criterion, maps_at, without_map

CURVES_FILE = "curves.csv"
COMPARE_FILE = "compare.csv"
FIRST_FILE = "first.csv"
RANK_MAPS_FILE = "rank_maps.csv"
SOURCES_FILE = "sources.json"

_SOURCE_COLUMNS = [
    "run_id",
    "task",
    "backbone",
    "setting",
    "variant",
    "seed",
    "role",
    "state",
    "method_version",
    "git_sha",
    "git_dirty",
    "data_fingerprint",
]


def frozen_tables(runs: RunSet, *, at: Criterion, role: str = PATH) -> dict[str, str]:
    """Return file -> text: the tables of `runs`, and `sources.json`, which says what they are of.

    `curves.csv`: every stage of every used run (paths, floors and controls); cells that are lists
    or dictionaries are JSON. `compare.csv`: what `analysis compare --csv` writes, with the
    inflections. `first.csv`: what goes first. `rank_maps.csv`: the ranks of the chosen stages.

    Args:
        runs: What was loaded.
        at: Which stages the rank maps show.
        role: Whose rank maps: path, or a control such as from_scratch.
    """
    runs = with_curves(runs)
    comparison = compare(runs)
    maps = maps_at(runs.ranks, runs.stages, at, role=role)
    maps = maps.sort_values(["run_id", "stage"], kind="stable")  # matrices as they were recorded
    texts = {
        CURVES_FILE: _csv(with_gain_retained(runs.stages)),
        COMPARE_FILE: csv_text(comparison),
        FIRST_FILE: _csv(comparison.first),
        RANK_MAPS_FILE: _csv(maps),
    }
    used = json.loads(runs.runs[_SOURCE_COLUMNS].to_json(orient="records"))
    sources = {
        "rank_maps_at": str(at),
        "rank_maps_of": role,
        "runs": used,
        "excluded": [{"path": str(path), "reason": reason} for path, reason in runs.excluded],
        "notes": [*comparison.notes, *without_map(runs.stages, maps, role=role)],
    }
    return {**texts, SOURCES_FILE: json.dumps(sources, indent=2) + "\n"}


def _csv(table: pd.DataFrame) -> str:
    return table.map(_flat).to_csv(index=False, lineterminator="\n")


def _flat(cell: object) -> object:
    return json.dumps(cell) if isinstance(cell, list | dict) else cell


def read_frozen(file: Path) -> pd.DataFrame:
    """Read a table as `analysis freeze` wrote it.

    Run ids stay text: some consist of digits only. Floats come back exactly, which pandas' faster
    engine does not promise in every version.
    """
    ids = dict.fromkeys(("run_id", "dense_id", "floor_id"), str)
    table = pd.read_csv(file, dtype=ids, engine="python")
    table = table.astype({"layer": "Int64"}) if "layer" in table else table
    if "variant" in table:  # "" is written as nothing
        table["variant"] = ["" if pd.isna(name) else str(name) for name in table["variant"]]
    return table
