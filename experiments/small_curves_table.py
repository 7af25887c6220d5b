"""The tables of the small curves: `python -m experiments.small_curves_table [RUNS]`.

For every task of `experiments/small_curves.yaml`: the path beside its rivals at equal numbers of
parameters, with intervals over the seeds that are there, and how its phases ended.
"""

import argparse
from pathlib import Path

import pandas as pd

from analysis.frontier import frontier
from analysis.load import PATH, load_runs
from analysis.markdown import frontier_tables
from experiments import RESULTS

FILE = "curves.md"
FOLDER = RESULTS / "small_curves"


def page(folder: Path) -> str:
    """Return the tables of every task as Markdown."""
    stages = load_runs([folder]).stages
    tables = frontier_tables(frontier(stages))
    return "\n".join(
        f"{task}:\n\n{table}\n\n{_endings(stages[stages['task'] == task])}\n"
        for task, table in tables.items()
    )


def _endings(stages: pd.DataFrame) -> str:
    """Return how many dense stages and refits ended by their guard, in one sentence."""
    paths = stages[stages["role"] == PATH]
    dense, sparse = paths[paths["stage"] == 0], paths[paths["stage"] > 0]
    by_guard = [
        int((phases == "max_epochs").sum())
        for phases in (dense["stopped_by"], sparse["refit_stopped_by"])
    ]
    seeds = paths["seed"].nunique()
    return (
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}. Of the path {by_guard[0]} of {len(dense)} "
        f"dense stages and {by_guard[1]} of {len(sparse)} refits ended by their guard."
    )


def main() -> None:
    """Write the tables beside the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="?", default=FOLDER)
    args = parser.parse_args()
    (args.runs / FILE).write_text(page(args.runs), "utf-8")


if __name__ == "__main__":
    main()
