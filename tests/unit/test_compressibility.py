import math

import numpy as np
import pandas as pd
import pytest

from analysis.compressibility import (
    area_of,
    compressibility,
    fewest_params,
    fewest_params_measured,
    retention_points,
)
from analysis.curves import area_under_curve, with_gain_retained
from tests.unit.test_curves import curve, floor


def run_of(counts: list[int]) -> pd.DataFrame:
    return curve([(count, 1.0, 1.0) for count in counts])


def fewest(counts: list[int], kept: list[float], share: float) -> float:
    return float(fewest_params(retention_points(run_of(counts)), np.array(kept), [share])[0])


def test_fewest_params_interpolates_in_log10() -> None:
    assert fewest([1000, 100, 10], [1.0, 0.5, 0.0], 0.75) == pytest.approx(10**2.5)


def test_fit_pools_what_does_not_rise() -> None:
    # 0.7 at 100 and 0.9 at 10 pool to 0.8: then 0.85 lies between 100 and 1000
    expected = 10 ** (2 + (0.85 - 0.8) / (1.0 - 0.8))
    assert fewest([1000, 100, 10], [1.0, 0.7, 0.9], 0.85) == pytest.approx(expected)


def test_measured_takes_the_best_stage_of_a_count() -> None:
    points = retention_points(run_of([1000, 100, 100, 10]))
    kept = np.array([1.0, 0.5, 0.95, 0.2])
    assert fewest_params_measured(points, kept, 0.9) == 100


def test_stages_of_one_count_weigh_together() -> None:
    assert fewest([1000, 100, 100], [1.0, 0.8, 1.0], 0.9) == 100


def test_share_that_the_floor_keeps_needs_no_adapter() -> None:
    assert fewest([1000, 100, 0], [1.0, 0.9, 0.6], 0.5) == 0


def test_sparsest_adapter_that_keeps_the_share_is_a_bound() -> None:
    assert fewest([1000, 100, 0], [1.0, 0.9, 0.2], 0.5) == 100


def test_dense_stage_keeps_everything() -> None:
    assert fewest([1000, 900, 800], [1.0, 0.2, 0.9], 0.99) <= 1000


def test_missing_value_gives_no_answer() -> None:
    assert math.isnan(fewest([1000, 100], [1.0, float("nan")], 0.5))


def test_area_is_that_of_the_curve() -> None:
    run = curve([(1000, 1.0, 0.8), (300, 0.7, 0.7), (20, 0.3, 0.5), (20, 0.4, 0.5), (5, 0.1, 0.2)])
    kept = run["memorization"].to_numpy(dtype=float)
    expected = area_under_curve(run, "memorization")
    assert area_of(retention_points(run), kept) == pytest.approx(expected)
    np.testing.assert_allclose(
        area_of(retention_points(run), np.stack([kept, 2 * kept])), [expected, 2 * expected]
    )


PATH = curve([(1000, 1.0, 0.8), (100, 0.75, 0.8), (10, 0.5, 0.4)])


def test_gain_and_dense_are_different_references() -> None:
    table = compressibility(with_gain_retained(pd.concat([PATH, floor(0.5, 0.4)])))
    rows = table[table["score"] == "memorization"].set_index("reference")
    assert rows["d50"].tolist() == [10, 100]  # half of dense: the floor; half of the gain: 0.75


def test_compression_loss_is_what_the_area_lacks() -> None:
    table = compressibility(with_gain_retained(pd.concat([PATH, floor(0.5, 0.4)])))
    row = table[(table["score"] == "memorization") & (table["reference"] == "gain")].iloc[0]
    assert (row["area"], row["compression_loss"]) == pytest.approx((0.5, 0.5))


def test_gain_without_floor_is_missing() -> None:
    table = compressibility(with_gain_retained(PATH))
    assert table.loc[table["reference"] == "gain", ["d90", "area"]].isna().all(axis=None)
