import pytest

from sorakit.config import XiConfig
from sorakit.schedule.levels import levels


def test_geometric_levels_go_on_by_the_ratio():
    config = XiConfig(start=1e-4, first=0.5, ratio=2.0, num_stages=4, spacing="geometric")
    assert levels(config) == (1e-4, 0.5, 1.0, 2.0, 4.0)


def test_geometric_levels_reach_the_end():
    config = XiConfig(start=1e-4, first=1e-3, end=1e-1, num_stages=3, spacing="geometric")
    assert levels(config) == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1), rel=1e-12)


def test_one_geometric_stage_is_the_end():
    assert levels(XiConfig(start=1e-4, end=0.5, num_stages=1, spacing="geometric")) == (1e-4, 0.5)


def test_linear_levels_have_equal_steps():
    config = XiConfig(start=0.25, end=1.25, num_stages=4, spacing="linear")
    assert levels(config) == (0.25, 0.5, 0.75, 1.0, 1.25)


def test_listed_levels_follow_the_start():
    config = XiConfig(start=0.1, levels=[0.2, 0.7], spacing="list")
    assert levels(config) == (0.1, 0.2, 0.7)


def test_default_levels_are_one_dense_and_12_sparsifying():
    assert len(levels(XiConfig(spacing="geometric"))) == 13


@pytest.mark.parametrize(
    "config",
    [
        XiConfig(ratio=1e100, spacing="geometric"),
        XiConfig(first=0.5, end=0.5 + 2**-52, spacing="geometric"),
        XiConfig(start=0.5, end=0.5 + 2**-52, spacing="linear"),
    ],
    ids=["infinite", "end_next_to_first", "end_next_to_start"],
)
def test_levels_that_floats_cannot_tell_apart_are_refused(config):
    message = (
        r"^`xi` must give 13 finite, strictly increasing levels, got .*\. "
        r"Change `xi\.end`, `xi\.ratio` or `xi\.num_stages`\.$"
    )
    with pytest.raises(ValueError, match=message):
        levels(config)
