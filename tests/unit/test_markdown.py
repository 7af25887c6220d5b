"""Tables of docs/results.md."""

from pathlib import Path

import pytest

from analysis.compare import compare
from analysis.compare_text import comparison_table
from analysis.control_differences import control_differences
from analysis.curves import with_gain_retained
from analysis.frozen import COMPARE_FILE, RANKING_FILE, frozen_tables, read_frozen
from analysis.load import RunSet, load_runs
from analysis.markdown import (
    agreement_table,
    differences_table,
    drops_table,
    ranking_table,
    ranks_table,
    scores_table,
)
from analysis.ranks import Criterion, maps_at
from tests.support.fake_runs import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RunSet:
    """Two tasks of two seeds with floors; hold_dense for one of them."""
    root = tmp_path_factory.mktemp("runs")
    for task in ("cola", "mrpc"):
        for seed in range(2):
            write_run(root, task=task, seed=seed)
            write_run(root, "floor", task=task, seed=seed)
    for seed in range(2):
        write_run(root, "hold_dense", task="mrpc", seed=seed)
    return load_runs([root])


def cells(table: str) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert len({len(row) for row in (rows[0], *rows[2:])}) == 1
    return rows[2:]


def test_scores_have_one_row_a_dataset(runs: RunSet) -> None:
    comparison = compare(runs)
    first, second = cells(
        scores_table(comparison_table(comparison), with_gain_retained(runs.stages))
    )
    assert (first[0], second[0]) == ("cola (embedded)", "mrpc (embedded)")
    held = runs.stages[(runs.stages["role"] == "hold_dense") & (runs.stages["stage"] == 7)]
    means = held[["memorization", "generalization"]].mean()
    assert first[4] == "- / -"
    assert second[4] == f"{means.iloc[0]:.3f} / {means.iloc[1]:.3f}"
    row = comparison.table[comparison.table["task"] == "mrpc"].iloc[0]
    assert second[2].startswith(f"{row['dense_score']:.3f} / ")


def test_differences_have_one_row_a_control(runs: RunSet) -> None:
    (row,) = cells(differences_table(runs.stages))
    table = control_differences(runs.stages).set_index(["score", "share"])
    means = [table.loc[(score, 0.2), "mean"] for score in ("memorization", "generalization")]
    assert row[:3] == ["mrpc (embedded)", "hold_dense", "2"]
    assert [cell.split(" ")[0] for cell in row[4].split(" / ")] == [f"{m:+.3f}" for m in means]


def test_ranking_is_the_same_from_frozen_tables(runs: RunSet, tmp_path: Path) -> None:
    comparison = compare(runs)
    texts = frozen_tables(runs, at=Criterion(kind="stage", value=3))
    for name in (COMPARE_FILE, RANKING_FILE):
        (tmp_path / name).write_text(texts[name], "utf-8")
    frozen = [read_frozen(tmp_path / name) for name in (COMPARE_FILE, RANKING_FILE)]
    (row,) = cells(ranking_table(*frozen))
    assert row[0] == "cola and mrpc"
    assert ranking_table(*frozen) == ranking_table(comparison.table, comparison.ranking)


def test_drops_say_what_goes_first(runs: RunSet) -> None:
    comparison = compare(runs)
    rows = cells(drops_table(comparison_table(comparison), comparison.first))
    for measure, column in (("d90 of gain", 4), ("area of gain", 6)):
        verdicts = comparison.first[comparison.first["measure"] == measure]["verdict"]
        assert [row[column] for row in rows] == [v.removesuffix(" first") for v in verdicts]


def test_ranks_say_which_stage(runs: RunSet) -> None:
    maps = maps_at(runs.ranks, runs.stages, Criterion(kind="stage", value=3))
    rows = cells(ranks_table(maps))
    own = maps[maps["task"] == "cola"].drop_duplicates("run_id")
    share = 100 * (own["num_nonzero_params"] / own["num_adapter_params"]).mean()
    assert rows[0][:3] == ["cola (embedded)", "2", f"{share:.2g} %"]
    assert [row[0] for row in rows] == ["cola (embedded)", "mrpc (embedded)"]


def test_agreement_has_one_row_a_pair_of_datasets(runs: RunSet) -> None:
    maps = maps_at(runs.ranks, runs.stages, Criterion(kind="stage", value=3))
    # the seeds decide the fake strengths, so both tasks have the same maps
    assert cells(agreement_table(maps)) == [["cola (embedded)", "mrpc (embedded)", "+1.00"]]
