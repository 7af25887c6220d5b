"""Whether two run folders hold the same results: equal, or where they first differ, and why."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from sorakit.quoting import listed, quoted
from sorakit.records import EXAMPLES_FILE, RANKS_FILE, STAGES_FILE, read_meta
from sorakit.records.examples import read_examples
from sorakit.records.reader import read_rows

_NAMED = 3
"""Causes that a sentence lists; of more it says how many."""


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """The first difference: where it is, and what it is."""

    where: str
    what: str


def verdict(ours: Path, theirs: Path) -> str:
    """Return whether a run has the results of another, digit by digit, in a sentence or two.

    Stages (scores, losses, counts, steps), ranks with their strengths, and what became of every
    example are compared. What only one of two sorakit versions records is named and no difference.

    Args:
        ours: The run folder that was made now.
        theirs: The other one, or PACK/RUN_ID.
    """
    stages, others = (read_rows(path, STAGES_FILE) for path in (ours, theirs))
    ranks, other_ranks = (read_rows(path, RANKS_FILE) for path in (ours, theirs))
    found = (
        _first_difference(stages, others)
        or _first_difference(ranks, other_ranks, of="module")
        or _example_difference(ours, theirs)
    )
    if found is not None:
        why = _cause(read_meta(ours), read_meta(theirs))
        return f"From {found.where} on it differs from {theirs}: {found.what}. {why}"
    count = "1 stage is that" if len(stages) == 1 else f"{len(stages)} stages are those"
    recorded, there = ({name for row in rows for name in row} for rows in (stages, others))
    new = recorded ^ there
    only = f" Only one of them records {listed(sorted(new))}." if new else ""
    return f"Its {count} of {theirs}, bit for bit, with ranks and examples.{only}"


def _first_difference(
    ours: list[dict[str, Any]], theirs: list[dict[str, Any]], *, of: str | None = None
) -> _Difference | None:
    """Return where two lists of lines first differ; None where they do not.

    Args:
        ours: Lines of a table of the one run.
        theirs: Those of the other.
        of: Column that says what a line is of, beside the stage.
    """
    for mine, other in zip(ours, theirs, strict=False):
        for column in mine:
            if column in other and _text(mine[column]) != _text(other[column]):
                where = f"stage {mine['stage']}" + ("" if of is None else f", {mine[of]},")
                return _Difference(
                    where=where,
                    what=f"`{column}` is {quoted(mine[column])}, there {quoted(other[column])}",
                )
    if len(ours) == len(theirs):
        return None
    last = min(len(ours), len(theirs))
    return _Difference(
        where=f"stage {max(ours, theirs, key=len)[last]['stage']}",
        what=f"it has {len(ours)} lines of a {of or 'stage'}, there {len(theirs)}",
    )


def _example_difference(ours: Path, theirs: Path) -> _Difference | None:
    mine, other = read_examples(ours), read_examples(theirs)
    if mine is None or other is None:
        return None  # records without examples
    if len(mine) != len(other):
        what = f"{EXAMPLES_FILE} has {len(mine)} rows, there {len(other)}"
        return _Difference(where="the first example", what=what)
    firsts = [
        (_first_unequal(mine[column], other[column]), str(column))
        for column in mine
        if column in other
    ]
    row, column = min(firsts, default=(len(mine), ""))
    if row == len(mine):
        return None
    at, there = mine.iloc[row], other.iloc[row]
    return _Difference(
        where=f"example {at['index']} of {at['split']} in stage {at['stage']}",
        what=f"`{column}` is {at[column]}, there {there[column]}",
    )


def _first_unequal(ours: "pd.Series[Any]", theirs: "pd.Series[Any]") -> int:
    """Return the first row in which two columns differ; their length if there is none."""
    same = ((ours == theirs) | (ours.isna() & theirs.isna())).to_numpy(dtype=bool)
    return len(same) if same.all() else int(np.argmin(same))


def _cause(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Return what else differs between two runs, by their `meta.json`, in a sentence or two."""
    mine, other = _circumstances(ours), _circumstances(theirs)
    changed = [
        f"{name} ({quoted(other[name])} there, {quoted(mine[name])} here)"
        for name in mine
        if name in other and mine[name] != other[name]
    ]
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        return (
            f"Not the same in both meta.json: {', '.join(changed[:_NAMED])}{more}. Bits are equal "
            "only on equal hardware, with equal versions, threads and data."
        )
    here, there = (_commit(meta) for meta in (ours, theirs))
    if here == there:
        return (
            "Machine, versions, data and commit are the same in both meta.json: one of the two was "
            "changed afterwards, or the code has changes without a commit."
        )
    return (
        "Machine, versions and data are the same in both meta.json: what changed it lies between "
        f"the commits {there} and {here}."
    )


def _commit(meta: Mapping[str, Any]) -> str:
    git = cast(dict[str, Any], meta.get("git") or {})
    return str(git.get("sha"))[:7]


def _circumstances(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the bits of a run beside its configuration and the code."""
    found: dict[str, Any] = {}
    for section in ("hardware", "versions"):
        found |= cast(dict[str, Any], meta.get(section) or {})
    names = ("data_fingerprint", "backbone_fingerprint")
    found.pop("cpus", None)  # that many could have been used
    return {**found, **{name: meta[name] for name in names if name in meta}}


def _text(value: Any) -> str:
    """Return a value as a text in which every digit counts."""
    return json.dumps(value, sort_keys=True)
