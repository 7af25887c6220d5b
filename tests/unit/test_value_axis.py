import numpy as np

from analysis.value_axis import MARGIN, value_limits


def test_limits_leave_room_of_a_share_of_the_height() -> None:
    limits = value_limits([0.5, float("nan"), 0.9, 0.7])
    assert np.allclose(limits, (0.5 - MARGIN * 0.4, 0.9 + MARGIN * 0.4))


def test_flat_curves_keep_some_height() -> None:
    low, high = value_limits([0.8, 0.8])
    assert 0.75 < low < 0.8 < high < 0.85


def test_without_values_nothing_is_cut() -> None:
    assert value_limits([float("nan")]) == (float("-inf"), float("inf"))
