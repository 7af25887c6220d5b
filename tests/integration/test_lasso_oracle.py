"""With A and B frozen and a squared loss, SoRA is a Lasso: scikit-learn is the oracle."""

import numpy as np
import pytest
import torch

from analysis.lasso import DIFFERENCE_BOUND, KKT_BOUND
from experiments.lasso_oracle import (
    LARGE,
    SMALL,
    LassoProblem,
    Level,
    plain_path,
    prox_adamw,
    prox_sgd,
    scikit_learn_path,
    sorakit_path,
)
from sorakit.config import GateUpdate

SOME = slice(None, None, 7)


SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]  # 24,000 steps, beside whatever else runs


@pytest.fixture(
    scope="module", params=[SMALL, pytest.param(LARGE, marks=SLOW)], ids=["small", "large"]
)
def problem(request: pytest.FixtureRequest) -> LassoProblem:
    return LassoProblem(request.param)


@pytest.fixture(scope="module")
def ends(problem: LassoProblem) -> list[Level]:
    """The levels of SoraConfig, ProxAdamW and XiScheduler in a Trainer."""
    return sorakit_path(problem)


@pytest.fixture(scope="module")
def oracle(problem: LassoProblem) -> np.ndarray:
    return scikit_learn_path(problem, problem.lambdas)


def path(levels: list[Level]) -> np.ndarray:
    return np.stack([level.gate for level in levels])


def residuals(levels: list[Level]) -> np.ndarray:
    return np.array([level.kkt_residual for level in levels])


def test_design_is_correlated(problem):
    assert problem.condition_number >= 100


def test_design_is_what_the_adapter_computes(problem, generator):
    fresh = LassoProblem(problem.config)
    inputs, _ = fresh.batch
    gate = torch.randn(fresh.config.r, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        dead = fresh.model(inputs)
        fresh.matrix.gate.copy_(gate)
        adapter = fresh.model(inputs) - dead
    np.testing.assert_allclose(adapter.numpy().ravel(), fresh.design @ gate.numpy(), atol=1e-12)


def test_model_is_float64(problem):
    assert {parameter.dtype for parameter in problem.model.parameters()} == {torch.float64}


def test_only_gates_are_trained(problem, ends):
    fresh = dict(LassoProblem(problem.config).model.named_parameters())
    changed = {name for name, p in problem.model.named_parameters() if not p.equal(fresh[name])}
    assert changed == {"base_model.model.linear.lora_B.default.gate"}


def test_xi_scheduler_visits_every_lambda(problem, ends):
    assert len(ends) >= 20
    np.testing.assert_allclose([end.lambda_ for end in ends], problem.lambdas, rtol=1e-14)


def test_support_is_that_of_scikit_learn(ends, oracle):
    np.testing.assert_array_equal(path(ends) != 0, oracle != 0)


def test_support_shrinks_along_the_path(oracle):
    sizes = (oracle != 0).sum(axis=1)
    assert len(set(sizes.tolist())) >= 6


def test_coefficients_are_those_of_scikit_learn(ends, oracle):
    np.testing.assert_allclose(path(ends), oracle, rtol=0, atol=DIFFERENCE_BOUND)


def test_kkt_residual_says_solution_at_every_level(ends):
    assert residuals(ends).max() < KKT_BOUND


def test_prox_sgd_alone_solves_it_from_the_largest_lambda_down():
    problem = LassoProblem(SMALL)
    lambdas = problem.lambdas[::-1][SOME]
    levels = plain_path(problem, prox_sgd(problem), lambdas, steps=SMALL.steps)
    oracle = scikit_learn_path(problem, lambdas)
    np.testing.assert_allclose(path(levels), oracle, rtol=0, atol=DIFFERENCE_BOUND)
    np.testing.assert_array_equal(path(levels) != 0, oracle != 0)
    assert residuals(levels).max() < KKT_BOUND


def with_update(update: GateUpdate, *, lr: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gates, KKT residuals and scikit-learn's coefficients at three lambdas."""
    problem = LassoProblem(SMALL)
    lambdas = problem.lambdas[SOME]
    levels = plain_path(problem, prox_adamw(problem, update, lr=lr), lambdas, steps=600)
    return path(levels), residuals(levels), scikit_learn_path(problem, lambdas)


def test_adamw_with_the_threshold_in_its_own_metric_solves_it():
    gates, kkt, oracle = with_update("adamw_metric", lr=0.1)
    np.testing.assert_allclose(gates, oracle, rtol=0, atol=DIFFERENCE_BOUND)
    assert kkt.max() < KKT_BOUND


@pytest.mark.parametrize("update", ["adamw", "released"])
def test_constant_threshold_after_adamw_misses_the_penalty(update):
    # AdamW divides the gradient by its own size and the threshold is not divided, so lambda has no
    # unit: live gates settle where the gradient is 0, a residual of 1, as if there were no penalty.
    gates, kkt, oracle = with_update(update, lr=0.03)
    assert kkt.min() > 0.9
    assert ((gates != 0).sum(axis=1) > 2 * (oracle != 0).sum(axis=1)).all()
