"""No committed record or table is of an older method version without anybody knowing."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from analysis.frozen import SOURCES_FILE
from analysis.lasso import LEVELS_FILE, PATH_FILE, SOURCE_FILE
from analysis.method_tables import METHODS_FILE, METHODS_SOURCE_FILE
from experiments.memory_tables import VERBS
from sorakit.config import METHOD_VERSION
from sorakit.records import find_runs, read_meta

ROOT = Path(__file__).parents[2]
DATA = ROOT / "paper_figs" / "data"
RESULTS = ROOT / "experiments" / "results"
PAGE = (ROOT / "experiments" / "README.md").read_text("utf-8")


@dataclass(frozen=True)
class Known:
    """Records of an older method version that are kept on purpose.

    Attributes:
        versions: Versions that made them.
        since: When this was decided.
        reason: Why they still say what they are shown for.
    """

    versions: set[int]
    since: str
    reason: str


OLDER = {
    "encoder_check": Known(
        {1}, "2026-11-24", "compares two encoders under one method; dense stage of free scale"
    ),
    "default_gates": Known(
        {1}, "2026-11-24", "why the default changed; every point is of one version"
    ),
    **dict.fromkeys(
        ("controls", "demo", "fixed_xi", "glue_seeds", "mrpc_minilm"),
        Known({3}, "2026-11-25", "curves of the schedule, beside which those of version 4 stand"),
    ),
}
"""Folder below `experiments/results` -> what is known; `experiments/README.md` says it too."""
WITHOUT = {
    "inflection_validation": "simulated curves: no method in them",
    "first_validation": "as inflection_validation",
    "planted_ranks": "every option stands in the script, levels are geometric: 2 and 3 changed "
    "the defaults and the targets",
    "unit_scale": "as planted_ranks",
}
"""Folders whose records have no method version, and why they need none (2026-11-24)."""
FROZEN_VERSION = 3
"""Of what stands in `paper_figs/data` until the records of version 4 cover the same datasets
(2026-11-25)."""
LASSO_VERSION = 1
"""Free scale and given levels, in which 2 and 3 changed nothing; `test_lasso_oracle.py` solves a
smaller problem anew each time (2026-11-24)."""


def folders() -> list[str]:
    return sorted(folder.name for folder in RESULTS.iterdir() if folder.is_dir())


def versions_in(folder: Path) -> set[int]:
    return {read_meta(path)["method_version"] for path in find_runs(folder)}


def stale(name: str, versions: set[int]) -> bool:
    """Return whether records of these versions stand there without being known."""
    known = OLDER[name].versions if name in OLDER else {METHOD_VERSION}
    return versions != known


@pytest.mark.parametrize("name", folders())
def test_records_are_of_the_current_version_or_known_not_to_be(name: str) -> None:
    versions = versions_in(RESULTS / name)
    if name in WITHOUT:
        assert versions == set(), f"{name} has method versions now: take it out of WITHOUT"
    else:
        assert not stale(name, versions), (
            f"experiments/results/{name} is of method version {sorted(versions)}, current is "
            f"{METHOD_VERSION}: run it again, or say in OLDER why it stays"
        )


def test_lists_name_nothing_else() -> None:
    assert set(OLDER) | set(WITHOUT) <= set(folders())
    assert all(METHOD_VERSION not in known.versions for known in OLDER.values())


def test_older_records_are_noticed() -> None:
    assert stale("new", {METHOD_VERSION - 1})
    assert stale("new", set())
    assert stale("default_gates", {METHOD_VERSION})
    assert not stale("new", {METHOD_VERSION})


@pytest.mark.parametrize("name", OLDER)
def test_page_says_which_records_are_older(name: str) -> None:
    (version,) = OLDER[name].versions
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    assert f"| {version} |" in rows[0]


def test_frozen_tables_are_of_the_version_that_is_known() -> None:
    runs = json.loads((DATA / SOURCES_FILE).read_text("utf-8"))["runs"]
    assert {run["method_version"] for run in runs} == {FROZEN_VERSION}


def test_frozen_lasso_is_of_the_version_that_is_known() -> None:
    assert json.loads((DATA / SOURCE_FILE).read_text("utf-8"))["method_version"] == LASSO_VERSION


def test_every_frozen_table_has_a_source() -> None:
    names = {file.name for file in DATA.iterdir()}
    of_runs = {"curves.csv", "compare.csv", "first.csv", "ranking.csv", "frontier.csv"}
    of_runs |= {"rank_maps.csv", "fixed_xi_maps.csv"}
    of_runs |= {METHODS_FILE, METHODS_SOURCE_FILE, *(f"{name}.csv" for name in VERBS)}
    assert names == of_runs | {SOURCES_FILE, PATH_FILE, LEVELS_FILE, SOURCE_FILE}
