"""What the page opens with: five plain sentences, and a table that is taken in at a glance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.compare import FIRST_BY_AREA, FIRST_BY_COUNT, RANKED_SHARE, UNDEFINED, Comparison
from analysis.compare_text import Row
from analysis.curves import SCORES
from analysis.frontier import NOT_MEASURED, NOT_TOLD_APART
from analysis.load import KEYS, PATH, RunSet
from analysis.number_text import compact, percent
from analysis.ranking_table import dataset_names, key_of
from analysis.report.sentences import counted, number
from analysis.slope_changepoint import ALPHA
from analysis.weights import has_refit

_NONE = "-"
_OPEN = "not told apart"
_NOT_REFITTED = "; stages were not refitted, so they are curves of a schedule, not of the data"
_MANY = 20  # comparisons from which on one is to be expected by chance


@dataclass(frozen=True, kw_only=True)
class Glance:
    """A dataset in one row; a dash where there is no answer.

    Attributes:
        title: Its short name.
        seeds: Number of its paths.
        dense: Memorization and generalization of the dense stage, mean over seeds.
        floor: The same without an adapter.
        needed: Fewest parameters that keep 90 % of the gain in generalization.
        of_dense: The same as a share of the dense stage's parameters, in words.
        share: The same as a number in [0, 1]; NaN where there is no answer.
        first: Memorization or generalization, whichever is lost first; or not told apart.
        rivals: How the path stands against its rivals at equal numbers of parameters.
    """

    title: str
    seeds: int
    dense: tuple[str, str]
    floor: tuple[str, str]
    needed: str
    of_dense: str
    share: float
    first: str
    rivals: str


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The top of the page.

    Attributes:
        sentences: Five: what was run, what the adapter adds, how few parameters keep it, what goes
            first, and what else so many parameters can do.
        rows: A row a dataset.
    """

    sentences: tuple[str, str, str, str, str]
    rows: list[Glance]


def opening(comparison: Comparison, runs: RunSet, frontiers: pd.DataFrame) -> Opening:
    """Return what the page opens with.

    Args:
        comparison: Comparison of the runs.
        runs: What was loaded.
        frontiers: `frontier` of their stages.
    """
    names = dataset_names(comparison.table)
    rows = [_glance(comparison, frontiers, key, name) for key, name in names.items()]
    noun = "configurations" if (comparison.table["variant"] != "").any() else "datasets"
    return Opening(
        sentences=(
            _what_was_run(rows, runs),
            _what_is_added(comparison.table, len(rows), noun),
            _how_few(rows),
            _what_goes_first(rows, noun),
            _what_else(_places(frontiers)),
        ),
        rows=rows,
    )


def _glance(
    comparison: Comparison, frontiers: pd.DataFrame, key: tuple[object, ...], name: str
) -> Glance:
    table = comparison.table
    own = table[(table[KEYS] == list(key)).all(axis=1)]
    scores = {str(row["score"]): row for row in own[own["reference"] == "gain"].to_dict("records")}
    gain = scores[SCORES[1]]
    needed = number(gain[RANKED_SHARE]) if gain["status"] == "defined" else np.nan
    share = needed / number(gain["dense_params"]) if needed > 0 else np.nan
    at_most = "<= " if gain[f"{RANKED_SHARE}_seeds_at_bound"] else ""
    verdicts = {
        str(row["measure"]): str(row["verdict"])
        for row in comparison.first.to_dict("records")
        if key_of(row) == key
    }
    return Glance(
        title=name,
        seeds=int(number(gain["seeds"])),
        dense=_pair(scores, "dense_score"),
        floor=_pair(scores, "floor_score"),
        needed=_NONE if np.isnan(share) else f"{at_most}{compact(needed)}",
        of_dense="" if np.isnan(share) else percent(share),
        share=share,
        first=_first_of(verdicts),
        rivals=_rivals_of(frontiers, key),
    )


def _pair(scores: Mapping[str, Row], column: str) -> tuple[str, str]:
    values = [number(scores[score][column]) for score in SCORES]
    first, second = (_NONE if np.isnan(value) else f"{value:.3f}" for value in values)
    return first, second


def _first_of(verdicts: Mapping[str, str]) -> str:
    """Return what is lost first by the area, or by d90 where the area has no answer."""
    for measure in (FIRST_BY_AREA, FIRST_BY_COUNT):
        verdict = verdicts.get(measure, UNDEFINED)
        if not verdict.startswith(UNDEFINED):
            return verdict.removesuffix(" first")
    return _NONE


def _places(frontiers: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons of a path with a rival: a row a (dataset, score, share, rival)."""
    if frontiers.empty:
        return frontiers
    rivals = frontiers[frontiers["role"] != PATH]
    return rivals[rivals["verdict"] != NOT_MEASURED]


def _counts(places: pd.DataFrame) -> tuple[int, int, int]:
    """Return in how many comparisons the path is better, worse, and not told apart."""
    if places.empty:
        return 0, 0, 0
    better = int((places["verdict"] == PATH).sum())
    neither = int((places["verdict"] == NOT_TOLD_APART).sum())
    return better, len(places) - better - neither, neither


def _rivals_of(frontiers: pd.DataFrame, key: tuple[object, ...]) -> str:
    places = _places(frontiers)
    if len(places):
        places = places[(places[KEYS] == list(key)).all(axis=1)]
    better, worse, neither = _counts(places)
    if not better + worse + neither:
        return _NONE
    if not better + worse:
        return _OPEN
    parts = [f"better in {better}" if better else "", f"worse in {worse}" if worse else ""]
    return f"{', '.join(filter(None, parts))} of {better + worse + neither}"


def _what_was_run(rows: Sequence[Glance], runs: RunSet) -> str:
    seeds = sorted({row.seeds for row in rows})
    what = f"{counted(len(rows), 'curve', 'curves')} from {counted(len(runs.runs), 'run', 'runs')}"
    limit = "" if has_refit(runs.stages) else _NOT_REFITTED
    if seeds == [1]:
        return (
            f"{what}, one seed each: these are leads, and nothing here says what another seed "
            f"would give{limit}."
        )
    each = " to ".join(str(count) for count in dict.fromkeys([seeds[0], seeds[-1]]))
    alone = "; where it is one, nothing says what another would give" if seeds[0] == 1 else ""
    return f"{what}, {each} seeds each{alone}{limit}."


def _what_is_added(table: pd.DataFrame, count: int, noun: str) -> str:
    rows = table[(table["score"] == SCORES[1]) & (table["reference"] == "gain")]
    known = int((rows["status"] == "defined").sum())
    if not known:
        return (
            "It is not known that the adapter adds anything to generalization: no gain over a "
            "floor is told from 0."
        )
    rest = "" if known == count else "; on the rest that is not known"
    return f"The adapter adds to generalization {_where(known, count, noun)}{rest}."


def _how_few(rows: Sequence[Glance]) -> str:
    known = sorted((row for row in rows if row.share == row.share), key=lambda row: row.share)
    if not known:
        return "So how few parameters keep what it adds cannot be said."
    least, most = known[0], known[-1]
    if len(known) == 1:
        return (
            f"90 % of what it adds is kept by {least.of_dense} of the dense stage's parameters "
            f"({least.title})."
        )
    return (
        f"90 % of what it adds is kept by {least.of_dense} of the dense stage's parameters "
        f"({least.title}) to {most.of_dense} ({most.title})."
    )


def _what_goes_first(rows: Sequence[Glance], noun: str) -> str:
    count = {what: sum(row.first == what for row in rows) for what in (*SCORES, _OPEN, _NONE)}
    parts = [
        f"{score} is lost before {SCORES[1 - index]} {_where(count[score], len(rows), noun)}"
        for index, score in enumerate(SCORES)
        if count[score]
    ]
    if count[_OPEN]:
        parts.append(f"the two are not told apart {_where(count[_OPEN], len(rows), noun)}")
    if not parts:
        return "What is lost first, memorization or generalization, has no answer here."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}{'; the rest has no answer' if count[_NONE] else ''}."


def _what_else(places: pd.DataFrame) -> str:
    better, worse, neither = _counts(places)
    total = better + worse + neither
    if not total:
        return (
            "No other adapter of as few parameters was measured beside the paths, so nothing says "
            "that these ranks are needed."
        )
    if not better + worse:
        return (
            "At equal numbers of parameters no other adapter is told apart from the path, in "
            f"any of {counted(total, 'comparison', 'comparisons')}."
        )
    chance = f"; chance alone would tell about {ALPHA * total:.0f} apart" if total >= _MANY else ""
    return (
        f"At equal numbers of parameters the path is better than another adapter in {better} of "
        f"{total} comparisons, worse in {worse}, and not told apart in {neither}{chance}."
    )


def _where(count: int, total: int, noun: str) -> str:
    if count == total:
        return f"on all {total} {noun}" if total > 1 else "here"
    return f"on {count} of {total} {noun}"
