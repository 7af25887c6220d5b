"""What `python -m analysis summary` prints: every path by itself, as tables for a terminal."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.curves import BANDS, SCORES, SHARES, count_spacing, summary
from analysis.load import FLOOR, HOLD_DENSE, PATH, RunSet
from analysis.long_names import wrapped
from analysis.number_text import percent
from sorakit.records.matching import DEFAULT_SETTING

_NAME_WIDTH = 24


def print_summary(console: Console, runs: RunSet, paths: Sequence[Path]) -> None:
    """Print dense score, floor, fewest parameters and spacing of counts of every path.

    Args:
        console: Where to.
        runs: What was loaded.
        paths: Folders that it was loaded from, for the commands that are shown.
    """
    table = summary(runs.stages)
    console.print(_share_table(table))
    console.print(
        "99 % ... 50 %: fewest non-zero parameters measured with at least this share of the dense "
        "score, and their share of the dense stage's parameters.\n"
        "*: the floor alone reaches this score, so keeping it needs no adapter. -: no such run, or "
        "undefined."
    )
    console.print(_spacing_table(table, runs.stages))
    console.print(
        "Distinct non-zero parameter counts in each band (percent of the dense stage's "
        "parameters), and the largest ratio between neighbouring counts, down to 1 % of them."
    )
    names = " ".join(str(path) for path in paths)
    console.print(
        f"\nCurves and rank maps: python -m analysis figures {names} --out figures\n"
        f"Every stage as CSV:   python -m analysis freeze {names} --out tables\n"
        "Run folders:"
    )
    for row in runs.runs[runs.runs["role"] == PATH].to_dict("records"):
        console.print(f"  {row['task']}, seed {row['seed']}: {row['path']}")


def _share_table(table: pd.DataFrame) -> Table:
    view = Table(
        box=box.SIMPLE_HEAD,
        title="Fewest parameters that keep a share of the dense score",
        title_justify="left",
    )
    view.add_column("dataset", no_wrap=True)
    for column in ("seed", "score"):
        view.add_column(column, no_wrap=True)
    for column in (
        "dense",
        "floor",
        "hold_dense",
        *(percent(share) for share in SHARES.values()),
    ):
        view.add_column(column, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        for score in SCORES:
            floor, dense = row[f"{score}_{FLOOR}"], row[f"{score}_dense"]
            first = score == SCORES[0]
            view.add_row(
                wrapped(row["task"], _NAME_WIDTH) if first else wrapped(_origin(row), _NAME_WIDTH),
                str(row["seed"]) if first else "",
                score,
                _score(dense),
                _score(floor),
                _score(row[f"{score}_{HOLD_DENSE}"]),
                *(
                    _count(row[f"{score}_{column}"], row["dense_params"], floor >= share * dense)
                    for column, share in SHARES.items()
                ),
            )
    return view


def _spacing_table(table: pd.DataFrame, stages: pd.DataFrame) -> Table:
    view = Table(box=box.SIMPLE_HEAD, title="Parameter counts along the path", title_justify="left")
    view.add_column("dataset", no_wrap=True)
    for column in (
        "seed",
        "stages",
        "dense params",
        *(f"{upper}-{lower} %" for upper, lower in BANDS),
    ):
        view.add_column(column, justify="right")
    view.add_column("largest ratio", justify="right")
    view.add_column("smallest non-zero", justify="right")
    for row in table.to_dict("records"):
        counts = stages.loc[stages["run_id"] == row["run_id"], "num_nonzero_params"]
        spacing = count_spacing(counts.tolist(), row["dense_params"])
        view.add_row(
            wrapped(f"{row['task']},{_origin(row)[1:]}", _NAME_WIDTH),
            str(row["seed"]),
            f"1 + {row['num_stages']}",
            f"{row['dense_params']:,}",
            *(str(number) for number in spacing.bands.values()),
            _score(spacing.largest_ratio, digits=2),
            percent(spacing.smallest_percent / 100, digits=3),
        )
    return view


def _origin(row: Mapping[Hashable, object]) -> str:
    parts = [row["backbone"], row["setting"], row["variant"]]
    return "  " + ", ".join(str(part) for part in parts if part not in (DEFAULT_SETTING, ""))


def _score(value: float, digits: int = 3) -> str:
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def _count(count: int, dense: int, needs_no_adapter: bool) -> str:
    if pd.isna(count):
        return "-"
    return f"{'*' * needs_no_adapter}{count:,}\n{percent(count / dense, digits=3)}"
