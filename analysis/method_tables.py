"""The paper's tables with our numbers: methods by tasks, rank budgets, which matrices, time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.intervals import Interval, student_t_interval
from analysis.latex import escape_latex, tabular
from analysis.load import PATH
from analysis.number_text import compact, percent

METHODS_FILE = "methods.csv"
"""What `experiments/method_tables.py` freezes: one row a (run, stage)."""
METHODS_SOURCE_FILE = "methods_source.json"

NOT_RUN = "not run"
NOT_MEASURED = "not reached"
SHARES = (0.5, 0.1, 0.02)
"""Of the adapter of all ranks, at which methods with a curve are read off."""
TITLES = {
    "full": "Full fine-tuning",
    "adapter": "Adapter (Houlsby)",
    "bitfit": "BitFit",
    "prefix": "Prefix tuning",
    "prompt": "Prompt tuning",
    "lora": "LoRA",
    "adalora": "AdaLoRA",
    "dylora": "DyLoRA",
    "lora_svd": "LoRA cut by singular values, refitted",
    "lora_magnitude": "LoRA cut by magnitude, refitted",
    "lora_random": "LoRA cut at random, refitted",
    "vera": "VeRA",
    "random_subspace": "Random subspace",
    "floor": "Head only",
    "random_mask": "SoRA's dense stage, random ranks",
    PATH: "SoRA",
}
"""Role of runs -> row of table 1."""
STAGED = ("dylora", "lora_svd", "lora_magnitude", "lora_random", "random_mask", PATH)
MATRICES = ("W_Q, W_K", "W_Q, W_V", "W_Q, W_K, W_V, W_O", "W_F1, W_F2", "all six")


@dataclass(frozen=True, kw_only=True)
class MethodTable:
    """A table as text.

    Attributes:
        heads: Names of the columns.
        rows: Cells; the first columns are names, the others numbers or why there is none.
        names: How many columns are names.
        note: What the numbers are: score, backbone, seeds, rule.
    """

    heads: list[str]
    rows: list[list[str]]
    names: int
    note: str

    def markdown(self) -> str:
        """Return the table in Markdown, its note below."""
        lines = [self.heads, ["---"] * len(self.heads), *self.rows]
        return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", self.note, ""])

    def latex(self) -> str:
        """Return the table as a LaTeX tabular, its note as a comment above."""
        columns = "l" * self.names + "r" * (len(self.heads) - self.names)
        lines = [r"\midrule", *(_latex_row(row) for row in self.rows)]
        heads = [_latex_cell(head) for head in self.heads]
        return f"% {self.note}\n{tabular(columns, heads, lines)}"


def methods_table(stages: pd.DataFrame) -> MethodTable:
    """Return table 1: held-out scores of every method, mean and standard deviation over seeds.

    A method with a curve is read off at `SHARES` of the adapter of all ranks, on straight lines in
    log N within each seed; the others stand at their own size.

    Args:
        stages: What `METHODS_FILE` holds.
    """
    stages = stages.assign(size=["" if pd.isna(size) else str(size) for size in stages["size"]])
    tasks = sorted(set(stages["task"]))
    rows: list[list[str]] = []
    for role, title in TITLES.items():
        own = stages[stages["role"] == role]
        if own.empty:
            rows.append([title, "", *[NOT_RUN] * len(tasks)])
        elif role in STAGED:
            rows += [
                _share_row(own, f"{title}, {percent(share)}", share, tasks) for share in SHARES
            ]
        else:
            for size in sorted({str(size) for size in own["size"]}):
                of_size = _where(own, "size", size)
                counts = of_size["num_nonzero_params"]
                cells = [_mean_cell(_where(of_size, "task", task)) for task in tasks]
                name = f"{title}, {size}" if size else title
                rows.append([name, compact(float(counts.mean())), *cells])
    return MethodTable(
        heads=["Method", "Parameters", *tasks],
        rows=rows,
        names=1,
        note=f"Held-out score, mean +- standard deviation (seeds). {_setting(stages)}",
    )


def ranks_table(stages: pd.DataFrame) -> MethodTable:
    """Return table 2: LoRA of a rank beside SoRA with as many parameters, paired by seed.

    Args:
        stages: What `METHODS_FILE` holds.
    """
    tasks = sorted(set(stages["task"]))
    lora, path = stages[stages["role"] == "lora"], stages[stages["role"] == PATH]
    rows: list[list[str]] = []
    for size in sorted({str(size) for size in lora["size"]}):
        of_rank = _where(lora, "size", size)
        count = float(of_rank["num_nonzero_params"].mean())
        for task in tasks:
            of_task = _where(of_rank, "task", task)
            seeds, scores = of_task["seed"].tolist(), of_task["generalization"].tolist()
            own = {int(seed): float(score) for seed, score in zip(seeds, scores, strict=True)}
            at = _at(_where(path, "task", task), count)
            missing = NOT_MEASURED if at else NOT_RUN
            both = [seed for seed in own if np.isfinite(at.get(seed, np.nan))]
            difference = student_t_interval([at[seed] - own[seed] for seed in both])
            rows.append(
                [
                    size,
                    task,
                    compact(count),
                    _cell(list(own.values())),
                    _cell([at[seed] for seed in both]) if both else missing,
                    f"{difference.mean:+.3f}" if difference.count else missing,
                    _interval(difference),
                ]
            )
    return MethodTable(
        heads=["Rank", "Task", "Parameters", "LoRA", "SoRA", "SoRA - LoRA", "95 %"],
        rows=rows,
        names=2,
        note=f"Held-out score at equal non-zero parameters, paired by seed. {_setting(stages)}",
    )


def matrices_table(stages: pd.DataFrame) -> MethodTable:
    """Return table 3: which matrices SoRA adapts, at one number of parameters.

    Args:
        stages: What `METHODS_FILE` holds; rows with a `budget` are its.
    """
    tasks = sorted(set(stages["task"]))
    own = stages[(stages["role"] == PATH) & stages["budget"].notna()]
    last = own.sort_values("stage").drop_duplicates(["task", "seed", "matrices"], keep="last")
    rows: list[list[str]] = []
    for matrices in MATRICES:
        of_type = last[last["matrices"] == matrices]
        count = f"{of_type['num_nonzero_params'].mean():,.0f}" if len(of_type) else ""
        cells = [_mean_cell(_where(of_type, "task", task)) for task in tasks]
        rows.append([matrices, count, *cells])
    return MethodTable(
        heads=["Matrices", "Parameters", *tasks],
        rows=rows,
        names=1,
        note=f"Held-out score of SoRA at one count. {_setting(own if len(own) else stages)}",
    )


def times_table(stages: pd.DataFrame) -> MethodTable:
    """Return table 4: CPU seconds of a dense pass, and of the whole run with its curve.

    Args:
        stages: What `METHODS_FILE` holds.
    """
    tasks = sorted(set(stages["task"]))
    rows: list[list[str]] = []
    for title, role, size in (
        ("LoRA", "lora", "r = 8"),
        ("AdaLoRA", "adalora", "r = 12 to 8"),
        ("DyLoRA", "dylora", ""),
        ("SoRA", PATH, ""),
    ):
        own = stages[(stages["role"] == role) & ((stages["size"] == size) | (size == ""))]
        for what in ("a pass", "the run"):
            cells = [_time_cell(_where(own, "task", task), what) for task in tasks]
            rows.append([title if what == "a pass" else "", what, *cells])
    return MethodTable(
        heads=["Method", "CPU seconds of", *tasks],
        rows=rows,
        names=2,
        note="Median over seeds, evaluations included; one thread of a machine that other work "
        f"shared. {_setting(stages)}",
    )


def _where(stages: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    return stages.loc[stages[column] == value]


def _interval(difference: Interval) -> str:
    if difference.count > 1:
        return f"[{difference.low:.3f}, {difference.high:.3f}]"
    return "one seed" if difference.count else ""


def _time_cell(stages: pd.DataFrame, what: str) -> str:
    if stages.empty:
        return NOT_RUN
    dense = stages[stages["stage"] == 0]
    per_pass = dense["cpu_seconds"] / dense["epochs"]
    whole = stages.groupby("seed")["cpu_seconds"].sum()
    return f"{float((per_pass if what == 'a pass' else whole).median()):.3g}"


def _share_row(own: pd.DataFrame, name: str, share: float, tasks: Sequence[str]) -> list[str]:
    count = share * float(own["num_adapter_params"].max())
    cells: list[str] = []
    for task in tasks:
        of_task = _where(own, "task", task)
        at = [value for value in _at(of_task, count).values() if np.isfinite(value)]
        cells.append(_cell(at) if at else NOT_RUN if of_task.empty else NOT_MEASURED)
    return [name, compact(count), *cells]


def _at(stages: pd.DataFrame, count: float) -> dict[int, float]:
    """Return seed -> score at a number of parameters; NaN outside of what was measured."""
    values: dict[int, float] = {}
    live = stages.loc[stages["num_nonzero_params"] > 0].sort_values("stage")
    for seed in sorted({int(seed) for seed in live["seed"].tolist()}):
        run = _where(live, "seed", seed)
        # of stages with one count, the last
        points = dict(
            zip(run["num_nonzero_params"].tolist(), run["generalization"].tolist(), strict=True)
        )
        x = [math.log(size) for size in sorted(points)]
        y = [float(points[size]) for size in sorted(points)]
        at = math.log(count)
        inside = x[0] - 1e-9 <= at <= x[-1] + 1e-9
        values[seed] = float(np.interp(at, x, y)) if inside else float("nan")
    return values


def _mean_cell(stages: pd.DataFrame) -> str:
    return _cell(stages["generalization"].tolist()) if len(stages) else NOT_RUN


def _cell(values: Sequence[float]) -> str:
    """Return mean, standard deviation of the sample, and the number of seeds."""
    if not values:
        return NOT_RUN
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.3f} (1)"
    return f"{mean:.3f} +- {float(np.std(values, ddof=1)):.3f} ({len(values)})"


def _setting(stages: pd.DataFrame) -> str:
    backbones = ", ".join(sorted(set(stages["backbone"])))
    splits = ", ".join(sorted(set(stages["split"])))
    guard = int((stages["stopped_by"] == "max_epochs").sum())
    return (
        f"Backbone {backbones}, split {splits}; {guard} of {len(stages)} stages ended by their "
        "guard and not by convergence."
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_latex_cell(cell) for cell in cells) + r" \\"


def _latex_cell(text: str) -> str:
    return escape_latex(text).replace("+-", r"$\pm$").replace(" - ", " $-$ ")
