"""Frozen tables: the CSV files a paper's figures are drawn from, with their sources."""

import json
from pathlib import Path

import pandas as pd

from analysis.compare import compare
from analysis.compare_text import csv_text
from analysis.curves import with_gain_retained
from analysis.frontier import frontier
from analysis.load import FROM_SCRATCH, PATH, RunSet, with_curves
from analysis.ranks import Criterion, maps_at, without_map

CURVES_FILE = "curves.csv"
COMPARE_FILE = "compare.csv"
FIRST_FILE = "first.csv"
RANKING_FILE = "ranking.csv"
FRONTIER_FILE = "frontier.csv"
RANK_MAPS_FILE = "rank_maps.csv"
FIXED_XI_FILE = "fixed_xi_maps.csv"
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


def frozen_tables(
    runs: RunSet, *, at: Criterion, role: str = PATH, fixed_lambda: float | None = None
) -> dict[str, str]:
    """Return file -> text: the tables of `runs`, and `sources.json`, which says what they are of.

    `curves.csv`: every stage of every used run (paths, floors and controls); cells that are lists
    or dictionaries are JSON. `compare.csv`: what `analysis compare --csv` writes, with the
    inflections. `first.csv`: what goes first. `ranking.csv`: which of two datasets needs fewer
    parameters. `frontier.csv`: which adapter of N parameters is best. `rank_maps.csv`: the ranks of
    the chosen stages. `fixed_xi_maps.csv`, if asked for: those of `from_scratch` runs at one
    lambda.

    Args:
        runs: What was loaded.
        at: Which stages the rank maps show.
        role: Whose rank maps: path, or a control such as from_scratch.
        fixed_lambda: Common lambda of the runs that were trained at one xi from the start.

    Raises:
        ValueError: If there is no such stage.
    """
    runs = with_curves(runs)
    comparison = compare(runs)
    kinds = {RANK_MAPS_FILE: (at, role)}
    if fixed_lambda is not None:
        kinds[FIXED_XI_FILE] = (Criterion(kind="lambda", value=fixed_lambda), FROM_SCRATCH)
    maps = {
        file: maps_at(runs.ranks, runs.stages, which, role=whose)
        for file, (which, whose) in kinds.items()
    }
    texts = {
        CURVES_FILE: table_csv(with_gain_retained(runs.stages)),
        COMPARE_FILE: csv_text(comparison),
        FIRST_FILE: table_csv(comparison.first),
        RANKING_FILE: table_csv(comparison.ranking),
        FRONTIER_FILE: table_csv(frontier(runs.stages)),
        # Matrices stay in the order in which they were recorded.
        **{
            file: table_csv(table.sort_values(["run_id", "stage"], kind="stable"))
            for file, table in maps.items()
        },
    }
    used = json.loads(runs.runs[_SOURCE_COLUMNS].to_json(orient="records"))
    unmapped = [
        note
        for file, (_, whose) in kinds.items()
        for note in without_map(runs.stages, maps[file], role=whose)
    ]
    sources = {
        "rank_maps_at": str(at),
        "rank_maps_of": role,
        "fixed_lambda": fixed_lambda,
        "runs": used,
        "excluded": [{"path": str(path), "reason": reason} for path, reason in runs.excluded],
        "notes": [*comparison.notes, *unmapped],
    }
    return {**texts, SOURCES_FILE: json.dumps(sources, indent=2) + "\n"}


def table_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV; cells that are lists or dictionaries are JSON."""
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
    variants = [name for name in table if str(name).startswith("variant")]
    for column in variants:  # "" is written as nothing
        table[column] = ["" if pd.isna(name) else str(name) for name in table[column]]
    return table
