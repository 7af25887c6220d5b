"""Frozen tables: the CSV files a paper's figures are drawn from, with their sources."""

import json
from pathlib import Path

import pandas as pd

from analysis.curves import floor_scores, hold_dense_scores, summary, with_gain_retained
from analysis.load import RunSet

CURVES_FILE = "curves.csv"
RANKS_FILE = "ranks.csv"
FLOORS_FILE = "floors.csv"
HOLD_DENSE_FILE = "hold_dense.csv"
SUMMARY_FILE = "summary.csv"
SOURCES_FILE = "sources.json"

_SOURCE_COLUMNS = [
    "run_id",
    "task",
    "backbone",
    "setting",
    "seed",
    "role",
    "state",
    "method_version",
    "git_sha",
    "git_dirty",
    "data_fingerprint",
]


def freeze(runs: RunSet, out: Path) -> list[Path]:
    """Write the tables of `runs` and `sources.json` into the existing folder `out`.

    `curves.csv` holds every stage of every used run (paths, floors and controls); cells that are
    lists or dictionaries are JSON.

    Returns:
        The files written.
    """
    tables = {
        CURVES_FILE: with_gain_retained(runs.stages),
        RANKS_FILE: runs.ranks,
        FLOORS_FILE: floor_scores(runs.stages),
        HOLD_DENSE_FILE: hold_dense_scores(runs.stages),
        SUMMARY_FILE: summary(runs.stages),
    }
    files: list[Path] = []
    for name, table in tables.items():
        table.map(_flat).to_csv(out / name, index=False, lineterminator="\n")
        files.append(out / name)
    used = json.loads(runs.runs[_SOURCE_COLUMNS].to_json(orient="records"))
    excluded = [{"path": str(path), "reason": reason} for path, reason in runs.excluded]
    text = json.dumps({"runs": used, "excluded": excluded}, indent=2)
    (out / SOURCES_FILE).write_text(text + "\n", "utf-8")
    return [*files, out / SOURCES_FILE]


def _flat(cell: object) -> object:
    return json.dumps(cell) if isinstance(cell, list | dict) else cell


def read_frozen(file: Path) -> pd.DataFrame:
    """Read `curves.csv` or `ranks.csv` as `freeze` wrote it.

    Run ids stay text: some consist of digits only. Floats come back exactly, which pandas' faster
    engine does not promise in every version.
    """
    table = pd.read_csv(file, dtype={"run_id": str}, engine="python")
    return table.astype({"layer": "Int64"}) if "layer" in table else table
