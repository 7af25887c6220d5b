"""The frontier as text: a table for the terminal, cells for the page, LaTeX for a paper."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.compare_text import TITLE_WIDTH, Row, block_name
from analysis.frontier import BEST, NOT_MEASURED, NOT_TOLD_APART
from analysis.latex import escape_latex, tabular
from analysis.load import KEYS, PATH
from analysis.long_names import wrapped
from analysis.number_text import compact, percent

_ERROR_RATE = 0.05  # of one 95 % interval
SORA_NAME = "SoRA path"

_EXPLANATION = f"""\
at N          score of the adapter with N parameters, mean over seeds, on straight lines in log N
              within each seed; -: no seed measured that far, and nothing is extrapolated.
[low, high]   SoRA path minus the other one, 95 % interval: paired by seed (Student-t) where two
              seeds or more match, Welch's otherwise.
best          the adapter with the largest mean, and by how much it is above the path (the path:
              above its closest rival); {NOT_TOLD_APART} where that interval contains 0."""


def print_frontier(console: Console, table: pd.DataFrame) -> None:
    """Print the frontier of every dataset.

    Args:
        console: Where to.
        table: What `analysis.frontier.frontier` returns.
    """
    for _, block in table.groupby(KEYS, sort=True):
        console.print()
        console.print(_block_table(block))
    console.print(f"\n{_EXPLANATION}")
    console.print(f"caution       {caution(table)}")


def caution(table: pd.DataFrame) -> str:
    """Return a sentence on how many comparisons a frontier makes, and what chance does to them.

    Args:
        table: What `analysis.frontier.frontier` returns.
    """
    if not (table["role"] != PATH).any():
        return (
            "nothing is compared: there is no rival. Add some to the sweep, for example "
            "`controls: [random_mask, lora: [1, 2, 4]]`."
        )
    count = int(table.loc[table["role"] != PATH, "difference_low"].notna().sum())
    by_luck = "the best of several rivals is so by luck in part"
    if not count:
        return f"no intervals: one seed tells nothing apart, and {by_luck}."
    return (
        f"{count} intervals over budgets, scores and rivals, each at 95 % by itself and not "
        f"adjusted for their number: about {_ERROR_RATE * count:.2g} would exclude 0 by chance if "
        f"nothing differed, and {by_luck}."
    )


def frontier_heads(block: pd.DataFrame) -> list[str]:
    """Return the heads of the columns of one dataset: the shares, with their counts."""
    places = block.drop_duplicates("share").to_dict("records")
    return [f"{percent(row['share'])}\n{compact(float(row['params']))}" for row in places]


def frontier_rows(block: pd.DataFrame) -> list[list[str]]:
    """Return a row a (score, adapter) of one dataset, and one that says which is best.

    A cell is the score; below it, path minus rival, and the interval of that.

    Args:
        block: Rows of one dataset.
    """
    rows: list[list[str]] = []
    for score, of_score in block.groupby("score", sort=False):
        first = str(score)
        for role, own in of_score.groupby("role", sort=False):
            cells = [frontier_cell(row) for row in own.to_dict("records")]
            rows.append([first, SORA_NAME if role == PATH else str(role), *cells])
            first = ""
        places = of_score.drop_duplicates("share").to_dict("records")
        rows.append(["", "best", *(best_cell(row) for row in places)])
    return rows


def frontier_cell(row: Row) -> str:
    """Return the score of one adapter, and below it how far the path is above it."""
    mean = float(str(row["mean"]))
    if np.isnan(mean):
        return "-"
    if row["role"] == PATH or row["verdict"] == NOT_MEASURED:
        return f"{mean:.3f}"
    return f"{mean:.3f}\n{_difference(row)}"


def best_cell(row: Row) -> str:
    """Return which adapter is best at one place, and by how much; or that none is told apart."""
    verdict = str(row[f"{BEST}verdict"])
    if verdict == NOT_MEASURED:
        return "-"
    if verdict == NOT_TOLD_APART:
        return NOT_TOLD_APART
    name = "SoRA" if verdict == PATH else verdict
    return f"{name}\n{_difference(row, BEST)}"


def _difference(row: Row, prefix: str = "") -> str:
    """Return a difference, and where it has one its interval on a line of its own."""
    mean, low, high = (float(str(row[f"{prefix}difference{end}"])) for end in ("", "_low", "_high"))
    ends = "" if np.isnan(low) else f"\n[{_plain(low)}, {_plain(high)}]"
    return f"{round(mean, 3) + 0.0:+.3f}{ends}"  # not -0.000


def _plain(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"


def frontier_latex(table: pd.DataFrame) -> str:
    """Return the frontier as a LaTeX tabular: a block a dataset, intervals below their numbers.

    Args:
        table: What `analysis.frontier.frontier` returns, of one set of shares.
    """
    shares = [percent(share) for share in table["share"].drop_duplicates()]
    heads = ["Score", "Adapter", *(share.replace(" %", r"\,\%") for share in shares)]
    lines: list[str] = []
    for _, block in table.groupby(KEYS, sort=True):
        name = escape_latex(block_name(block.iloc[0].to_dict()))
        lines += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{l}}{{{name}}} \\[2pt]"]
        for row in frontier_rows(block):
            lines += _two_lines(row)
    return tabular("ll" + "r" * len(shares), heads, lines)


def _two_lines(cells: Sequence[str]) -> list[str]:
    parts = [cell.partition("\n") for cell in cells]
    above = ["--" if value == "-" else escape_latex(value) for value, _, _ in parts]
    lines = [" & ".join(above) + r" \\"]
    small = [below.replace("\n", " ").replace("-", "$-$") for _, _, below in parts]
    if any(small):
        below = " & ".join(rf"\scriptsize {text}" if text else "" for text in small)
        lines.append(below + r" \\[2pt]")
    return lines


def _block_table(block: pd.DataFrame) -> Table:
    seeds = int(block.loc[block["role"] == PATH, "seeds"].max())
    view = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=wrapped(
            f"{block_name(block.iloc[0].to_dict())}: {seeds} seed{'' if seeds == 1 else 's'}, "
            "adapters of N parameters (share of the full adapter)",
            TITLE_WIDTH,
        ),
        title_justify="left",
    )
    view.add_column("score, adapter", no_wrap=True)
    for head in frontier_heads(block):
        view.add_column(head, justify="right", no_wrap=True)
    for score, adapter, *cells in frontier_rows(block):
        if score:
            view.add_row(score)
        view.add_row(f"  {adapter}", *cells)
    return view
