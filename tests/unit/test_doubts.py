"""What makes a curve doubtful is said beside it."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.cli import main
from analysis.curves import SCORES
from analysis.doubts import capped, doubt_notes, doubts
from analysis.figures import curve_figure
from analysis.load import PATH, load_runs
from tests.support.fake_runs import write_run


@pytest.fixture
def paths(tmp_path: Path) -> pd.DataFrame:
    """Three seeds whose dense stages converged, are full, and are the best."""
    for seed in range(3):
        write_run(tmp_path, seed=seed)
    stages = load_runs([tmp_path]).stages
    dense = stages["stage"] == 0
    return stages.assign(**{score: stages[score].where(~dense, 0.99) for score in SCORES})


def shorts(paths: pd.DataFrame) -> list[str]:
    return [doubt.short for doubt in doubts(paths)]


def test_converged_full_and_best_leaves_no_doubt(paths: pd.DataFrame) -> None:
    assert doubts(paths) == []
    assert doubt_notes(paths) == []


def test_phases_cut_short_are_counted(paths: pd.DataFrame) -> None:
    cut = (paths["seed"] == 1) & (paths["stage"] == 0)
    refits = pd.Series(["converged"] * len(paths), dtype=object).where(paths["stage"] > 0, None)
    refits[(paths["seed"] == 2) & (paths["stage"] > 5)] = "max_epochs"
    table = paths.assign(
        stopped_by=paths["stopped_by"].where(~cut, "max_epochs"), refit_stopped_by=refits
    )
    assert shorts(table) == ["1 of 3 dense stages cut short", "2 of 21 refits cut short"]


def test_a_record_without_a_refit_has_none_cut_short() -> None:
    assert capped([None, float("nan"), "converged", "max_epochs"]) == (1, 2)


def test_dense_stage_with_dead_gates_is_no_full_adapter(paths: pd.DataFrame) -> None:
    dense = paths["stage"] == 0
    counts = paths["num_nonzero_params"].where(~dense, 0.7 * paths["num_adapter_params"])
    assert shorts(paths.assign(num_nonzero_params=counts)) == [
        "dense holds 70 % of the full adapter"
    ]


def test_stage_above_dense_in_every_seed_is_named(paths: pd.DataFrame) -> None:
    above = (paths["stage"] == 2) & paths["seed"].isin([0, 1, 2])
    better = paths["generalization"].where(~above, 1.01 + 0.001 * paths["seed"])
    found = shorts(paths.assign(generalization=better))
    assert found == ["generalization of stage 2 is 0.021 above dense"]


def test_stage_above_dense_in_one_of_three_seeds_is_noise(paths: pd.DataFrame) -> None:
    above = (paths["stage"] == 2) & (paths["seed"] == 0)
    better = paths["generalization"].where(~above, 1.05)
    same = (paths["stage"] == 2) & (paths["seed"] > 0)
    assert doubts(paths.assign(generalization=better.where(~same, 0.99))) == []


def test_doubts_stand_below_the_panel_and_in_the_notes(
    paths: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = paths.assign(stopped_by="max_epochs")
    (note,) = doubt_notes(table)
    assert note.startswith(
        "pydoc_topic (embedded): 3 of 3 dense stages ended by the cap (max_epochs)"
    )
    (ax,) = curve_figure(table).axes
    (text,) = [text.get_text() for text in ax.texts if text.get_gid() == "notes"]
    assert "3 of 3 dense stages cut short" in text
    assert table.loc[table["role"] == PATH, "seed"].nunique() == 3


def test_page_and_terminal_say_that_dense_was_cut_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path / "runs")
    file = path / "stages.jsonl"
    file.write_text(file.read_text().replace('"converged"', '"max_epochs"'))
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "runs"), "--out", str(page)]) == 0
    assert "1 of 1 dense stage ended by the cap (max_epochs)" in capsys.readouterr().out
    assert "<li>1 of 1 dense stage ended by the cap (max_epochs)" in page.read_text()
