"""The table behind the default of `gates`: `python -m experiments.default_gates_table`.

One row a (gate_lr, scale, averaging), mean over tasks and seeds with the standard deviation over
seeds: area under the gain-retained curve (mean over log10 of non-zero parameters from dense down to
1 %), of memorization and generalization; share of sparsifying stages in which more than 5 % of the
gates changed their zero status, or came back from zero, in the last pass; CPU seconds a run.
"""

import argparse
from pathlib import Path

import pandas as pd

from analysis.curves import SCORES, area_under_curve, with_gain_retained
from analysis.load import PATH, load_runs
from experiments.runner import RESULTS
from sorakit.records import load_run

POINT = ["gate_lr", "scale", "averaging"]


def run_table(folder: Path) -> pd.DataFrame:
    """Return one row a path run: its point, task, seed, areas, shares of stages and seconds."""
    runs = load_runs([folder])
    stages = with_gain_retained(runs.stages)
    rows = []
    for info in runs.runs[runs.runs["role"] == PATH].to_dict("records"):
        run = load_run(info["path"])
        path = stages[stages["run_id"] == info["run_id"]]
        sparse = path[path["stage"] > 0]
        gates = run.ranks[run.ranks["stage"] == 0]["r"].sum()
        row = {key: run.config["gates"][key] for key in POINT}
        row |= {"task": info["task"], "seed": info["seed"]}
        for score in SCORES:
            row[score] = area_under_curve(path, f"{score}_gain_retained")
        row["flickering"] = (sparse["gates_flickering"] > 0.05 * gates).mean()
        row["revived"] = (sparse["gates_revived"].astype(float) > 0.05 * gates).mean()
        row["distinct"] = path["num_nonzero_params"].nunique()
        row["seconds"] = sum(t["cpu_seconds"] for t in run.timings.to_dict("records"))
        rows.append(row)
    return pd.DataFrame(rows)


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a point: mean over tasks and seeds, and the spread of the seeds' means."""
    numbers = [*SCORES, "flickering", "revived", "distinct", "seconds"]
    means = table.groupby(POINT)[numbers].mean()
    a_seed = table.groupby([*POINT, "seed"])[SCORES].mean()
    spread = a_seed.groupby(POINT).std().add_suffix("_sd")
    return means.join(spread).join(table.groupby(POINT).size().rename("runs")).reset_index()


def markdown(summary: pd.DataFrame) -> str:
    """Return the summary as a Markdown table."""
    head = (
        "| gate_lr | scale | averaging | area, memorization | area, generalization | "
        "stages with > 5 % flickering | with > 5 % revived | CPU s a run | runs |"
    )
    lines = [head, "|" + "---|" * 9]
    for row in summary.to_dict("records"):
        areas = [f"{row[s]:.3f} ± {row[f'{s}_sd']:.3f}" for s in SCORES]
        shares = [f"{row['flickering']:.0%}", f"{row['revived']:.0%}"]
        cells = [f"{row['gate_lr']:g}", row["scale"], f"{row['averaging']:g}", *areas, *shares]
        cells += [f"{row['seconds']:.0f}", str(row["runs"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table, and write it beside the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="?", type=Path, default=RESULTS / "default_gates")
    parser.add_argument("--by-task", action="store_true", help="one table a task")
    args = parser.parse_args()
    table = run_table(args.runs)
    if args.by_task:
        for task, part in table.groupby("task"):
            print(f"\n{task}\n{markdown(summarise(part))}")
    text = markdown(summarise(table))
    (args.runs / "table.md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
