"""Long names of datasets: broken after separators, and said once."""

from pathlib import Path

import pytest

from analysis.cli import main
from analysis.figures import curve_figure, rank_map_figure
from analysis.frontier import frontier
from analysis.frontier_figure import frontier_figure
from analysis.load import load_runs
from analysis.long_names import grouped_notes, wrapped
from analysis.ranks import maps_at, parse_criterion
from analysis.report.page import report
from sorakit.config import StageConfig, XiConfig
from tests.support.fake_runs import write_run

LONG = (
    "customer_reviews_of_the_second_quarter_2024-deduplicated.v3_with_labels_by_three_annotators_"
    "and_their_majority_vote-final_version"
)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs", task=LONG)
    masked = StageConfig(control="random_mask")
    write_run(tmp_path / "runs", task=LONG, stage=masked, xi=XiConfig(spacing="target"))
    return tmp_path / "runs"


def ends_of_lines(text: str) -> set[str]:
    """Return the last characters of all lines but the last."""
    return {line[-1] for line in text.split("\n")[:-1]}


@pytest.mark.parametrize("width", [24, 33, 78])
def test_a_line_ends_after_a_separator(width: int) -> None:
    lines = wrapped(LONG, width)
    assert max(map(len, lines.split("\n"))) <= width
    assert ends_of_lines(lines) <= set("_-.")
    assert lines.replace("\n", "") == LONG


def test_a_line_ends_after_a_word_that_fits() -> None:
    assert wrapped("  embedded, max_length=48, lr=1", 20) == "  embedded,\nmax_length=48, lr=1"


def test_a_word_that_is_longer_than_a_line_is_cut() -> None:
    assert wrapped("x" * 10, 4) == "xxxx\nxxxx\nxx"


def test_notes_of_one_dataset_stand_below_its_name() -> None:
    notes = ["a (b) has no floor run: c.", "d: e.", "a (b): f.", "a (b, c): g."]
    assert grouped_notes(notes, ["a (b)", "a (b, c)"]) == [
        "a (b):\n    - has no floor run: c.\n    - f.",
        "d: e.",
        "a (b, c): g.",
    ]


@pytest.mark.parametrize("verb", ["summary", "compare", "frontier"])
def test_tables_break_a_long_name_between_words(
    verb: str, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert main([verb, str(runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    whole = 2 if verb == "summary" else 1  # the notes, and the list of run folders
    assert sum(LONG in line for line in lines) == whole
    cells = [cell.strip() for line in lines for cell in line.split("  ")]
    pieces = [cell for cell in cells if len(cell) > 8 and cell in LONG]
    assert pieces
    assert all(cell[-1] in "_-." or LONG.endswith(cell) for cell in pieces)


def test_panels_break_a_long_name_between_words(runs: Path) -> None:
    loaded = load_runs([runs])
    maps = maps_at(loaded.ranks, loaded.stages, parse_criterion("stage=3"))
    figures = [
        curve_figure(loaded.stages),
        rank_map_figure(maps),
        frontier_figure(frontier(loaded.stages)),
    ]
    for figure in figures:
        title = figure.axes[0].get_title()
        assert title.replace("\n", "").startswith(LONG)
        assert ends_of_lines(title) <= set("_-.")
        figure.draw_without_rendering()
        low = min(ax.title.get_window_extent().x0 for ax in figure.axes)
        assert low >= 0
        assert figure.axes[0].title.get_window_extent().y1 <= figure.bbox.y1


def test_a_page_may_break_a_long_name_after_its_separators(runs: Path) -> None:
    html = report(load_runs([runs])).html
    assert "customer_<wbr>reviews_<wbr>of_<wbr>" in html
    assert LONG not in html.split("<article")[1].split("</h3>")[0]
