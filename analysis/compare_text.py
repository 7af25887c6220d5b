"""The comparison as text: tables for the terminal, LaTeX for a paper."""

from collections.abc import Callable, Hashable, Mapping

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.compare import KEYS, RANKED_SHARE, Comparison
from analysis.controls import dataset_name
from analysis.curves import SHARES
from analysis.inflection import ALPHA, MIN_POINTS

Row = Mapping[Hashable, object]

_SHARE_NOTE = (
    "d99 ... d50: fewest non-zero parameters that keep this share, from an isotonic fit; geometric "
    "mean over seeds [95 % interval]. <=: the sparsest adapter measured still keeps it. 0: no "
    "adapter is needed. -: no such run, or no answer.\n"
    "dense: share of the dense score. gain: share of what the adapter adds, (score - floor) / "
    "(dense - floor). area: mean share kept from dense down to 1 % of its count, over log10; "
    "compression loss is 1 - area."
)
_DROP_NOTE = (
    f"drops below: where a broken line or sigmoid says that the curve begins to fall; p of the "
    f"straight line (sup-F, simulated, Fisher over seeds). No inflection: p > {ALPHA}, or most "
    f"seeds have no drop. Curves with fewer than {MIN_POINTS} counts are not tested.\n"
    "knee, steepest: largest curvature, and zero of the second derivative, of a smoothing spline: "
    "they exist for noise too."
)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print every table of the comparison and what is to be said beside it."""
    console.print(share_table(comparison))
    console.print(_SHARE_NOTE)
    for note in interval_notes(comparison.table):
        console.print(f"  note: {note}")
    console.print(drop_table(comparison))
    console.print(_DROP_NOTE)
    console.print("\nWhat goes first as parameters vanish (paired by seed)")
    for row in comparison.first.to_dict("records"):
        console.print(f"  {_first_sentence(row)}")
    if len(comparison.ranking):
        console.print(f"\nDatasets by log {RANKED_SHARE} (Welch's test, Holm-adjusted)")
        for sentence in ranking_sentences(comparison.ranking):
            console.print(f"  {sentence}")


def share_table(comparison: Comparison) -> Table:
    """Return one row a (dataset, score, reference)."""
    view = Table(
        box=box.SIMPLE_HEAD, title="How few parameters keep how much", title_justify="left"
    )
    view.add_column("dataset", overflow="fold", min_width=14)
    for column in ("seeds", "score", "share of"):
        view.add_column(column, no_wrap=True)
    for column in ("reference", *SHARES, "area"):
        view.add_column(column, justify="right")
    previous = ""
    for row in comparison.table.to_dict("records"):
        name = _name(row)
        is_gain = row["reference"] == "gain"
        value = _interval(row, "gain", _decimal) if is_gain else _decimal(row["dense_score"])
        cells = [
            name if name != previous else "",
            str(row["seeds"]) if name != previous else "",
            str(row["score"]) if not is_gain else "",
            str(row["reference"]),
            value,
        ]
        if row["status"] == "defined":
            cells += [_fewest(row, share) for share in SHARES]
            cells.append(_interval(row, "area", _decimal))
        else:
            cells += ["undefined", *[""] * len(SHARES)]
        view.add_row(*cells)
        previous = name
    return view


def drop_table(comparison: Comparison) -> Table:
    """Return one row a (dataset, score): inflection, knee and steepest point."""
    view = Table(box=box.SIMPLE_HEAD, title="Where the curves drop", title_justify="left")
    view.add_column("dataset", overflow="fold", min_width=14)
    view.add_column("score", no_wrap=True)
    for column in ("inflection", "p", "seeds", "levels off below", "knee", "steepest"):
        view.add_column(column, justify="right")
    for row in comparison.dataset_inflections.to_dict("records"):
        tested = row["seeds_tested"] != 0
        found = (
            f"drops below {_interval(row, 'drop', _power)}"
            if row["detected"]
            else ("no inflection" if tested else "not tested")
        )
        levels = row["p_value"] <= ALPHA and (row["shape"] != "drop")  # pyright: ignore[reportOperatorIssue]  # a float
        view.add_row(
            _name(row),
            str(row["score"]),
            found,
            _decimal(row["p_value"]),
            f"{row['seeds_detected']} of {row['seeds']}",
            _power(row["levelling"]) if levels else "-",
            _power(row["max_curvature_knee"]),
            _power(row["second_derivative_zero"]),
        )
    return view


def interval_notes(table: pd.DataFrame) -> list[str]:
    """Return one sentence for every dataset whose intervals lack seeds or examples, or a gain."""
    notes: list[str] = []
    for _, group in table.groupby(KEYS, sort=True):
        first = group.to_dict("records")[0]
        for source, scores in group.groupby("intervals_from")["score"]:
            if source != "seeds and examples":
                names = " and ".join(dict.fromkeys(map(str, scores)))
                lack = {
                    "seeds": "no records of examples that give its scores",
                    "examples": "one seed: nothing is known about another",
                    "none": "one seed, and no records of examples that give its scores",
                }[str(source)]
                notes.append(f"{_name(first)}, {names}: intervals from {source} ({lack}).")
        notes += [
            f"{_name(row)}, {row['score']}: gain {row['status']}."
            for row in group.to_dict("records")
            if row["status"] != "defined"
        ]
    return notes


def ranking_sentences(ranking: pd.DataFrame) -> list[str]:
    """Return one sentence a pair of datasets that could be tested, and the number of others."""
    sentences: list[str] = []
    tested = ranking[ranking["p_holm"].notna()]
    for row in tested.to_dict("records"):
        fewer, more = (_name(row, suffix=f"_{side}") for side in ("fewer", "more"))
        relation = "needs fewer than" if _number(row["p_holm"]) <= ALPHA else "is not told from"
        sentences.append(
            f"{row['score']}, share of {row['reference']}: {fewer} {relation} {more}, "
            f"factor {_number(row['ratio']):.2f}, p = {_number(row['p_holm']):.3g}."
        )
    untested = len(ranking) - len(tested)
    if untested:
        sentences.append(f"{untested} pairs with fewer than two seeds a side are not tested.")
    return sentences


def latex_table(comparison: Comparison) -> str:
    r"""Return the table of shares as a LaTeX `tabular` with booktabs rules.

    Counts with intervals; `--` where there is no answer, `undef.` where the gain is not defined.
    """
    columns = ["Dataset", "Score", "Share of", *(f"$d_{{{name[1:]}}}$" for name in SHARES), "Area"]
    lines = [
        rf"\begin{{tabular}}{{lll{'r' * (len(SHARES) + 1)}}}",
        r"\toprule",
        " & ".join(columns) + r" \\",
        r"\midrule",
    ]
    for row in comparison.table.to_dict("records"):
        cells = [escape_latex(text) for text in (_name(row), str(row["score"]))]
        cells.append(str(row["reference"]))
        if row["status"] == "defined":
            texts = [_fewest(row, share) for share in SHARES]
            texts.append(_interval(row, "area", _decimal))
            cells += [
                {"-": "--"}.get(text, text.replace("<= ", r"$\leq$ ").replace("\n", " "))
                for text in texts
            ]
        else:
            cells += ["undef."] * (len(SHARES) + 1)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escape_latex(text: str) -> str:
    """Return `text` with LaTeX's special characters escaped."""
    special = {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    }  # fmt: skip
    return "".join(special.get(character, character) for character in text)


def _first_sentence(row: Row) -> str:
    name = f"{_name(row)}, {row['measure']}: {row['verdict']}"
    if np.isnan(_number(row["difference"])):
        return f"{name}."
    factor = _interval({**row, "factor": row["difference"], "factor_low": row["low"],
                        "factor_high": row["high"]}, "factor", _ratio)  # fmt: skip
    return f"{name}; memorization's is {factor.replace(chr(10), ' ')} times generalization's."


def _name(row: Row, suffix: str = "") -> str:
    return dataset_name(*(row[f"{key}{suffix}"] for key in KEYS))


def _fewest(row: Row, share: str) -> str:
    without = int(_number(row[f"{share}_seeds_without_adapter"]))
    if np.isnan(_number(row[share])):
        return f"0 in {without} of {row['seeds']}" if without else "-"
    bound = "<= " if row[f"{share}_seeds_at_bound"] else ""
    return bound + _interval(row, share, _count)


def _interval(row: Row, name: str, text: Callable[[object], str]) -> str:
    ends = [row[f"{name}_{end}"] for end in ("low", "high")]
    if any(np.isnan(_number(end)) for end in ends):
        return text(row[name])
    return f"{text(row[name])}\n[{text(ends[0])}, {text(ends[1])}]"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | np.number) else float("nan")


def _decimal(value: object) -> str:
    number = _number(value)
    return "-" if np.isnan(number) else f"{number:.3f}"


def _ratio(value: object) -> str:
    return f"{10 ** _number(value):.2f}"


def _count(value: object) -> str:
    number = _number(value)
    return "-" if np.isnan(number) else f"{number:,.0f}"


def _power(value: object) -> str:
    return _count(10 ** _number(value))


def csv_text(comparison: Comparison) -> str:
    """Return the table of shares as CSV, with the inflections of each score beside it."""
    drops = comparison.dataset_inflections.drop(columns=["seeds"]).rename(
        columns=lambda name: name if name in (*KEYS, "score") else f"inflection_{name}"
    )
    merged = comparison.table.merge(drops, on=[*KEYS, "score"], how="left", validate="many_to_one")
    return merged.to_csv(index=False, lineterminator="\n")
