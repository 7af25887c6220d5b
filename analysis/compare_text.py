"""The comparison as text: tables for the terminal, LaTeX for a paper."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.compare import FIRST_BY_AREA, RANKED_SHARE, Comparison
from analysis.control_differences import TOLD_SHARE
from analysis.controls import dataset_name
from analysis.curves import SHARES
from analysis.intervals import p_text
from analysis.load import KEYS
from analysis.long_names import wrapped
from analysis.number_text import compact
from analysis.ranking_table import RANKED, dataset_names, key_of, ranking_rows
from analysis.slope_changepoint import ALPHA, MIN_POINTS

Row = Mapping[Hashable, object]

_NAME_WIDTH = 24  # of a column
TITLE_WIDTH = 78
"""Characters of a line of a table's title."""
INFLECTION = "inflection_"
"""What the columns of inflections begin with, beside the shares."""

_EXPLANATION = f"""\
d99 ... d50   fewest non-zero parameters that keep this share, from an isotonic fit; geometric mean
              over seeds [95 % interval]. <=: the sparsest adapter measured still keeps it. 0: no
              adapter is needed. -: no answer.
share of      dense: of the dense score. gain: of what the adapter adds, (score - floor) / (dense -
              floor), undefined where the interval of dense - floor contains 0.
area          mean share kept from dense down to 1 % of its count, over log10; compression loss is
              1 - area. -: the path does not reach that far.
fewer         NAME ÷ 2: it needs half of what the other one needs. -: fewer than two seeds, or no
              answer. Datasets of different backbones are not compared.
goes first    paired by seed. drop and d90 of gain: what needs more parameters. area of gain: what
              has lost more of its gain on the way down.
drops below   break of a broken line or sigmoid; p of the straight line (sup-F with simulated
              distribution, Fisher over seeds). No inflection: p > {ALPHA}, or most seeds have no
              drop. Curves with fewer than {MIN_POINTS} distinct counts are not tested.
knee          largest curvature, and steepest: zero of the second derivative, of a smoothing spline.
              Both exist for noise too."""


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print every table of the comparison and what is to be said beside it."""
    for names, block in comparison.table.groupby(KEYS, sort=True):
        rows = block.to_dict("records")
        console.print()
        console.print(share_table(rows))
        for table, sentence in (
            (comparison.dataset_inflections, drop_sentence),
            (comparison.first, first_sentence),
        ):
            for row in table[(table[KEYS] == list(names)).all(axis=1)].to_dict("records"):
                console.print(f"  {sentence(row)}")
        for sentence in control_sentences(comparison.controls, names):
            console.print(f"  {sentence}")
        for note in interval_notes(rows):
            console.print(f"  note: {note}")
    if len(comparison.ranking):
        console.print()
        console.print(ranking_table(comparison))
    console.print(f"\n{_EXPLANATION}")


def ranking_table(comparison: Comparison) -> Table:
    """Return which of two datasets needs fewer parameters, a row a pair."""
    view = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"Which needs fewer for {RANKED_SHARE} (Welch's test on logarithms, Holm-adjusted "
        "down each column)",
        title_justify="left",
    )
    view.add_column("datasets", overflow="fold")
    for score, reference in RANKED:
        view.add_column(f"{score},\nshare of {reference}", overflow="fold")
    for row in ranking_rows(comparison.ranking, dataset_names(comparison.table)):
        view.add_row(*(wrapped(cell, _NAME_WIDTH) for cell in row))
    return view


def share_table(rows: Sequence[Row]) -> Table:
    """Return the table of one dataset: a row a (score, reference).

    Args:
        rows: Rows of `Comparison.table`.
    """
    seeds = f"{rows[0]['seeds']} seed{'' if rows[0]['seeds'] == 1 else 's'}"
    params = f"{_count(rows[0]['dense_params'])} parameters dense"
    view = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=wrapped(f"{block_name(rows[0])}: {seeds}, {params}", TITLE_WIDTH),
        title_justify="left",
    )
    view.add_column("score", no_wrap=True)
    view.add_column("share of", no_wrap=True)
    for column in ("reference", *SHARES, "area"):
        view.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        is_gain = row["reference"] == "gain"
        score = "" if is_gain else str(row["score"])
        view.add_row(score, str(row["reference"]), *share_cells(row))
    return view


def share_cells(row: Row) -> list[str]:
    """Return the reference value, the fewest parameters of each share, and the area of one row.

    Intervals stand on a second line. The reference value and "undefined" where the gain is.
    """
    is_gain = row["reference"] == "gain"
    value = interval_text(row, "gain", two_digits) if is_gain else _decimal(row["dense_score"])
    if row["status"] != "defined":
        return [value, "undefined"]
    return [
        value,
        *(fewest_text(row, share) for share in SHARES),
        interval_text(row, "area", two_digits),
    ]


def interval_notes(rows: Sequence[Row]) -> list[str]:
    """Return sentences on the intervals of one dataset that lack seeds or examples, or a gain."""
    notes: list[str] = []
    lacks = {
        "seeds": "intervals from seeds: no records of examples that give its scores",
        "examples": "intervals from examples: one seed, nothing is known about another",
        "none": "no intervals: one seed, and no records of examples that give its scores",
    }
    for source, sentence in lacks.items():
        scores = dict.fromkeys(str(r["score"]) for r in rows if r["intervals_from"] == source)
        if scores:
            notes.append(f"{' and '.join(scores)}: {sentence}.")
    notes += [f"{r['score']}: gain {r['status']}." for r in rows if r["status"] != "defined"]
    return notes


def drop_sentence(row: Row) -> str:
    """Return where one score of a dataset drops, from a row of `dataset_inflections`."""
    if row["seeds_tested"] == 0:
        return f"{row['score']}: too few distinct counts to look for an inflection."
    p_value = p_text(_number(row["p_value"]))
    p = f"({p_value}, {row['seeds_detected']} of {row['seeds']} seeds by themselves)"
    drop = interval_text(row, "drop", power_text).replace("\n", " ")
    parts = [f"drops below {drop} {p}" if row["detected"] else f"no inflection {p}"]
    parts += [levels] if (levels := levels_off(row)) else []
    for label, name in (("knee", "max_curvature_knee"), ("steepest", "second_derivative_zero")):
        if not np.isnan(_number(row[name])):
            parts.append(f"{label} {power_text(row[name])}")
    return f"{row['score']}: {'; '.join(parts)}."


def levels_off(row: Row, *, prefix: str = "") -> str:
    """Return where a score levels off, if its slope changes and not only by a drop; or ""."""
    changes = _number(row[f"{prefix}p_value"]) <= ALPHA and row[f"{prefix}shape"] != "drop"
    return f"levels off below {power_text(row[f'{prefix}levelling'])}" if changes else ""


def first_sentence(row: Row) -> str:
    """Return what goes first, from a row of `Comparison.first`."""
    name = f"what goes first, by {row['measure']}: {row['verdict']}"
    if np.isnan(_number(row["difference"])):
        return f"{name}."
    if row["measure"] == FIRST_BY_AREA:
        return f"{name}; memorization's minus generalization's is {first_text(row)}."
    return f"{name}; memorization's is {first_text(row)} times generalization's."


def first_text(row: Row) -> str:
    """Return what a row of `Comparison.first` measures, with its interval; "-" without a value.

    A factor, for areas a difference.
    """
    if np.isnan(_number(row["difference"])):
        return "-"
    text = _signed if row["measure"] == FIRST_BY_AREA else _ratio
    return interval_line(row["difference"], row["low"], row["high"], text)


def control_sentences(controls: pd.DataFrame, names: Sequence[object]) -> list[str]:
    """Return how far a path is from each of its controls, from `Comparison.controls`.

    Args:
        controls: Rows of every dataset.
        names: Values of `KEYS`.
    """
    is_own = (controls[KEYS] == list(names)).all(axis=1) & (controls["share"] == TOLD_SHARE)
    sentences: list[str] = []
    for control, rows in controls[is_own & (controls["count"] > 0)].groupby("control"):
        parts = [f"{row['score']} {difference_text(row)}" for row in rows.to_dict("records")]
        seeds = int(rows["count"].max())
        sentences.append(
            f"path minus {control} at {100 * TOLD_SHARE:g} % of the full adapter: "
            f"{', '.join(parts)} ({seeds} {'seed' if seeds == 1 else 'seeds'})."
        )
    return sentences


def difference_text(row: Row) -> str:
    """Return a difference with its interval, from a row with `mean`, `low` and `high`."""
    return interval_line(row["mean"], row["low"], row["high"], _signed)


def block_name(row: Row) -> str:
    """Return the name of the dataset and configuration of a row."""
    return dataset_name(*key_of(row))


def fewest_text(row: Row, share: str) -> str:
    """Return the fewest parameters that keep a share, with their interval on a second line."""
    without = int(_number(row[f"{share}_seeds_without_adapter"]))
    if np.isnan(_number(row[share])):
        return f"0 in {without} of {row['seeds']}" if without else "-"
    bound = "<= " if row[f"{share}_seeds_at_bound"] else ""
    return bound + interval_text(row, share, _count)


def interval_text(row: Row, name: str, text: Callable[[object], str]) -> str:
    """Return a value with its interval on a second line, where it has one."""
    ends = [row[f"{name}_{end}"] for end in ("low", "high")]
    if any(np.isnan(_number(end)) for end in ends):
        return text(row[name])
    return f"{text(row[name])}\n[{text(ends[0])}, {text(ends[1])}]"


def interval_line(value: object, low: object, high: object, text: Callable[[object], str]) -> str:
    """Return a value with its interval, where it has one, on one line."""
    row: Row = {"value": value, "value_low": low, "value_high": high}
    return interval_text(row, "value", text).replace("\n", " ")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")  # np.float64 is one


def _decimal(value: object) -> str:
    number = _number(value)
    return "-" if np.isnan(number) else f"{number:.3f}"


def _signed(value: object) -> str:
    number = _number(value)
    return "-" if np.isnan(number) else f"{round(number, 3) + 0.0:+.3f}"  # not -0.000


def two_digits(value: object) -> str:
    """Return a number with two digits after the point."""
    number = _number(value)
    return "-" if np.isnan(number) else f"{number:.2f}"


def _ratio(value: object) -> str:
    return f"{10 ** _number(value):.2f}"


def _count(value: object) -> str:
    number = _number(value)
    return "-" if np.isnan(number) else compact(number)


def power_text(value: object) -> str:
    """Return ten to the power of a number, as a count."""
    return _count(10 ** _number(value))


def csv_text(comparison: Comparison) -> str:
    """Return `comparison_table` as CSV."""
    return comparison_table(comparison).to_csv(index=False, lineterminator="\n")


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """Return the table of shares with the inflections of each score beside it."""
    drops = comparison.dataset_inflections.drop(columns=["seeds"]).rename(
        columns=lambda name: name if name in (*KEYS, "score") else f"{INFLECTION}{name}"
    )
    return comparison.table.merge(drops, on=[*KEYS, "score"], how="left", validate="many_to_one")


def inflections_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the inflections that `comparison_table` put beside the shares: a row a score."""
    rows = table.drop_duplicates([*KEYS, "score"], ignore_index=True)
    columns = [name for name in rows if str(name).startswith(INFLECTION)]
    return rows[[*KEYS, "score", *columns]].rename(
        columns=lambda name: str(name).removeprefix(INFLECTION)
    )
