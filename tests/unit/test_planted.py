import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from sorakit.tasks.planted import (
    ParallelLinears,
    Planted,
    PlantedConfig,
    PlantedTransformerConfig,
    compress,
    example_losses,
    numerical_rank,
    plant,
    plant_transformer,
    score,
    select_one_standard_error,
)

CONFIG = PlantedConfig(ranks=(0, 1, 2, 4, 8), num_train=2048, num_held_out=64)
TRANSFORMER = PlantedTransformerConfig(num_train=4, num_held_out=4)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(CONFIG, seed=0)


def residuals(planted: Planted) -> torch.Tensor:
    """Return what the teacher leaves of the training targets."""
    base = planted.base
    assert isinstance(base, ParallelLinears)
    weights = [
        base.get_submodule(name).get_parameter("weight").detach() + update
        for name, update in planted.updates.items()
    ]
    outputs = ParallelLinears(weights)(planted.train.inputs)
    return planted.train.targets - outputs.detach()


def test_noise_level_is_the_largest_singular_value_of_pure_noise(generator):
    config = PlantedConfig(num_train=2048, noise=0.5)
    inputs = torch.randn(config.num_train, config.d_in, generator=generator)
    noise = config.noise * torch.randn(config.num_train, config.d_out, generator=generator)
    estimate = torch.linalg.lstsq(inputs, noise).solution
    assert config.noise_level == pytest.approx(0.125, rel=1e-6)
    assert float(torch.linalg.matrix_norm(estimate, 2)) == pytest.approx(0.125, rel=0.1)


def test_updates_have_the_planted_ranks(planted):
    ranks = [int(torch.linalg.matrix_rank(update)) for update in planted.updates.values()]
    assert ranks == [0, 1, 2, 4, 8]
    assert planted.ranks == CONFIG.ranks


def test_singular_values_lie_from_smallest_to_largest_in_noise_levels(planted):
    values = torch.linalg.svdvals(planted.updates["layers.3"]) / CONFIG.noise_level
    expected = torch.tensor([16.0, 8 + 16 / 3, 8 + 8 / 3, 8.0])
    torch.testing.assert_close(values[:4], expected, rtol=1e-5, atol=0)


def test_rank_one_has_the_smallest_singular_value(planted):
    values = torch.linalg.svdvals(planted.updates["layers.1"]) / CONFIG.noise_level
    assert float(values[0]) == pytest.approx(8.0, rel=1e-5)


def test_singular_value_below_five_noise_levels_is_refused():
    message = (
        "`smallest` must be in [5, largest = 16.0], got 4.9. A smaller one is not identifiable."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PlantedConfig(smallest=4.9)


def test_rank_beyond_the_matrix_is_refused():
    with pytest.raises(ValueError, match=r"^`ranks` must be in \[0, 32\], got \(0, 33\)\.$"):
        PlantedConfig(ranks=(0, 33))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": 63}, "`num_train` must be >= 2 * d_in = 64, got 63."),
        ({"num_held_out": 1}, "`num_held_out` must be >= 2, got 1."),
        ({"noise": 0.0}, "`noise` must be > 0, got 0.0."),
    ],
)
def test_useless_size_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(CONFIG, **changes)


def test_defaults_leave_a_window_for_the_rule():
    # The arithmetic of PlantedConfig's docstring.
    config = PlantedConfig()
    outputs = len(config.ranks) * config.d_out
    standard_error = config.noise**2 * math.sqrt(2 * outputs / config.num_held_out)
    shrinkage = sum(config.ranks) * config.noise_level**2
    loss_of_one = (config.smallest * config.noise_level) ** 2
    assert shrinkage < standard_error < loss_of_one


def test_inputs_of_every_matrix_are_well_conditioned(planted):
    values = torch.linalg.svdvals(planted.train.inputs.transpose(0, 1))
    assert float((values[:, 0] / values[:, -1]).max()) < 1.4


def test_noise_has_the_stated_deviation(planted):
    assert float(residuals(planted).std()) == pytest.approx(CONFIG.noise, rel=0.01)


def test_held_out_examples_are_others(planted):
    assert not torch.equal(planted.held_out.inputs, planted.train.inputs[:64])


def test_null_teacher_is_the_base(planted):
    null = plant(replace(CONFIG, ranks=(0, 0)), seed=0)
    assert all(not update.any() for update in null.updates.values())
    assert float(residuals(null).std()) == pytest.approx(CONFIG.noise, rel=0.01)


def test_same_seed_draws_the_same_task(planted):
    again = plant(CONFIG, seed=0)
    torch.testing.assert_close(again.train.targets, planted.train.targets, rtol=0, atol=0)
    torch.testing.assert_close(again.held_out.targets, planted.held_out.targets, rtol=0, atol=0)


def test_another_seed_draws_another_task(planted):
    assert not torch.equal(plant(CONFIG, seed=1).train.targets, planted.train.targets)


def test_layers_have_their_own_inputs_and_outputs(generator):
    weights = [torch.randn(3, 2, generator=generator) for _ in range(2)]
    model = ParallelLinears(weights)
    inputs = torch.randn(5, 2, 2, generator=generator)
    outputs = model(inputs)
    for index, weight in enumerate(weights):
        torch.testing.assert_close(outputs[:, index], inputs[:, index] @ weight.T)


def test_compressed_loss_differs_by_the_same_constant_for_every_model(planted, generator):
    compressed = compress(planted.train)
    assert compressed.inputs.shape == (32, 5, 32)

    def gap() -> float:
        model = ParallelLinears([torch.randn(32, 32, generator=generator) for _ in range(5)])
        with torch.no_grad():
            losses = [
                float(example_losses(model(examples.inputs), examples.targets).mean())
                for examples in (planted.train, compressed)
            ]
        return losses[0] - losses[1]

    residual_variance = 5 * 32 * (1 - 32 / 2048)
    first = gap()
    assert first == pytest.approx(residual_variance, rel=0.02)
    assert gap() == pytest.approx(first, abs=0.05)  # float32 sums of about 10,000


def test_transformer_plants_in_every_linear_layer():
    task = plant_transformer(TRANSFORMER, seed=0)
    linears = [n for n, m in task.base.named_modules() if isinstance(m, nn.Linear)]
    assert list(task.updates) == linears
    assert len(linears) == 12
    assert [int(torch.linalg.matrix_rank(u)) for u in task.updates.values()] == list(task.ranks)
    assert sum(task.ranks) == 20


def test_transformer_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first = plant_transformer(TRANSFORMER, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    again = plant_transformer(TRANSFORMER, seed=0)
    torch.testing.assert_close(first.train.targets, again.train.targets, rtol=0, atol=0)


def test_rule_takes_the_sparsest_within_one_standard_error():
    losses, errors, ranks = [1.2, 1.0, 1.05, 1.11, 2.0], [0.3, 0.1, 0.1, 0.5, 0.5], [9, 7, 5, 3, 1]
    assert select_one_standard_error(losses, errors, ranks) == 2


def test_rule_counts_ranks_not_position():
    assert select_one_standard_error([1.0, 1.05, 1.04], [0.1] * 3, [7, 4, 5]) == 1


def test_rule_takes_the_better_of_equally_sparse_points():
    assert select_one_standard_error([1.0, 1.05, 1.04], [0.1] * 3, [7, 4, 4]) == 2


def test_rule_never_takes_a_diverged_point():
    assert select_one_standard_error([math.nan, 1.0, math.inf], [0.1] * 3, [0, 7, 0]) == 1


def test_rule_needs_a_finite_loss():
    with pytest.raises(ValueError, match=r"^`losses` must hold a finite number, got \[nan\]\.$"):
        select_one_standard_error([math.nan], [0.1], [0])


def test_numerical_rank_counts_a_direction_once(generator):
    b, a = torch.randn(6, 1, generator=generator), torch.randn(1, 5, generator=generator)
    twice = torch.cat([b, 2 * b], dim=1) @ torch.cat([a, a], dim=0)
    assert numerical_rank(twice, 1e-3) == 1


def test_numerical_rank_leaves_out_what_is_below_the_threshold():
    assert numerical_rank(torch.diag(torch.tensor([3.0, 0.5, 0.1])), 0.1 + 1e-6) == 2


def test_numerical_rank_of_nothing_is_zero():
    assert numerical_rank(torch.zeros(3, 2), 0.0) == 0


def test_negative_threshold_is_refused():
    with pytest.raises(ValueError, match=r"^`threshold` must be >= 0, got -1.0\.$"):
        numerical_rank(torch.eye(2), -1.0)


def test_score_of_a_hand_example():
    result = score([0, 2, 2, 8], [0, 1, 4, 8])
    assert (result.exact, result.within_one) == (0.5, 0.75)
    assert (result.surplus, result.deficit) == (1, 2)
