import operator
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sorakit.config import XiConfig
from sorakit.schedule.levels import levels, target_counts

starts = st.floats(1e-6, 1e-2)
factors = st.floats(1.01, 100)
counts = st.integers(1, 60)


@st.composite
def schedules(draw) -> dict[str, Any]:
    # not a XiConfig: the run-time type checks of its list draw from `random`
    start, num_stages = draw(starts), draw(counts)
    first = start * draw(factors)
    match draw(st.sampled_from(["ratio", "end", "linear", "list"])):
        case "ratio":
            ratio = draw(st.floats(1.001, 4))
            options = {"start": start, "first": first, "ratio": ratio, "num_stages": num_stages}
            return {**options, "spacing": "geometric"}
        case "end":
            end = first * draw(factors)
            options = {"start": start, "first": first, "end": end, "num_stages": num_stages}
            return {**options, "spacing": "geometric"}
        case "linear":
            end = start * draw(factors)
            return {"start": start, "end": end, "num_stages": num_stages, "spacing": "linear"}
        case _:
            steps = draw(st.lists(factors, min_size=1, max_size=20))
            listed = list(accumulate(steps, operator.mul, initial=start))[1:]
            return {"start": start, "levels": listed, "num_stages": len(steps), "spacing": "list"}


@given(schedules())
def test_levels_start_at_the_start(options):
    config = XiConfig(**options)
    assert levels(config)[0] == config.start


@given(schedules())
def test_levels_strictly_increase(options):
    config = XiConfig(**options)
    values = levels(config)
    assert all(a < b for a, b in pairwise(values))


@given(schedules())
def test_levels_are_one_more_than_the_stages(options):
    config = XiConfig(**options)
    assert len(levels(config)) == config.num_stages + 1


@given(schedules().filter(lambda options: options.get("end") is not None))
def test_levels_end_exactly_at_the_end(options):
    config = XiConfig(**options)
    assert levels(config)[-1] == config.end


@given(schedules().filter(lambda o: o["spacing"] == "geometric" and o["num_stages"] >= 3))
def test_geometric_levels_have_one_ratio(options):
    config = XiConfig(**options)
    values = levels(config)[1:]
    ratios = [b / a for a, b in pairwise(values)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-9)


@given(schedules().filter(lambda o: o.get("spacing") == "linear"))
def test_linear_levels_have_one_difference(options):
    config = XiConfig(**options)
    values = levels(config)
    steps = [b - a for a, b in pairwise(values)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6)


@given(st.integers(1, 10**4), st.integers(1, 10**5), counts)
def test_target_counts_end_exactly_at_the_smallest(smallest, more, num_stages):
    targets = target_counts(dense=smallest + more, smallest=smallest, num_stages=num_stages)
    assert (len(targets), targets[-1]) == (num_stages, smallest)


@given(st.integers(1, 10**4), st.integers(1, 10**5), counts)
def test_target_counts_fall_by_one_ratio_up_to_rounding(smallest, more, num_stages):
    dense = smallest + more
    values = [dense, *target_counts(dense=dense, smallest=smallest, num_stages=num_stages)]
    ratio = (dense / smallest) ** (1 / num_stages)
    for larger, next_one in pairwise(values):
        assert larger >= next_one
        assert abs(larger - ratio * next_one) <= 0.5 + 0.5 * ratio + 1e-6 * larger
