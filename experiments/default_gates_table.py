"""The table behind the default of `gates`: `python -m experiments.default_gates_table`.

One row a (gate_lr, scale, averaging), mean over tasks and seeds with the standard deviation over
seeds, of memorization / generalization: the dense gain, score - floor; the area under the
gain-retained curve (mean over log10 of non-zero parameters from dense down to 1 %); the area under
the gain, in shares of the largest dense gain that any point reached on that task and seed, so that
a point is not rewarded for a dense stage that learnt little. Then the share of sparsifying stages
in which more than 5 % of the gates changed their zero status, or came back from zero, in the last
pass; CPU seconds a run.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.curves import SCORES, area_under_curve, flickering_stages, with_gain_retained
from analysis.load import PATH, load_runs
from experiments import RESULTS
from sorakit.config import GatesConfig
from sorakit.records import load_run

FILE = "gates.md"
POINT = ["gate_lr", "scale", "averaging"]


def run_table(folder: Path) -> pd.DataFrame:
    """Return one row a path run: its point, task, seed, areas, shares of stages and seconds."""
    runs = load_runs([folder])
    stages = with_gain_retained(runs.stages)
    rows = []
    for info in runs.runs[runs.runs["role"] == PATH].to_dict("records"):
        run = load_run(info["path"])
        path = stages[stages["run_id"] == info["run_id"]]
        gates = GatesConfig(**run.config["gates"])
        row: dict[str, Any] = {"gate_lr": gates.gate_lr, "scale": gates.scale}
        row["averaging"] = gates.gradient_averaging  # null stands for a number
        row |= {"task": info["task"], "seed": info["seed"]}
        for score in SCORES:
            row[score] = area_under_curve(path, f"{score}_gain_retained")
            dense, floor = path[f"{score}_dense"].iloc[0], path[f"{score}_floor"].iloc[0]
            row[f"{score}_dense_gain"] = dense - floor
            row[f"{score}_of_best"] = area_under_curve(path, score) - floor
        for name in ("flickering", "revived"):
            unsettled, total = flickering_stages(path, column=f"gates_{name}")
            row[name] = unsettled / total
        row["distinct"] = path["num_nonzero_params"].nunique()
        row["seconds"] = sum(t["cpu_seconds"] for t in run.timings.to_dict("records"))
        rows.append(row)
    table = pd.DataFrame(rows)
    for score in SCORES:
        best = table.groupby(["task", "seed"])[f"{score}_dense_gain"].transform("max")
        table[f"{score}_of_best"] /= best
    return table


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row a point: mean over tasks and seeds, and the spread of the seeds' means."""
    areas = [*SCORES, *(f"{score}_of_best" for score in SCORES)]
    gains = [f"{score}_dense_gain" for score in SCORES]
    numbers = [*areas, *gains, "flickering", "revived", "distinct", "seconds"]
    means = table.groupby(POINT)[numbers].mean()
    a_seed = table.groupby([*POINT, "seed"])[areas].mean()
    spread = a_seed.groupby(POINT).std().add_suffix("_sd")
    return means.join(spread).join(table.groupby(POINT).size().rename("runs")).reset_index()


def markdown(summary: pd.DataFrame) -> str:
    """Return the summary as a Markdown table."""
    head = (
        "| gate_lr | scale | averaging | dense gain | area, gain retained | area, of the best "
        "dense gain | stages > 5 % flickering | > 5 % revived | CPU s a run | runs |"
    )
    lines = [head, "|" + "---|" * 10]
    for row in summary.to_dict("records"):
        cells = [f"{row['gate_lr']:g}", row["scale"], f"{row['averaging']:g}"]
        cells.append(" / ".join(f"{row[f'{s}_dense_gain']:.3f}" for s in SCORES))
        for suffix in ("", "_of_best"):
            columns = [f"{s}{suffix}" for s in SCORES]
            cells.append(" / ".join(f"{row[c]:.2f} ± {row[f'{c}_sd']:.2f}" for c in columns))
        cells += [f"{row['flickering']:.0%}", f"{row['revived']:.0%}"]
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
    (args.runs / FILE).write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
