import itertools
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.curves import (
    area_under_curve,
    count_spacing,
    flickering_stages,
    floor_scores,
    hold_dense_scores,
    mean_curve,
    share_curve,
    summary,
    with_gain_retained,
    with_gap,
)
from analysis.load import load_runs
from sorakit.curve_grid import LOG10_SHARES, values_at, values_on_grid
from tests.support.fake_runs import write_run


def curve(
    points: list[tuple[int, float, float]], *, run_id: str = "p", role: str = "path", **keys: Any
) -> pd.DataFrame:
    """Return a stage table: one row a (num_nonzero_params, memorization, generalization)."""
    identity = {"task": "t", "backbone": "b", "setting": "default", "seed": 0, **keys}
    identity = {"variant": "", "floor_id": "x", "dense_id": "x", **identity}
    return pd.DataFrame(
        [
            {
                **identity,
                "run_id": run_id,
                "role": role,
                "metric": "accuracy",
                "stage": stage,
                "num_nonzero_params": count,
                "memorization": memorization,
                "generalization": generalization,
            }
            for stage, (count, memorization, generalization) in enumerate(points)
        ]
    )


def floor(memorization: float, generalization: float, **keys: Any) -> pd.DataFrame:
    return curve([(0, memorization, generalization)], role="floor", **{"run_id": "f", **keys})


PATH = curve([(1000, 1.0, 0.8), (500, 0.95, 0.76), (100, 0.7, 0.8), (0, 0.5, 0.4)])


def test_floor_is_the_dense_stage_of_the_head_only_run() -> None:
    rows = curve([(0, 0.5, 0.4), (0, 0.6, 0.5)], role="floor")
    floors = floor_scores(rows)
    assert floors[["memorization_floor", "generalization_floor"]].to_numpy().tolist() == [
        [0.5, 0.4]
    ]


def test_two_floors_that_disagree_are_refused() -> None:
    table = pd.concat([floor(0.5, 0.4, run_id="f1"), floor(0.6, 0.4, run_id="f2")])
    message = (
        "`RUNS` must hold one floor result for t, b, seed 0, got runs f1, f2 with different "
        "scores. Name only the folders of runs that belong together."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        floor_scores(table)


def test_two_floors_that_agree_count_once() -> None:
    table = pd.concat([floor(0.5, 0.4, run_id="f1"), floor(0.5, 0.4, run_id="f2")])
    assert len(floor_scores(table)) == 1


def test_hold_dense_score_is_that_of_its_last_stage() -> None:
    rows = curve([(1000, 1.0, 0.8), (1000, 1.0, 0.7)], role="hold_dense")
    assert hold_dense_scores(rows)["generalization_hold_dense"].tolist() == [0.7]


def test_gain_retained_is_one_at_dense_and_zero_at_the_floor() -> None:
    table = with_gain_retained(pd.concat([PATH, floor(0.5, 0.4)]))
    gain = table[table["role"] == "path"].set_index("num_nonzero_params")
    assert gain["memorization_gain_retained"].loc[[1000, 0]].tolist() == [1.0, 0.0]


def test_gain_retained_follows_its_formula() -> None:
    table = with_gain_retained(pd.concat([PATH, floor(0.5, 0.4)]))
    row = table[(table["role"] == "path") & (table["num_nonzero_params"] == 500)].iloc[0]
    assert row["generalization_gain_retained"] == pytest.approx((0.76 - 0.4) / (0.8 - 0.4))


def test_gain_retained_is_nan_where_dense_is_not_above_the_floor() -> None:
    table = with_gain_retained(pd.concat([PATH, floor(0.5, 0.8)]))
    assert table["generalization_gain_retained"].isna().all()


def test_gain_retained_is_nan_without_a_floor_run() -> None:
    assert with_gain_retained(PATH)["memorization_gain_retained"].isna().all()


def test_floor_of_another_seed_is_not_used() -> None:
    table = with_gain_retained(pd.concat([PATH, floor(0.5, 0.4, seed=1)]))
    assert table.loc[table["role"] == "path", "memorization_floor"].isna().all()


def test_floor_of_another_setting_is_not_used() -> None:
    table = with_gain_retained(pd.concat([PATH, floor(0.5, 0.4, setting="label_noise=0.2")]))
    assert table.loc[table["role"] == "path", "memorization_floor"].isna().all()


def test_curves_are_ordered_by_count() -> None:
    assert with_gain_retained(PATH)["num_nonzero_params"].tolist() == [0, 100, 500, 1000]


def test_summary_gives_the_fewest_parameters_of_every_share() -> None:
    row = summary(PATH).iloc[0]
    names = [
        f"{s}_{d}" for s in ("memorization", "generalization") for d in ("d99", "d95", "d90", "d50")
    ]
    assert row[names].tolist() == [1000, 500, 500, 0, 100, 100, 100, 0]


def test_summary_counts_the_stages_after_the_dense_one() -> None:
    assert summary(PATH)["num_stages"].tolist() == [3]


def test_summary_gives_floor_and_hold_dense_of_the_same_seed() -> None:
    held = curve([(1000, 1.0, 0.8), (1000, 1.0, 0.75)], run_id="h", role="hold_dense")
    row = summary(pd.concat([PATH, held, floor(0.5, 0.4)])).iloc[0]
    assert row[["generalization_floor", "generalization_hold_dense"]].tolist() == [0.4, 0.75]


def test_summary_leaves_what_does_not_exist_undefined() -> None:
    row = summary(PATH).iloc[0]
    assert row[["memorization_floor", "memorization_hold_dense"]].isna().all()


def test_summary_has_one_row_a_path_run() -> None:
    table = pd.concat([PATH, curve([(1000, 1.0, 0.8)], run_id="q", seed=1), floor(0.5, 0.4)])
    assert summary(table)["run_id"].tolist() == ["p", "q"]


def test_bands_hold_their_upper_edge() -> None:
    assert count_spacing([1000, 500, 200, 50, 10], 1000).bands == {
        "100-50": 1, "50-20": 1, "20-5": 1, "5-1": 1,
    }  # fmt: skip


def test_bands_count_distinct_counts() -> None:
    assert count_spacing([1000, 900, 900, 900, 0], 1000).bands["100-50"] == 2


def test_largest_ratio_ignores_order_and_repetition() -> None:
    assert count_spacing([100, 1000, 400, 400], 1000).largest_ratio == 4.0


def test_largest_ratio_counts_the_jump_across_one_percent() -> None:
    assert count_spacing([1000, 500, 2], 1000).largest_ratio == 250.0


def test_largest_ratio_ignores_what_lies_below_one_percent() -> None:
    assert count_spacing([1000, 100, 10, 1], 1000).largest_ratio == 10.0


def test_spacing_of_one_count_has_no_ratio() -> None:
    assert math.isnan(count_spacing([1000], 1000).largest_ratio)


def test_smallest_percent_ignores_zero() -> None:
    assert count_spacing([1000, 30, 0], 1000).smallest_percent == 3.0


def test_spacing_refuses_a_dense_count_of_zero() -> None:
    with pytest.raises(ValueError, match=r"^`dense` must be > 0, got 0\.$"):
        count_spacing([0], 0)


def test_gain_of_a_run_read_from_disk(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    write_run(tmp_path, "floor")
    table = with_gain_retained(load_runs([tmp_path]).stages)
    dense = table[(table["role"] == "path") & (table["stage"] == 0)].iloc[0]
    assert dense["generalization_gain_retained"] == 1.0


# Area and flickering -------------------------------------------------------------------------

LINE = curve([(1000, 1.0, 0.8), (100, 0.5, 0.4), (10, 0.0, 0.0)])


def test_area_of_a_line_in_log_is_its_mean() -> None:
    assert area_under_curve(LINE, "memorization") == pytest.approx(0.5)


def test_area_ends_where_it_is_told() -> None:
    assert area_under_curve(LINE, "memorization", down_to=0.1) == pytest.approx(0.75)


def test_area_averages_points_with_one_count() -> None:
    twice = curve([(1000, 1.0, 0.8), (100, 0.4, 0.4), (100, 0.6, 0.4), (10, 0.0, 0.0)])
    assert area_under_curve(twice, "memorization") == pytest.approx(0.5)


def test_area_is_not_extrapolated() -> None:
    assert math.isnan(area_under_curve(LINE, "memorization", down_to=0.001))


@pytest.mark.parametrize("down_to", [0.0, 1.0, -1.0])
def test_area_needs_a_share(down_to: float) -> None:
    with pytest.raises(ValueError, match=rf"^`down_to` must be in \(0, 1\), got {down_to}\.$"):
        area_under_curve(LINE, "memorization", down_to=down_to)


def test_flickering_counts_sparsifying_stages_above_5_percent() -> None:
    run = LINE.assign(num_nonzero_gates=[100, 50, 1], gates_flickering=[90, 5, 6])
    assert flickering_stages(run) == (1, 2)


def test_revived_gates_are_counted_alike() -> None:
    run = LINE.assign(num_nonzero_gates=[100, 50, 1], gates_flickering=90, gates_revived=[0, 6, 0])
    assert flickering_stages(run, column="gates_revived") == (1, 2)


def test_values_between_points_lie_on_a_line_in_log10() -> None:
    assert values_at(LINE, "memorization", [10**2.5]).tolist() == pytest.approx([0.75])


def test_nothing_is_extrapolated() -> None:
    found = values_at(LINE, "memorization", [9.9, 10.0, 1000.0, 1001.0])
    assert [math.isnan(value) for value in found] == [True, False, False, True]


def test_mean_curve_covers_what_all_runs_cover() -> None:
    other = curve([(500, 0.5, 0.5), (50, 0.5, 0.5), (20, 0.5, 0.5)], run_id="q", seed=1)
    mean = mean_curve(pd.concat([LINE, other]), "memorization", num_points=5)
    counts = mean["num_nonzero_params"].tolist()
    assert [counts[0], counts[-1]] == pytest.approx([20, 500])
    assert mean["seeds"].tolist() == [2] * 5


def test_mean_curve_is_the_mean_with_a_student_interval() -> None:
    higher = LINE.assign(run_id="q", seed=1, memorization=LINE["memorization"] + 0.1)
    mean = mean_curve(pd.concat([LINE, higher]), "memorization", num_points=3)
    assert mean["mean"].tolist() == pytest.approx([0.05, 0.55, 1.05])
    half = 12.706 * 0.05  # t quantile with one degree of freedom, standard error of two values
    assert (mean["high"] - mean["mean"]).tolist() == pytest.approx([half] * 3, rel=1e-4)


def test_runs_without_a_common_range_have_no_mean_curve() -> None:
    other = curve([(5, 0.5, 0.5), (2, 0.5, 0.5)], run_id="q", seed=1)
    assert mean_curve(pd.concat([LINE, other]), "memorization").empty


def test_gap_is_memorization_minus_generalization() -> None:
    table = with_gap(LINE.assign(memorization_loss=0.2, generalization_loss=0.5))
    assert table["gap"].tolist() == (LINE["memorization"] - LINE["generalization"]).tolist()
    assert table["loss_gap"].tolist() == pytest.approx([0.3] * 3)


def test_grid_is_evenly_spaced_from_all_to_a_thousandth() -> None:
    assert (LOG10_SHARES[0], LOG10_SHARES[-1], len(LOG10_SHARES)) == (0.0, -3.0, 31)
    steps = [first - second for first, second in itertools.pairwise(LOG10_SHARES)]
    assert steps == pytest.approx([0.1] * 30)


def test_values_on_the_grid_are_at_shares_of_the_full_adapter() -> None:
    run = LINE.assign(num_adapter_params=1000)
    found = values_on_grid(run, "memorization")
    # 1,000 parameters: 1.0; 100: 0.5 and 10: 0.0, as in LINE
    assert [found[0], found[10], found[20]] == pytest.approx([1.0, 0.5, 0.0])
    assert all(math.isnan(value) for value in found[21:])


def test_share_curve_has_mean_standard_error_and_n_of_the_seeds_that_reach_a_share() -> None:
    short = curve([(1000, 0.8, 0.5), (100, 0.7, 0.5)], run_id="q")
    both = pd.concat([LINE, short]).assign(num_adapter_params=1000)
    table = share_curve(both, "memorization")
    rows = {row["log10_share"]: row for row in table.to_dict("records")}
    full, tenth, hundredth = (rows[share] for share in (0.0, -1.0, -2.0))
    assert (full["mean"], full["seeds"]) == (pytest.approx(0.9), 2)
    assert full["standard_error"] == pytest.approx(0.1)  # of 1.0 and 0.8
    assert (tenth["mean"], tenth["seeds"]) == (pytest.approx(0.6), 2)
    assert (hundredth["mean"], hundredth["seeds"]) == (pytest.approx(0.0, abs=1e-12), 1)
    assert math.isnan(hundredth["standard_error"])
    assert list(rows) == [*LOG10_SHARES[:21]], "no share that no run reaches"
