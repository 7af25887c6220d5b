import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import style
from analysis.figures import (
    curve_figure,
    draw_curve,
    draw_rank_map,
    rank_map_figure,
    short_matrix_names,
)
from analysis.load import RunSet, load_runs
from tests.support.fake_runs import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RunSet:
    """One path with floor and control, of one task."""
    root = tmp_path_factory.mktemp("runs")
    for kind in ("path", "floor", "hold_dense"):
        write_run(root, kind)
    return load_runs([root])


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> RunSet:
    """Paths of four tasks, two seeds of the first, no floor."""
    root = tmp_path_factory.mktemp("several")
    for task in ("cola", "mrpc", "rte", "sst2"):
        write_run(root, task=task)
    write_run(root, task="cola", seed=1)
    return load_runs([root])


def drawn(ax: Axes, gid: str) -> list[Line2D]:
    return [line for line in ax.get_lines() if line.get_gid() == gid]


def curve_axes(stages: pd.DataFrame) -> Axes:
    ax = Figure().add_subplot()
    draw_curve(ax, stages)
    return ax


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("score", ["memorization", "generalization"])
def test_curve_draws_the_score_of_every_stage_with_parameters(runs: RunSet, score: str) -> None:
    path = runs.stages[(runs.stages["role"] == "path") & (runs.stages["num_nonzero_params"] > 0)]
    expected = path.sort_values("num_nonzero_params")[["num_nonzero_params", score]].to_numpy()
    (line,) = drawn(curve_axes(runs.stages), f"path:{score}")
    np.testing.assert_array_equal(np.asarray(line.get_xydata())[1:], expected)


def test_stage_without_parameters_stands_at_the_tick_0(runs: RunSet) -> None:
    ax = curve_axes(runs.stages)
    (line,) = drawn(ax, "path:memorization")
    zero = [tick for tick, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)
            if label.get_text() == "0"]  # fmt: skip
    assert zero == [np.asarray(line.get_xdata())[0]]


def test_tick_0_stands_left_of_the_smallest_count(runs: RunSet) -> None:
    (line,) = drawn(curve_axes(runs.stages), "path:memorization")
    x = np.asarray(line.get_xdata())
    assert 0 < x[0] < x[1]


def test_no_tick_0_without_a_stage_without_parameters(runs: RunSet) -> None:
    ax = curve_axes(runs.stages[runs.stages["num_nonzero_params"] > 0])
    assert "0" not in [label.get_text() for label in ax.get_xticklabels()]


@pytest.mark.parametrize(("flickering", "note"), [(0, False), (10**6, True)])
def test_panel_says_where_gates_had_not_settled(runs: RunSet, flickering: int, note: bool) -> None:
    stages = runs.stages.assign(gates_flickering=flickering)
    sparse = ((stages["role"] == "path") & (stages["stage"] > 0)).sum()
    expected = f"> 5 % of gates flicker in {sparse} of {sparse} stages"
    assert (expected in texts(curve_axes(stages))) == note


def test_x_axis_is_logarithmic(runs: RunSet) -> None:
    assert curve_axes(runs.stages).get_xscale() == "log"


@pytest.mark.parametrize("score", ["memorization", "generalization"])
def test_floor_is_a_horizontal_line_in_the_colour_of_its_score(runs: RunSet, score: str) -> None:
    (line,) = drawn(curve_axes(runs.stages), f"floor:{score}")
    value = runs.stages.loc[runs.stages["role"] == "floor", score].item()
    assert (list(np.asarray(line.get_ydata())), to_rgba(line.get_color())) == (
        [value, value],
        to_rgba(style.COLOURS[score]),
    )


def test_scores_differ_in_marker_and_line_without_colour(runs: RunSet) -> None:
    ax = curve_axes(runs.stages)
    looks = {
        (line.get_marker(), line.get_linestyle())
        for score in ("memorization", "generalization")
        for line in drawn(ax, f"path:{score}")
    }
    assert looks == {("o", "-"), ("s", "--")}


def test_missing_floor_is_said_in_the_panel(runs: RunSet) -> None:
    ax = curve_axes(runs.stages[runs.stages["role"] != "floor"])
    assert "no floor run" in texts(ax)


def test_existing_floor_is_not_said_to_be_missing(runs: RunSet) -> None:
    assert [text for text in texts(curve_axes(runs.stages)) if "floor" in text] == []


def test_floor_missing_for_one_seed_names_the_seed(tmp_path: Path) -> None:
    write_run(tmp_path, "path", seed=0)
    write_run(tmp_path, "path", seed=4)
    write_run(tmp_path, "floor", seed=0)
    assert "no floor run for seed 4" in texts(curve_axes(load_runs([tmp_path]).stages))


def test_hold_dense_marks_its_last_score_inside_the_right_edge(runs: RunSet) -> None:
    (mark,) = drawn(curve_axes(runs.stages), "hold_dense:generalization")
    held = runs.stages[runs.stages["role"] == "hold_dense"].sort_values("stage")
    x, y = np.asarray(mark.get_xydata())[0]
    assert (x < 1, y) == (True, held["generalization"].iloc[-1])


def test_every_seed_is_a_line_of_its_own(several: RunSet) -> None:
    ax = curve_axes(several.stages[several.stages["task"] == "cola"])
    assert len(drawn(ax, "path:memorization")) == 2


def test_curve_refuses_a_table_without_path(runs: RunSet) -> None:
    message = (
        "`RUNS` must hold at least one path run (method.name sora, stage.control none), got 0."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        curve_axes(runs.stages[runs.stages["role"] == "floor"])


def test_y_axis_is_named_after_the_metric(runs: RunSet) -> None:
    stages = runs.stages.assign(metric="matthews_correlation")
    assert curve_axes(stages).get_ylabel() == "Matthews correlation"


def test_curve_figure_has_one_panel_a_task(several: RunSet) -> None:
    titles = [ax.get_title() for ax in curve_figure(several.stages).axes]
    assert titles == ["cola", "mrpc", "rte", "sst2"]


def test_curve_figure_puts_three_panels_in_a_row(several: RunSet) -> None:
    figure = curve_figure(several.stages)
    grid = figure.axes[0].get_gridspec()
    assert grid is not None
    assert (grid.nrows, grid.ncols) == (2, 3)


def test_curve_figure_separates_settings(runs: RunSet) -> None:
    noisy = runs.stages.assign(setting="label_noise=0.2")
    figure = curve_figure(pd.concat([runs.stages, noisy]))
    assert [ax.get_title() for ax in figure.axes] == ["pydoc_topic", "pydoc_topic\nlabel_noise=0.2"]


def test_curve_figure_labels_every_kind_of_line_once(several: RunSet) -> None:
    (legend,) = curve_figure(several.stages).legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["memorization", "generalization"]


def test_legend_covers_no_panel(runs: RunSet) -> None:
    figure = curve_figure(runs.stages)
    (legend,) = figure.legends
    box = legend.get_window_extent()
    panels = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(panel is None or box.overlaps(panel) for panel in panels)


def test_legend_fits_the_width_of_a_column(runs: RunSet) -> None:
    figure = curve_figure(runs.stages)
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def rank_axes(ranks: pd.DataFrame, r: int = 8) -> Axes:
    ax = Figure().add_subplot()
    draw_rank_map(ax, ranks, r)
    return ax


@pytest.fixture
def stage_ranks(runs: RunSet) -> pd.DataFrame:
    return runs.ranks[(runs.ranks["role"] == "path") & (runs.ranks["stage"] == 3)]


def test_rank_map_writes_the_rank_into_every_cell(stage_ranks: pd.DataFrame) -> None:
    written = {
        (t.get_position()[1], t.get_position()[0]): t.get_text()
        for t in rank_axes(stage_ranks).texts
    }
    matrices = list(dict.fromkeys(stage_ranks["matrix"]))
    expected = {
        (row["layer"], matrices.index(row["matrix"])): str(row["nonzero_rank"])
        for row in stage_ranks.to_dict("records")
    }
    assert written == expected


def test_rank_map_scales_colour_from_zero_to_r(stage_ranks: pd.DataFrame) -> None:
    (image,) = rank_axes(stage_ranks, r=16).images
    assert image.get_clim() == (0, 16)


def test_rank_map_has_layer_0_at_the_bottom(stage_ranks: pd.DataFrame) -> None:
    low, high = rank_axes(stage_ranks).get_ylim()
    assert low < high


def test_rank_map_uses_short_matrix_names(stage_ranks: pd.DataFrame) -> None:
    labels = [label.get_text() for label in rank_axes(stage_ranks).get_xticklabels()]
    assert labels == ["Q", "K", "V", "O", "F1", "F2"]


def test_rank_map_names_matrices_outside_of_layers(stage_ranks: pd.DataFrame) -> None:
    outside = stage_ranks.head(1).assign(matrix="pooler.dense", nonzero_rank=3)
    outside["layer"] = pd.array([None], dtype="Int64")
    ax = rank_axes(pd.concat([stage_ranks, outside]))
    assert ax.get_xlabel() == "Matrix\n(pooler.dense: 3)"


def test_unknown_matrix_keeps_its_name() -> None:
    assert short_matrix_names(["mlp.gate_proj"]) == {"mlp.gate_proj": "mlp.gate_proj"}


def test_matrix_whose_short_name_is_taken_keeps_its_name() -> None:
    assert short_matrix_names(["attention.self.query", "query", "key"]) == {
        "attention.self.query": "attention.self.query",
        "query": "query",
        "key": "K",
    }


def test_rank_map_figure_shows_the_sparsest_stage_that_keeps_the_share(runs: RunSet) -> None:
    path = runs.stages[runs.stages["role"] == "path"]
    dense = path[path["stage"] == 0].iloc[0]
    kept = path[path["generalization"] >= 0.95 * dense["generalization"]]
    stage = kept.sort_values("num_nonzero_params").iloc[0]
    share = 100 * stage["num_nonzero_params"] / dense["num_nonzero_params"]
    title = rank_map_figure(runs.ranks, runs.stages).axes[0].get_title()
    assert title == f"pydoc_topic\n{share:.3g} % of dense, $\\xi$ = {stage['xi']:.3g}"


def test_rank_map_figure_of_full_retention_differs(runs: RunSet) -> None:
    maps = [rank_map_figure(runs.ranks, runs.stages, retention=share) for share in (0.8, 1.0)]
    assert maps[0].axes[0].get_title() != maps[1].axes[0].get_title()


def test_rank_map_figure_names_the_seed_where_there_are_several(several: RunSet) -> None:
    titles = [ax.get_title() for ax in rank_map_figure(several.ranks, several.stages).axes]
    assert [title.split("\n")[0] for title in titles[:2]] == ["cola, seed 0", "mrpc"]


def test_rank_map_figure_refuses_a_retention_of_zero(runs: RunSet) -> None:
    with pytest.raises(ValueError, match=r"^`retention` must be in \(0, 1\], got 0\.0\.$"):
        rank_map_figure(runs.ranks, runs.stages, retention=0.0)


@pytest.mark.parametrize("suffix", ["pdf", "png"])
def test_saved_figure_is_byte_identical_when_drawn_again(
    runs: RunSet, tmp_path: Path, suffix: str
) -> None:
    first, second = (
        style.save(curve_figure(runs.stages), tmp_path / name, formats=[suffix])[0].read_bytes()
        for name in ("a", "b")
    )
    assert first == second


def test_saved_pdf_has_the_width_of_a_column_and_no_type_3_font(
    runs: RunSet, tmp_path: Path
) -> None:
    (file,) = style.save(curve_figure(runs.stages), tmp_path / "a.b", formats=["pdf"])
    content = file.read_bytes()
    assert (file.name, b"0 0 218.16" in content, b"/Type3" in content) == ("a.b.pdf", True, False)
