"""What is known in detail, in sentences as sure as the seeds allow: folded below the opening."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.compare import (
    FIRST_BY_AREA,
    FIRST_BY_COUNT,
    RANKED_SHARE,
    UNDEFINED,
    Comparison,
)
from analysis.compare_text import Row
from analysis.controls import block_of, missing_controls
from analysis.curves import SCORES
from analysis.intervals import p_text
from analysis.load import KEYS, PATH, RunSet
from analysis.number_text import compact
from analysis.ranking_table import Names, dataset_names, key_of
from analysis.slope_changepoint import ALPHA

_MOST_NAMED = 4  # a paragraph with more names is a table
_MANY_TESTS = 10  # from here on some drop is to be expected by chance
_VAGUE = 10.0  # ratio of an interval's ends from which a place is said to be hardly known


def what_you_see(comparison: Comparison, runs: RunSet, stages: pd.DataFrame) -> list[str]:
    """Return what is known in detail, a sentence a fact.

    Args:
        comparison: Comparison of the runs.
        runs: What was loaded.
        stages: Stages of the runs that are shown.
    """
    names = dataset_names(comparison.table)
    seeds = sorted({int(count) for count in comparison.table["seeds"]})
    several = bool((comparison.table["variant"] != "").any())
    noun, plural = ("configuration", "configurations") if several else ("dataset", "datasets")
    listed = f": {_listed(names.values())}" if len(names) <= _MOST_NAMED else ""
    numbered = " (options of a number: below its heading)" if several else ""
    each = " to ".join(str(number) for number in dict.fromkeys([seeds[0], seeds[-1]]))
    return [
        f"{counted(len(names), noun, plural)}{listed}{numbered}; {each} "
        f"{'seed' if seeds == [1] else 'seeds'} each.",
        _about_intervals(seeds, comparison.table),
        *_fewest_sentences(comparison.table, names),
        *_inflection_sentences(comparison, names),
        *_first_sentences(comparison.first, names),
        *_control_sentence(stages, names, several=several),
        *_run_sentence(comparison, runs),
    ]


def _about_intervals(seeds: list[int], table: pd.DataFrame) -> str:
    if seeds == [1]:
        drawn = (
            " Intervals in brackets come from drawing the examples anew, not from seeds."
            if (table["intervals_from"] == "examples").any()
            else ""
        )
        return (
            "There is one seed of each, so no curve has a band, and nothing here says what another "
            f"seed would give.{drawn}"
        )
    some = " where there are several; where there is one, nothing says what another would give"
    return (
        "Lines are means over seeds and bands their 95 % Student-t intervals"
        f"{some if seeds[0] == 1 else ''}: where bands overlap, a difference is left open."
    )


def _fewest_sentences(table: pd.DataFrame, names: Names) -> list[str]:
    """Say how few parameters keep 90 % of the gain in generalization."""
    rows = table[(table["score"] == "generalization") & (table["reference"] == "gain")]
    known: list[str] = []
    unknown: list[str] = []
    for row in rows.to_dict("records"):
        name = names[key_of(row)]
        if row["status"] != "defined" or not number(row[RANKED_SHARE]) > 0:
            unknown.append(name)
            continue
        count, low, high = (number(row[f"{RANKED_SHARE}{end}"]) for end in ("", "_low", "_high"))
        ends = (
            f" [{compact(low)}, {compact(high)}]" if np.isfinite(low) and np.isfinite(high) else ""
        )
        bound = "at most " if row[f"{RANKED_SHARE}_seeds_at_bound"] else ""
        dense = compact(number(row["dense_params"]))
        known.append(f"{name} with {bound}{compact(count)}{ends} of {dense} parameters")
    sentences: list[str] = []
    if known:
        sentences.append(
            "90 % of what the adapter adds to generalization (the gain over the floor) is kept in "
            f"{_listed(known)}."
        )
    if unknown:
        sentences.append(
            f"Whether the adapter adds to generalization at all, or how few parameters keep it, is "
            f"not known in {_listed(unknown)}."
        )
    return sentences


def _inflection_sentences(comparison: Comparison, names: Names) -> list[str]:
    found: list[str] = []
    none: list[str] = []
    untested: list[str] = []
    drops = comparison.dataset_inflections.sort_values(
        [*KEYS, "score"], ascending=[*[True] * len(KEYS), False], ignore_index=True
    )  # memorization first
    for row in drops.to_dict("records"):
        text = f"{row['score']} of {names[key_of(row)]}"
        if row["seeds_tested"] == 0:
            untested.append(text)
        elif row["detected"]:
            low, mean, high = (10 ** number(row[key]) for key in ("drop_low", "drop", "drop_high"))
            ends = (
                f" [{compact(low)}, {compact(high)}]"
                if np.isfinite(low) and np.isfinite(high)
                else ""
            )
            vague = ", a place hardly known" if high > _VAGUE * low else ""
            p_value = p_text(number(row["p_value"]))
            found.append(f"{text} below {compact(mean)} parameters{ends} ({p_value}{vague})")
        else:
            none.append(text)
    sentences: list[str] = []
    if found:
        tested = len(found) + len(none)
        chance = (
            f"; of {tested} without any drop, up to {ALPHA * tested:.2g} would be expected to"
            if tested >= _MANY_TESTS
            else ""
        )
        sentences.append(
            f"{len(found)} of {tested} curves begin to drop (each tested at {ALPHA:.0%}"
            f"{chance}): {_listed(found)}.".replace("%", " %")
        )
    if none:
        every = "any curve" if len(none) == len(drops) else _listed(none)
        sentences.append(
            f"No inflection is detected in {every}; with so few points and seeds that does not "
            "show that there is none."
        )
    if untested:
        sentences.append(f"Too few distinct counts to look for one: {_listed(untested)}.")
    return sentences


def _first_sentences(first: pd.DataFrame, names: Names) -> list[str]:
    """Say what goes first by d90 and by the area of the gain."""
    leads = {
        FIRST_BY_COUNT: "As parameters vanish (90 % of the gain kept, paired by seed)",
        FIRST_BY_AREA: "Over the whole curve (mean share of the gain kept, down to 1 % of the "
        "parameters)",
    }
    return [
        f"{lead}: {_who_goes_first(rows, names)}."
        for measure, lead in leads.items()
        if (rows := first[first["measure"] == measure].to_dict("records"))
    ]


def _who_goes_first(of_gain: Sequence[Row], names: Names) -> str:
    rows = [(names[key_of(row)], row) for row in of_gain]
    parts: list[str] = []
    for score in SCORES:
        other = SCORES[1 - SCORES.index(score)]
        where = [name for name, row in rows if row["verdict"] == f"{score} first"]
        if where:
            parts.append(f"{score} is lost before {other} in {_listed(where)}")
    same = [name for name, row in rows if row["verdict"] == "not told apart"]
    if same:
        parts.append(f"the two are not told apart in {_listed(same)}")
    open_ = [name for name, row in rows if str(row["verdict"]).startswith(UNDEFINED)]
    if open_:
        parts.append(f"no answer can be given for {_listed(open_)} (said below the curves)")
    return "; ".join(parts)


def _control_sentence(stages: pd.DataFrame, names: Names, *, several: bool) -> list[str]:
    blocks = [block_of(stages, key) for key in names]
    lacking = sum(bool(missing_controls(block)) for block in blocks)
    if not lacking:
        return []
    noun, plural = ("configuration", "configurations") if several else ("dataset", "datasets")
    who = {1: "Its curves lack"} if len(names) == 1 else {len(names): "The curves of all lack"}
    lack = who.get(lacking, f"The curves of {counted(lacking, noun, plural)} lack")
    return [f"{lack} a floor or a control that no curve should be shown without: each says which."]


def _run_sentence(comparison: Comparison, runs: RunSet) -> list[str]:
    left_out = {path for path, _ in comparison.excluded}
    used = runs.runs[[Path(str(path)) not in left_out for path in runs.runs["path"]]]
    unfinished = used[(used["state"] != "completed") & (used["role"] == PATH)]
    parts: list[str] = []
    if comparison.excluded:
        parts.append(f"{counted(len(comparison.excluded), 'run is', 'runs are')} left out")
    if len(unfinished):
        parts.append(f"{counted(len(unfinished), 'path has', 'paths have')} not finished")
    return [f"{' and '.join(parts).capitalize()} (see Runs)."] if parts else []


def number(value: object) -> float:
    """Return a number of a row; NaN where the row has none."""
    return float(value) if isinstance(value, int | float) else float("nan")


def _listed(texts: Iterable[str]) -> str:
    parts = list(texts)
    if len(parts) > _MOST_NAMED:
        parts = [*parts[: _MOST_NAMED - 1], f"{len(parts) - _MOST_NAMED + 1} more"]
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(count: int, one: str, many: str) -> str:
    """Return a number with its noun: 1 run, 1,200 runs."""
    return f"{count:,} {one if count == 1 else many}"
