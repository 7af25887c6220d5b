import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.frozen import read_frozen
from analysis.lasso import (
    DIFFERENCE_BOUND,
    KKT_BOUND,
    LEVELS_FILE,
    PATH_FILE,
    SOURCE_FILE,
    draw_agreement,
    draw_path,
    largest_differences,
)
from paper_figs import fig_lasso

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "paper_figs" / "data"


@pytest.fixture(scope="module")
def path() -> pd.DataFrame:
    return read_frozen(DATA / PATH_FILE)


@pytest.fixture(scope="module")
def levels() -> pd.DataFrame:
    return read_frozen(DATA / LEVELS_FILE)


def drawn(ax: Axes, gid: str) -> np.ndarray:
    (line,) = [line for line in ax.get_lines() if line.get_gid() == gid]
    return np.asarray(line.get_xydata())


def agreement_axes(path: pd.DataFrame, levels: pd.DataFrame) -> Axes:
    ax = Figure().add_subplot()
    draw_agreement(ax, path, levels)
    return ax


def test_largest_difference_is_taken_over_the_coefficients_of_a_lambda():
    table = pd.DataFrame(
        {
            "lambda": [0.1, 0.1, 0.2, 0.2],
            "sorakit": [1.0, 2.0, 0.0, -1.0],
            "scikit_learn": [1.5, 2.25, 0.0, 1.0],
        }
    )
    assert largest_differences(table).to_dict() == {0.1: 0.5, 0.2: 2.0}


@pytest.mark.parametrize("solver", ["sorakit", "scikit_learn"])
def test_every_coefficient_is_drawn_from_both_solutions(path, solver):
    ax = Figure().add_subplot()
    draw_path(ax, path.sample(frac=1, random_state=0))
    for coefficient, rows in path.groupby("coefficient"):
        expected = rows.sort_values("lambda")[["lambda", solver]].to_numpy()
        np.testing.assert_array_equal(drawn(ax, f"{solver}:{coefficient}"), expected)


def test_solutions_are_told_apart_without_colour(path):
    ax = Figure().add_subplot()
    draw_path(ax, path)
    looks = {
        str(line.get_gid()).split(":")[0]: (line.get_marker(), line.get_linestyle())
        for line in ax.get_lines()
    }
    assert looks == {"scikit_learn": ("None", "-"), "sorakit": ("o", "None")}


def test_kkt_residual_of_every_lambda_is_drawn(path, levels):
    expected = levels.sort_values("lambda").to_numpy()
    np.testing.assert_array_equal(drawn(agreement_axes(path, levels), "KKT residual"), expected)


def test_largest_difference_of_every_lambda_is_drawn(path, levels):
    points = drawn(agreement_axes(path, levels), "largest difference")
    np.testing.assert_array_equal(points[:, 1], largest_differences(path).sort_index())


def test_kkt_residual_of_zero_stands_at_the_tick_0(path, levels):
    ax = agreement_axes(path, levels.assign(kkt_residual=0.0))
    assert (ax.get_ylim()[0], ax.get_yticks()[0]) == (0, 0)


@pytest.mark.parametrize(
    ("name", "bound"), [("largest difference", DIFFERENCE_BOUND), ("KKT residual", KKT_BOUND)]
)
def test_bound_is_drawn(path, levels, name, bound):
    assert set(drawn(agreement_axes(path, levels), f"bound:{name}")[:, 1]) == {bound}


def test_frozen_path_has_the_support_of_scikit_learn(path):
    np.testing.assert_array_equal(path["sorakit"] != 0, path["scikit_learn"] != 0)


def test_frozen_path_is_within_the_bounds(path, levels):
    assert largest_differences(path).max() < DIFFERENCE_BOUND
    assert levels["kkt_residual"].max() < KKT_BOUND


def test_frozen_tables_have_the_same_lambdas(path, levels):
    assert sorted(set(path["lambda"])) == sorted(levels["lambda"])


def test_source_names_the_command_and_the_problem():
    source = json.loads((DATA / SOURCE_FILE).read_text())
    assert source["command"] == "python -m experiments.lasso_oracle"
    assert source["problem"]["num_lambdas"] == len(read_frozen(DATA / LEVELS_FILE))


def test_figure_script_draws_from_the_frozen_tables(tmp_path: Path):
    files = fig_lasso.main(DATA, tmp_path / "out", tmp_path)
    assert files == [tmp_path / "out" / "fig_lasso.pdf", tmp_path / "lasso_path.png"]


def test_figure_is_byte_identical_when_drawn_again(tmp_path: Path):
    first, second = (
        [file.read_bytes() for file in fig_lasso.main(DATA, tmp_path / name, tmp_path)]
        for name in ("a", "b")
    )
    assert first == second
