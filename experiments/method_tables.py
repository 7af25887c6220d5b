"""Freeze the records behind tables 1 to 4: `python -m experiments.method_tables [RUNS ...]`.

Without folders: the committed records of the small curves and of the tables' small sweeps, as far
as they are there. Writes `paper_figs/data/methods.csv` and the run ids that it is of.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frozen import table_csv
from analysis.method_tables import METHODS_FILE, METHODS_SOURCE_FILE
from experiments import RESULTS
from sorakit.records import find_runs, load_run, role_of
from sorakit.records.matching import data_of
from sorakit.records.reader import read_timings

FOLDERS = ("small_curves", "table1_small", "table2_small", "table3_small", "table4_small")
DATA = RESULTS.parents[1] / "paper_figs" / "data"
SIX = ["W_Q", "W_K", "W_V", "W_O", "W_F1", "W_F2"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return a row a stage of a run."""
    run = load_run(path, with_ranks=False)
    method = run.config["method"]
    targets = method["target_modules"]
    who = {
        "run_id": run.run_id,
        **data_of(run.config),
        "split": run.config["task"]["split_protocol"],
        "role": role_of(method["name"], run.config["stage"]["control"]),
        "size": _size(method),
        "lr": run.config["optim"]["lr"],
        "budget": run.config["xi"]["budget"],
        "matrices": "all six" if targets in ("all-linear", SIX) else ", ".join(targets),
    }
    columns = [
        "stage",
        "num_nonzero_params",
        "num_adapter_params",
        "memorization",
        "generalization",
        "penalised_generalization",
        "epochs",
        "stopped_by",
        "refit_stopped_by",
    ]
    seconds = [timing["cpu_seconds"] for timing in read_timings(path)]
    return [
        {**who, **{str(name): value for name, value in stage.items()}, "cpu_seconds": cpu}
        for stage, cpu in zip(run.stages[columns].to_dict("records"), seconds, strict=True)
    ]


def _size(method: dict[str, Any]) -> str:
    """Return what sets runs of one method apart, in the words of the tables."""
    if method["name"] == "lora":
        return f"r = {method['r']}"
    if method["name"] == "adalora":
        target = method.get("target_r")
        return f"r = {method['r']} to {method['r'] / 2 if target is None else target:g}"
    return ""


def main() -> None:
    """Write the frozen table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    there = [RESULTS / name for name in FOLDERS if (RESULTS / name).is_dir()]
    parser.add_argument("runs", type=Path, nargs="*", default=there)
    folders = parser.parse_args().runs
    rows = [row for folder in folders for path in find_runs(folder) for row in rows_of(path)]
    table = pd.DataFrame(rows).sort_values(["task", "role", "size", "seed", "run_id", "stage"])
    (DATA / METHODS_FILE).write_text(table_csv(table), "utf-8")
    source = {"runs": sorted(set(table["run_id"])), "folders": [path.name for path in folders]}
    (DATA / METHODS_SOURCE_FILE).write_text(json.dumps(source, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
