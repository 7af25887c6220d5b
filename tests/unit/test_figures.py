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
from analysis.curves import mean_curve
from analysis.figures import (
    curve_figure,
    draw_curve,
    draw_rank_map,
    rank_map_figure,
    short_matrix_names,
)
from analysis.frontier import frontier
from analysis.frontier_figure import draw_frontier, frontier_figure
from analysis.load import KEYS, RunSet, load_runs
from analysis.ranks import Criterion, maps_at
from sorakit.config import GatesConfig, StageConfig, XiConfig
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


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> RunSet:
    """Three seeds of one task, with floor and every control."""
    root = tmp_path_factory.mktemp("seeds")
    masked = StageConfig(control="random_mask")
    for seed in range(3):
        for kind in ("path", "floor", "hold_dense"):
            write_run(root, kind, seed=seed)
        write_run(root, "path", seed=seed, stage=masked, xi=XiConfig(spacing="target"))
    return load_runs([root])


def curve_axes(stages: pd.DataFrame, drops: pd.DataFrame | None = None) -> Axes:
    ax = Figure().add_subplot()
    draw_curve(ax, stages, drops)
    return ax


def found_drop(**changes: object) -> pd.DataFrame:
    row = {"score": "memorization", "detected": True, "seeds_tested": 3, "drop": 4.0}
    row |= {"p_value": 0.01 if changes.get("detected", True) else 0.4, "levelling": np.nan}
    return pd.DataFrame([{**row, "drop_low": 3.8, "drop_high": 4.1, **changes}])


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
    assert any(expected in text for text in texts(curve_axes(stages))) == note


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


def notes(stages: pd.DataFrame) -> list[str]:
    return [line for text in texts(curve_axes(stages)) for line in text.splitlines()]


def test_missing_controls_are_said_in_the_panel(runs: RunSet) -> None:
    assert "no random_mask run" in notes(runs.stages)
    assert "no floor, random_mask run" in notes(runs.stages[runs.stages["role"] != "floor"])


def test_panel_with_every_control_lacks_nothing(seeds: RunSet) -> None:
    assert [line for line in notes(seeds.stages) if line.startswith("no ")] == []


def test_floor_missing_for_one_seed_names_the_seed(seeds: RunSet) -> None:
    is_floor = (seeds.stages["role"] == "floor") & (seeds.stages["seed"] == 2)
    assert "no floor run for seed 2" in notes(seeds.stages[~is_floor])


def test_hold_dense_marks_its_last_score_inside_the_right_edge(runs: RunSet) -> None:
    (mark,) = drawn(curve_axes(runs.stages), "hold_dense:generalization")
    held = runs.stages[runs.stages["role"] == "hold_dense"].sort_values("stage")
    x, y = np.asarray(mark.get_xydata())[0]
    assert (x < 1, y) == (True, held["generalization"].iloc[-1])


@pytest.mark.parametrize("score", ["memorization", "generalization"])
def test_several_seeds_are_drawn_as_their_mean(seeds: RunSet, score: str) -> None:
    paths = seeds.stages[seeds.stages["role"] == "path"]
    ax = curve_axes(seeds.stages)
    (line,) = drawn(ax, f"path:{score}")
    expected = mean_curve(paths, score)
    np.testing.assert_allclose(np.asarray(line.get_ydata()), expected["mean"])
    (marks,) = drawn(ax, f"stages:{score}")
    assert len(np.asarray(marks.get_xdata())) == len(paths)


def test_band_is_the_interval_over_seeds(seeds: RunSet) -> None:
    paths = seeds.stages[seeds.stages["role"] == "path"]
    ax = curve_axes(seeds.stages)
    (band,) = [c for c in ax.collections if c.get_gid() == "band:memorization"]
    expected = mean_curve(paths, "memorization")
    ys = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert (ys.min(), ys.max()) == pytest.approx((expected["low"].min(), expected["high"].max()))


def test_y_axis_follows_the_curves_of_two_seeds(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, seed=seed)
    stages = load_runs([tmp_path]).stages
    # the seeds differ by 0.05, so their interval is 0.3 wide on either side
    for score in ("memorization", "generalization"):
        stages[score] = stages[score].astype(float) + 0.05 * stages["seed"].astype(float)
    ax = curve_axes(stages)
    scores = stages[["memorization", "generalization"]].to_numpy(dtype=float)
    height = scores.max() - scores.min()
    low, high = ax.get_ylim()
    assert scores.min() - 0.31 * height < low < scores.min()
    assert scores.max() < high < scores.max() + 0.31 * height
    (band,) = [c for c in ax.collections if c.get_gid() == "band:memorization"]
    assert band.get_paths()[0].get_extents().height > high - low


def test_random_mask_is_drawn_beside_the_path(seeds: RunSet) -> None:
    masked = seeds.stages[seeds.stages["role"] == "random_mask"]
    (line,) = drawn(curve_axes(seeds.stages), "random_mask:generalization")
    expected = mean_curve(masked, "generalization", num_points=41)
    np.testing.assert_allclose(np.asarray(line.get_ydata()), expected["mean"])


def test_floor_of_several_seeds_is_their_mean(seeds: RunSet) -> None:
    (line,) = drawn(curve_axes(seeds.stages), "floor:memorization")
    floors = seeds.stages.loc[seeds.stages["role"] == "floor", "memorization"]
    assert np.asarray(line.get_ydata())[0] == pytest.approx(floors.mean())


def test_changepoint_is_drawn_with_its_interval(runs: RunSet) -> None:
    ax = curve_axes(runs.stages, found_drop())
    (mark,) = drawn(ax, "changepoint:memorization")
    (bar,) = drawn(ax, "changepoint interval:memorization")
    assert list(np.asarray(mark.get_xdata())) == [10**4.0]
    np.testing.assert_allclose(np.asarray(bar.get_xdata()), [10**3.8, 10**4.1])


def test_interval_of_a_changepoint_ends_with_the_axis(runs: RunSet) -> None:
    ax = curve_axes(runs.stages, found_drop(drop_high=9.0))
    (bar,) = drawn(ax, "changepoint interval:memorization")
    assert np.asarray(bar.get_xdata())[1] == ax.get_xlim()[1]


@pytest.mark.parametrize(
    ("tested", "text"), [(3, "no slope changepoint"), (0, "too few counts for a changepoint")]
)
def test_panel_says_that_no_changepoint_was_found(runs: RunSet, tested: int, text: str) -> None:
    ax = curve_axes(runs.stages, found_drop(detected=False, seeds_tested=tested))
    assert text in texts(ax)
    assert drawn(ax, "changepoint:memorization") == []


def test_panel_says_where_a_score_levels_off_without_a_drop(runs: RunSet) -> None:
    ax = curve_axes(runs.stages, found_drop(detected=False, p_value=0.01, levelling=4.0))
    assert any("memorization levels off below 10k" in text for text in texts(ax))
    assert "no slope changepoint" not in texts(ax)


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


def test_curve_figure_of_four_is_two_by_two(several: RunSet) -> None:
    grid = curve_figure(several.stages).axes[0].get_gridspec()
    assert grid is not None
    assert (grid.nrows, grid.ncols) == (2, 2)


def test_curve_figure_separates_settings(runs: RunSet) -> None:
    noisy = runs.stages.assign(setting="label_noise=0.2")
    figure = curve_figure(pd.concat([runs.stages, noisy]))
    assert [ax.get_title() for ax in figure.axes] == ["pydoc_topic", "pydoc_topic\nlabel_noise=0.2"]


def test_curve_figure_separates_configurations(tmp_path: Path) -> None:
    for gate_lr in (1.0, 3.0):
        write_run(tmp_path, gates=GatesConfig(gate_lr=gate_lr))
    figure = curve_figure(load_runs([tmp_path]).stages)
    assert [ax.get_title() for ax in figure.axes] == [
        "pydoc_topic\ngates.gate_lr=1",
        "pydoc_topic\ngates.gate_lr=3",
    ]


@pytest.mark.parametrize(("width", "inches"), [("column", 3.03), ("text", 6.30)])
def test_figures_have_the_width_of_the_page(seeds: RunSet, width: str, inches: float) -> None:
    maps = maps_at(seeds.ranks, seeds.stages, Criterion(kind="stage", value=2))
    figures = (curve_figure(seeds.stages, width=width), rank_map_figure(maps, width=width))  # pyright: ignore[reportArgumentType]  # parametrize gives str
    assert [figure.get_figwidth() for figure in figures] == [inches, inches]


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


def test_legend_fits_the_width_of_a_column(seeds: RunSet) -> None:
    drops = found_drop(**dict(zip(KEYS, ["pydoc_topic", "embedded", "default", ""], strict=True)))
    figure = curve_figure(seeds.stages, drops)
    assert len(figure.legends[0].get_texts()) == 6
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def rank_axes(ranks: pd.DataFrame, r: int = 8) -> Axes:
    ax = Figure().add_subplot()
    draw_rank_map(ax, ranks, r)
    return ax


def maps(runs: RunSet, kind: str = "stage", value: float = 3) -> pd.DataFrame:
    return maps_at(runs.ranks, runs.stages, Criterion(kind=kind, value=value))  # pyright: ignore[reportArgumentType]


@pytest.fixture
def stage_ranks(runs: RunSet) -> pd.DataFrame:
    return maps(runs)


def test_rank_map_writes_the_rank_into_every_cell(stage_ranks: pd.DataFrame) -> None:
    written = {
        (int(t.get_position()[1]), int(t.get_position()[0])): t.get_text()
        for t in rank_axes(stage_ranks).texts
    }
    matrices = list(dict.fromkeys(stage_ranks["matrix"]))
    expected = {
        (row["layer"], matrices.index(row["matrix"])): str(row["nonzero_rank"])
        for row in stage_ranks.to_dict("records")
    }
    assert written == expected


def test_rank_map_scales_colour_from_zero_to_r(stage_ranks: pd.DataFrame) -> None:
    (mesh,) = rank_axes(stage_ranks, r=16).collections
    assert mesh.get_clim() == (0, 16)


def test_rank_map_has_layer_0_at_the_bottom(stage_ranks: pd.DataFrame) -> None:
    low, high = rank_axes(stage_ranks).get_ylim()
    assert low < high


def test_rank_map_uses_short_matrix_names(stage_ranks: pd.DataFrame) -> None:
    labels = [label.get_text() for label in rank_axes(stage_ranks).get_xticklabels()]
    assert labels == ["Q", "K", "V", "O", "F1", "F2"]


def test_rank_map_names_matrices_outside_of_layers(stage_ranks: pd.DataFrame) -> None:
    outside = stage_ranks.head(1).assign(matrix="pooler.dense", nonzero_rank=3)
    outside["layer"] = pd.array([None], dtype="Int64")
    ax = rank_axes(pd.concat([stage_ranks, outside], ignore_index=True))
    assert ax.get_xlabel() == "Matrix\n(pooler.dense: 3)"


def test_unknown_matrix_keeps_its_name() -> None:
    assert short_matrix_names(["mlp.gate_proj"]) == {"mlp.gate_proj": "mlp.gate_proj"}


def test_matrix_whose_short_name_is_taken_keeps_its_name() -> None:
    assert short_matrix_names(["attention.self.query", "query", "key"]) == {
        "attention.self.query": "attention.self.query",
        "query": "query",
        "key": "K",
    }


def stage_texts(figure: Figure) -> list[str]:
    return [t.get_text() for ax in figure.axes for t in ax.texts if t.get_gid() == "stage"]


def test_rank_map_figure_says_which_stage_it_shows(runs: RunSet) -> None:
    chosen = maps(runs, "retention", 0.95).iloc[0]
    share = 100 * chosen["num_nonzero_params"] / chosen["num_adapter_params"]
    figure = rank_map_figure(maps(runs, "retention", 0.95))
    assert figure.axes[0].get_title() == "pydoc_topic"
    assert stage_texts(figure) == [
        f"{share:.2g} % of the full adapter\n$\\lambda$ = {chosen['lambda']:.2g}, seed 0"
    ]


def test_stage_of_a_rank_map_stands_below_its_title(several: RunSet) -> None:
    figure = rank_map_figure(maps(several))
    figure.draw_without_rendering()
    for ax in figure.axes:
        for text in ax.texts:
            if text.get_gid() == "stage":
                assert text.get_window_extent().y1 <= ax.title.get_window_extent().y0
                assert text.get_window_extent().y0 >= ax.get_window_extent().y1


def test_rank_map_figure_shows_the_mean_over_seeds(seeds: RunSet) -> None:
    figure = rank_map_figure(maps(seeds))
    rows = seeds.ranks[(seeds.ranks["role"] == "path") & (seeds.ranks["stage"] == 3)]
    table = rows.groupby(["layer", "matrix"], sort=False)["nonzero_rank"].mean()
    drawn_values = np.asarray(figure.axes[0].collections[0].get_array())
    assert drawn_values.mean() == pytest.approx(table.mean())
    assert stage_texts(figure)[0].endswith(", 3 seeds")


def test_all_maps_have_one_scale(several: RunSet) -> None:
    figure = rank_map_figure(maps(several))
    drawn_maps = [ax.collections[0] for ax in figure.axes if ax.get_xlabel() or ax.get_title()]
    assert {mesh.get_clim() for mesh in drawn_maps} == {(0, 8)}


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


def frontier_axes(rows: pd.DataFrame) -> Axes:
    ax = Figure().add_subplot()
    draw_frontier(ax, rows[rows["score"] == "memorization"], ["random_mask"])
    return ax


def test_frontier_draws_rivals_minus_the_path(seeds: RunSet) -> None:
    rows = frontier(seeds.stages)
    ax = frontier_axes(rows)
    own = rows[(rows["role"] == "random_mask") & (rows["score"] == "memorization")]
    known = own.dropna(subset=["difference"]).sort_values("share")
    (line,) = drawn(ax, "random_mask:not told apart")
    expected = -known["difference"].to_numpy(dtype=float)
    np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), expected)
    assert line.get_markerfacecolor() == "white"


def test_frontier_fills_what_is_told_apart(seeds: RunSet) -> None:
    ax = frontier_axes(frontier(seeds.stages).assign(verdict="path"))
    assert drawn(ax, "random_mask:told apart")
    assert not drawn(ax, "random_mask:not told apart")


def test_frontier_figure_has_a_panel_a_score(seeds: RunSet) -> None:
    figure = frontier_figure(frontier(seeds.stages))
    assert [ax.get_ylabel().partition(",")[0] for ax in figure.axes] == [
        "Memorization", "Generalization",
    ]  # fmt: skip


def test_frontier_without_rivals_is_refused(runs: RunSet) -> None:
    paths = runs.stages[runs.stages["role"] == "path"]
    with pytest.raises(ValueError, match=r"^`RUNS` must hold 1 to 8 kinds of rivals .*, got 0\.$"):
        frontier_figure(frontier(paths))
