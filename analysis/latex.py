r"""Tables of a paper: LaTeX `tabular`s with booktabs rules, from the tables of a comparison."""

from collections.abc import Sequence

import pandas as pd

from analysis.compare_text import (
    INFLECTION,
    Row,
    block_name,
    fewest_text,
    first_text,
    interval_text,
    levels_off,
    power_text,
    two_digits,
)
from analysis.curves import SHARES
from analysis.load import KEYS
from analysis.number_text import compact

_COLUMNS = ["Score", "Share of", *(f"$d_{{{name[1:]}}}$" for name in SHARES), "Area", "Drops below"]


def shares_table(table: pd.DataFrame) -> str:
    r"""Return the table of shares: a block a dataset, intervals below their numbers.

    Counts of parameters; `--` where there is no answer, `undef.` where the gain is not defined,
    none where no inflection was found.

    Args:
        table: What `analysis.compare_text.comparison_table` returns.
    """
    lines: list[str] = []
    for _, block in table.groupby(KEYS, sort=True):
        rows = block.to_dict("records")
        seeds = f"{rows[0]['seeds']} seed{'' if rows[0]['seeds'] == 1 else 's'}"
        dense = f"{compact(float(rows[0]['dense_params']))} parameters dense"
        name = escape_latex(f"{block_name(rows[0])}: {seeds}, {dense}")
        lines += [r"\midrule", rf"\multicolumn{{{len(_COLUMNS)}}}{{l}}{{{name}}} \\[2pt]"]
        for row in rows:
            lines += _two_lines(_share_cells(row))
    return tabular("ll" + "r" * (len(_COLUMNS) - 2), _COLUMNS, lines)


def first_table(first: pd.DataFrame) -> str:
    """Return what goes first: memorization over generalization, paired, with verdicts.

    Counts as factors; areas as differences in shares of the gain.

    Args:
        first: `Comparison.first`.
    """
    columns = ["Dataset", "By", "Factor or difference", "Goes first"]
    lines = [r"\midrule"]
    for row in first.to_dict("records"):
        verdict = str(row["verdict"]).removesuffix(" first")
        measure = {"drop": "where it drops"}.get(str(row["measure"]), str(row["measure"]))
        dataset, by, goes = (escape_latex(cell) for cell in (block_name(row), measure, verdict))
        size = "--" if (text := first_text(row)) == "-" else text.replace("-", "$-$")
        lines.append(" & ".join([dataset, by, size, goes]) + r" \\")
    return tabular(r"lllp{0.4\linewidth}", columns, lines)


def _share_cells(row: Row) -> list[str]:
    is_dense = row["reference"] == "dense"
    cells = [str(row["score"]) if is_dense else "", str(row["reference"])]
    if row["status"] == "defined":
        cells += [fewest_text(row, share) for share in SHARES]
        cells.append(interval_text(row, "area", two_digits))
    else:
        cells += ["undef."] * (len(SHARES) + 1)
    return [*cells, _drop_text(row) if is_dense else ""]


def _drop_text(row: Row) -> str:
    if row[f"{INFLECTION}seeds_tested"] == 0:
        return "-"
    if not row[f"{INFLECTION}detected"]:
        return "none, levels off" if levels_off(row, prefix=INFLECTION) else "none"
    return interval_text(row, f"{INFLECTION}drop", power_text)


def _two_lines(cells: Sequence[str]) -> list[str]:
    """Return a row, and the intervals of its cells as a row below it."""
    parts = [cell.partition("\n") for cell in cells]
    lines = [" & ".join(_cell(value) for value, _, _ in parts) + r" \\"]
    if any(interval for _, _, interval in parts):
        below = (rf"\scriptsize {interval}" if interval else "" for _, _, interval in parts)
        lines.append(" & ".join(below) + r" \\[2pt]")
    return lines


def _cell(text: str) -> str:
    return "--" if text == "-" else escape_latex(text).replace("<=", r"$\leq$")


def tabular(columns: str, heads: Sequence[str], lines: Sequence[str]) -> str:
    """Return a LaTeX tabular with booktabs rules around the rows `lines`."""
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Return `text` with LaTeX's special characters escaped."""
    special = {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    }  # fmt: skip
    return "".join(special.get(character, character) for character in text)
