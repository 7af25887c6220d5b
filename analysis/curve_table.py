"""Mean curves at fixed shares of the full adapter, as a table: the numbers that W&B shows."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.compare_text import TITLE_WIDTH, block_name
from analysis.curves import SCORES, share_curve, with_gain_retained, with_gap
from analysis.load import KEYS, PATH, require_path_run
from analysis.long_names import wrapped
from analysis.number_text import percent

COLUMNS = (*SCORES, "gap", *(f"{score}_gain_retained" for score in SCORES))
_HEADS = ("memorization", "generalization", "gap", "memorization kept", "generalization kept")


def curve_table(stages: pd.DataFrame) -> pd.DataFrame:
    """Return one row a (dataset, column, share): mean, standard error, interval, N.

    Args:
        stages: Stage table.

    Returns:
        `KEYS`, `column` (one of `COLUMNS`) and the columns of `share_curve`.

    Raises:
        ValueError: If no row of `stages` is of a path.
    """
    require_path_run(stages)
    table = with_gap(with_gain_retained(stages))
    paths = table[table["role"] == PATH]
    parts: list[pd.DataFrame] = []
    for names, block in paths.groupby(KEYS, sort=True):
        for column in COLUMNS:
            curve = share_curve(block, column)
            place = {**dict(zip(KEYS, map(str, names), strict=True)), "column": column}
            parts.append(curve.assign(**place)[[*place, *curve]])
    return pd.concat(parts, ignore_index=True)


def print_curves(console: Console, table: pd.DataFrame) -> None:
    """Print what `curve_table` returns, a table a dataset.

    Args:
        console: Where to.
        table: The table.
    """
    for _, block in table.groupby(KEYS, sort=True):
        view = Table(
            box=box.SIMPLE_HEAD,
            title=wrapped(block_name(_rows(block)[0]), TITLE_WIDTH),
            title_justify="left",
        )
        for head in ("of the full adapter", *_HEADS):
            view.add_column(head, justify="right", no_wrap=True)
        for share, rows in block.groupby("log10_share", sort=False):
            cells = {row["column"]: row for row in _rows(rows)}
            shown = (_cell(cells.get(column)) for column in COLUMNS)
            view.add_row(percent(10 ** float(str(share)), digits=3), *shown)
        console.print(view)
    console.print(
        "Mean over seeds +- standard error (N seeds that were measured there), on straight lines "
        "between stages. kept: gain retained, (score - floor) / (dense - floor)."
    )


def _rows(table: pd.DataFrame) -> list[Mapping[Hashable, Any]]:
    return [*table.to_dict("records")]


def _cell(row: Mapping[Hashable, Any] | None) -> str:
    if row is None:
        return "-"
    error = float(row["standard_error"])
    spread = "" if pd.isna(error) else f" +- {error:.3f}"
    return f"{row['mean']:.3f}{spread} ({row['seeds']})"
