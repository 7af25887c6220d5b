import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sorakit.method.prox import (
    largest_threshold,
    metric_threshold,
    released_threshold,
    soft_threshold,
)
from tests.support import reference

numbers = st.floats(-4, 4, width=32)
gates = st.lists(numbers, min_size=1, max_size=8)
thresholds = st.floats(0, 2, width=32)
metrics = st.floats(0.125, 8, width=32)


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(gates, thresholds, st.lists(numbers, min_size=1, max_size=20))
def test_soft_threshold_minimises_its_objective(gate, xi, others):
    # (u - g)^2 / 2 + xi |u| is 1-strongly convex in u: others are worse by at least (u - u*)^2 / 2
    for g, u in zip(gate, soft_threshold(tensor(gate), xi).tolist(), strict=True):
        least = (u - g) ** 2 / 2 + xi * abs(u)
        for other in others:
            value = (other - g) ** 2 / 2 + xi * abs(other)
            assert value >= least + (other - u) ** 2 / 2 - 1e-12


@given(gates, thresholds)
def test_soft_threshold_equals_softshrink(gate, xi):
    assert torch.equal(
        soft_threshold(tensor(gate), xi), torch.nn.functional.softshrink(tensor(gate), xi)
    )


@given(gates, thresholds)
def test_soft_threshold_agrees_with_the_reference(gate, xi):
    assert soft_threshold(tensor(gate), xi).tolist() == reference.soft_threshold(gate, xi)


@given(gates, thresholds)
def test_soft_threshold_is_odd(gate, xi):
    assert torch.equal(soft_threshold(-tensor(gate), xi), -soft_threshold(tensor(gate), xi))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), thresholds)
def test_soft_threshold_is_non_expansive(pairs, xi):
    x, y = tensor([a for a, _ in pairs]), tensor([b for _, b in pairs])
    moved = (soft_threshold(x, xi) - soft_threshold(y, xi)).abs()
    assert (moved <= (x - y).abs() + 1e-12).all()


@given(gates, thresholds, thresholds)
def test_soft_threshold_shrinks_more_for_a_larger_xi(gate, xi, other):
    small, large = sorted((xi, other))
    assert (
        soft_threshold(tensor(gate), large).abs() <= soft_threshold(tensor(gate), small).abs()
    ).all()


@given(gates, thresholds)
def test_soft_threshold_is_zero_exactly_where_gate_is_at_most_xi(gate, xi):
    dead = soft_threshold(tensor(gate), xi) == 0
    assert torch.equal(dead, tensor(gate).abs() <= xi)


@given(gates, thresholds)
def test_released_threshold_is_the_three_masked_updates_bit_for_bit(gate, xi):
    for dtype in (torch.float32, torch.float64):
        values = torch.tensor([*gate, xi, -xi, 2 * xi, -2 * xi], dtype=dtype)
        assert torch.equal(released_threshold(values, xi), reference.released_masks(values, xi))


@given(gates, thresholds)
def test_released_threshold_agrees_with_the_reference(gate, xi):
    values = [*gate, xi, -xi, 2 * xi, -2 * xi]
    assert released_threshold(tensor(values), xi).tolist() == reference.released_threshold(
        values, xi
    )


@given(st.lists(st.tuples(numbers, metrics), min_size=1, max_size=8), thresholds)
def test_metric_threshold_agrees_with_the_reference(pairs, xi):
    gate, metric = [g for g, _ in pairs], [m for _, m in pairs]
    value = metric_threshold(tensor(gate), xi, metric=tensor(metric))
    # torch divides a number by a tensor as a product with its reciprocal: one rounding more
    expected = reference.metric_threshold(gate, xi, metric)
    assert value.tolist() == pytest.approx(expected, rel=0, abs=1e-14)


@given(numbers, metrics, thresholds, numbers)
def test_metric_threshold_minimises_its_objective(g, metric, xi, other):
    u = metric_threshold(tensor([g]), xi, metric=tensor([metric])).item()
    least = metric * (u - g) ** 2 / 2 + xi * abs(u)
    assert metric * (other - g) ** 2 / 2 + xi * abs(other) >= least - 1e-12


reaches = st.lists(
    st.tuples(st.floats(0, 4, width=32), st.sampled_from([384.0, 960.0])), min_size=1, max_size=12
)


@given(reaches, st.data())
def test_largest_threshold_agrees_with_the_reference(pairs, data):
    reach, costs = [r for r, _ in pairs], [c for _, c in pairs]
    least = data.draw(st.integers(1, int(sum(costs))))
    value = largest_threshold(tensor(reach), tensor(costs), least)
    assert value == reference.largest_threshold(reach, costs, least)


@given(st.lists(st.floats(0.125, 4, width=32), min_size=1, max_size=12, unique=True), st.data())
def test_largest_threshold_leaves_no_rank_more_than_asked(reach, data):
    least = data.draw(st.integers(1, len(reach)))
    xi = largest_threshold(tensor(reach), torch.ones(len(reach), dtype=torch.float64), least)
    assert sum(r > xi for r in reach) == least
