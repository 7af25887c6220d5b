import math

import pytest
import torch

from sorakit.method.prox import metric_threshold, released_threshold, soft_threshold
from tests.support import reference

XI = 0.1
OPERATORS = {
    "soft": soft_threshold,
    "released": released_threshold,
    "metric": lambda gate, xi: metric_threshold(gate, xi, metric=torch.ones_like(gate)),
}
operators = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)


def boundary_gates(xi: float, dtype: torch.dtype) -> torch.Tensor:
    """0, xi and 2 xi with both neighbours, and both signs, in `dtype`."""
    points = torch.tensor([0.0, xi, 2 * xi, 3 * xi], dtype=dtype)
    below = torch.nextafter(points, torch.full_like(points, -math.inf))
    above = torch.nextafter(points, torch.full_like(points, math.inf))
    positive = torch.cat([points, below, above])
    return torch.cat([positive, -positive])


def test_soft_threshold_of_known_values():
    gate = torch.tensor([-1.0, -0.25, 0.0, 0.25, 1.0])
    assert soft_threshold(gate, 0.25).tolist() == [-0.75, 0.0, 0.0, 0.0, 0.75]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_threshold_equals_softshrink_at_the_boundary(dtype):
    gate = boundary_gates(XI, dtype)
    assert torch.equal(soft_threshold(gate, XI), torch.nn.functional.softshrink(gate, XI))


def test_soft_threshold_at_xi_0_is_the_identity():
    gate = torch.tensor([-1e-30, 0.0, 1e-30, 3.0])
    assert torch.equal(soft_threshold(gate, 0.0), gate)


def test_metric_threshold_with_metric_1_is_the_soft_threshold():
    gate = boundary_gates(XI, torch.float32)
    metric = torch.ones_like(gate)
    assert torch.equal(metric_threshold(gate, XI, metric=metric), soft_threshold(gate, XI))


def test_metric_threshold_divides_xi_entry_by_entry():
    gate, metric = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.25, 0.5, 2.0])
    assert metric_threshold(gate, 0.25, metric=metric).tolist() == [0.0, 0.5, 0.875]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("xi", [0.0, 1e-4, 0.1, 0.25, 1.0])
def test_released_threshold_equals_the_three_masked_updates_bit_for_bit(dtype, xi):
    gate = boundary_gates(xi, dtype)
    expected = reference.released_masks(gate, xi)
    assert torch.equal(released_threshold(gate, xi), expected)


def test_released_threshold_leaves_xi_itself_as_it_is():
    # 0.25 and 0.5 are exact in binary
    assert released_threshold(torch.tensor([0.25, -0.25]), 0.25).tolist() == [0.25, -0.25]


def test_released_threshold_keeps_2_xi():
    assert released_threshold(torch.tensor([0.5, -0.5]), 0.25).tolist() == [0.25, -0.25]


def test_released_threshold_differs_from_eq_11_exactly_from_xi_to_below_2_xi():
    gate = torch.arange(-1024, 1025) / 1024  # exact in binary, as are xi and all differences
    differs = released_threshold(gate, 0.25) != soft_threshold(gate, 0.25)
    assert torch.equal(differs, (gate.abs() >= 0.25) & (gate.abs() < 0.5))


@operators
def test_threshold_returns_a_new_tensor(operator):
    gate = torch.tensor([0.5])
    operator(gate, 0.25)
    assert gate.item() == 0.5


@operators
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threshold_keeps_the_dtype(operator, dtype):
    assert operator(torch.ones(2, dtype=dtype), 0.25).dtype == dtype


@operators
@pytest.mark.parametrize("xi", [-1e-9, math.nan])
def test_threshold_rejects_a_negative_or_nan_xi(operator, xi):
    with pytest.raises(ValueError, match=rf"^`xi` must be >= 0, got {xi}\.$"):
        operator(torch.ones(2), xi)
