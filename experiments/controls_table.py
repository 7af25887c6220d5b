"""The tables of the controls: `python -m experiments.controls_table`.

For every task, one row a schedule: memorization / generalization at shares of the full adapter's
parameters, on straight lines between the stages in log10, mean over seeds ± standard deviation;
then, for every control, its difference to the path of the same seed. Runs with other gates than the
default ones are left out.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from analysis.control_differences import scores_at_shares
from analysis.curves import SCORES
from analysis.load import PATH, load_runs
from experiments import RESULTS
from sorakit.config import GatesConfig

FILE = "controls.md"
SHARES = (0.5, 0.2, 0.05, 0.01)
NOT_MEASURED = "-"


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Return for every task one row a (role, seed) and one column a (score, share)."""
    runs = load_runs([folder])
    gates = asdict(GatesConfig())
    default = [run_id for run_id, config in runs.configs.items() if config["gates"] == gates]
    stages = runs.stages[runs.stages["run_id"].isin(default)]
    found: dict[str, dict[tuple[str, int], dict[tuple[str, float], float]]] = {}
    for (task, role, seed, _), run in stages.groupby(["task", "role", "seed", "run_id"]):
        found.setdefault(str(task), {})[role, seed] = {
            (score, share): value
            for score in SCORES
            for share, value in zip(SHARES, scores_at_shares(run, score, SHARES), strict=True)
        }
    return {
        task: pd.DataFrame.from_dict(rows, orient="index").rename_axis(["role", "seed"])
        for task, rows in found.items()
    }


def page(folder: Path) -> str:
    """Return the tables of every task as Markdown."""
    return "\n".join(f"{task}:\n\n{markdown(rows)}" for task, rows in tables(folder).items())


def markdown(scores: pd.DataFrame) -> str:
    """Return the table of a task, and the paired differences to the path, as Markdown."""
    roles = [PATH, *sorted(set(scores.index.get_level_values("role")) - {PATH})]
    head = "| schedule | seeds |" + "".join(
        f" {share:.0%} of the full adapter |" for share in SHARES
    )
    lines = [head, "|" + "---|" * (2 + len(SHARES))]
    lines += [_row(role, scores.loc[role]) for role in roles]
    lines += ["", "Path minus control, same seed:", "", *lines[:2]]
    for role in roles[1:]:
        difference = (scores.loc[PATH] - scores.loc[role]).dropna(how="all")
        lines.append(_row(role, difference, sign="+"))
    return "\n".join(lines) + "\n"


def _row(name: str, scores: pd.DataFrame, *, sign: str = "") -> str:
    cells = [
        " / ".join(_cell(scores[score, share].dropna(), sign) for score in SCORES)
        if scores[SCORES[0], share].notna().any()
        else NOT_MEASURED
        for share in SHARES
    ]
    return f"| {name} | {len(scores)} | " + " | ".join(cells) + " |"


def _cell(values: pd.Series, sign: str) -> str:
    spread = f" ± {values.std():.3f}" if len(values) > 1 else " (one seed)"
    return f"{values.mean():{sign}.3f}{spread}"


def main() -> None:
    """Print the table, and write it beside the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="?", type=Path, default=RESULTS / "controls")
    args = parser.parse_args()
    text = page(args.runs)
    (args.runs / FILE).write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
