import math

import pytest
import torch

from sorakit.method.kkt import kkt_residual, unit_scale_relief
from sorakit.method.prox import soft_threshold
from tests.support import reference


def residual(gate: list[float], gradient: list[float], lambda_: float) -> float:
    return kkt_residual(torch.tensor(gate), torch.tensor(gradient), lambda_=lambda_)


def test_dead_gate_inside_the_band_is_no_violation():
    assert residual([0.0, 0.0], [0.5, -0.5], 0.5) == 0.0


def test_dead_gate_violates_by_what_exceeds_lambda():
    assert residual([0.0], [-0.75], 0.5) == 0.5


def test_live_gate_with_the_gradient_of_its_sign_is_no_violation():
    assert residual([2.0, -2.0], [-0.5, 0.5], 0.5) == 0.0


def test_live_gate_without_gradient_violates_by_lambda():
    assert residual([2.0, -2.0], [0.0, 0.0], 0.5) == 1.0


def test_residual_is_the_largest_violation():
    assert residual([0.0, 1.0], [1.0, 0.0], 0.5) == 1.0


def test_residual_agrees_with_the_reference(generator):
    gate = soft_threshold(torch.randn(40, generator=generator, dtype=torch.float64), 0.7)
    gradient = torch.randn(40, generator=generator, dtype=torch.float64)
    expected = reference.kkt_residual(gate.tolist(), gradient.tolist(), 0.3)
    assert kkt_residual(gate, gradient, lambda_=0.3) == pytest.approx(expected, rel=1e-12)


def test_fixed_point_of_the_proximal_step_is_a_solution(generator):
    # quadratic loss with curvature 1..6: proximal gradient converges to the L1 solution
    curvature = torch.arange(1.0, 7.0, dtype=torch.float64)
    optimum = torch.randn(6, generator=generator, dtype=torch.float64)
    gate = torch.zeros(6, dtype=torch.float64)
    for _ in range(2000):
        gate = soft_threshold(gate - 0.1 * curvature * (gate - optimum), 0.1 * 0.5)
    assert kkt_residual(gate, curvature * (gate - optimum), lambda_=0.5) < 1e-10


def test_fixed_point_of_a_step_that_lets_gates_grow_has_the_penalty_that_growth_leaves(generator):
    # the same step, then each gate grows by its own factor, as what unit scale takes off A and B
    curvature = torch.arange(1.0, 7.0, dtype=torch.float64)
    optimum = torch.randn(6, generator=generator, dtype=torch.float64)
    growth = 0.02 * torch.rand(6, generator=generator, dtype=torch.float64)
    gate = torch.ones(6, dtype=torch.float64)
    for _ in range(4000):
        gate = soft_threshold(gate - 0.1 * curvature * (gate - optimum), 0.1 * 0.5) * growth.exp()
    gradient = curvature * (gate - optimum)
    relief = unit_scale_relief(gate, growth, gate_lr=0.1)
    assert kkt_residual(gate, gradient, lambda_=0.5, relief=relief) < 1e-10
    assert kkt_residual(gate, gradient, lambda_=0.5) > 0.01


def test_no_growth_is_no_relief(generator):
    gate = torch.randn(5, generator=generator)
    assert unit_scale_relief(gate, torch.zeros(5), gate_lr=0.1).abs().max() == 0


def test_no_gates_are_a_solution():
    assert residual([], [], 0.5) == 0.0


@pytest.mark.parametrize("lambda_", [0.0, -1.0, math.nan])
def test_lambda_must_be_positive(lambda_):
    with pytest.raises(ValueError, match=rf"^`lambda_` must be > 0, got {lambda_}\.$"):
        residual([0.0], [0.0], lambda_)
