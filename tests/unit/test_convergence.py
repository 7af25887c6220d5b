from dataclasses import replace

import pytest

from sorakit.config import DenseConfig
from sorakit.schedule.convergence import cooldown_length, judge_pass, why_training_ends
from sorakit.schedule.learning_rate import converging_factor
from sorakit.schedule.position import Position

STEPS = 10
RULE = DenseConfig(max_epochs=20, patience=2, cooldown_epochs=3, min_improvement=0.01)


def train(losses: list[float], *, rule: DenseConfig = RULE, null_loss: float = 1.0):
    """Return the passes until training ended, and why."""
    position = Position(risen_xi=1.0)
    for count, loss in enumerate(losses, start=1):
        position = replace(position, step=position.step + STEPS)
        keywords = {"rule": rule, "null_loss": null_loss, "steps_per_epoch": STEPS}
        position = judge_pass(position, loss, **keywords)
        why = why_training_ends(position, loss, **keywords)
        if why is not None:
            return count, why
    return len(losses), None


def test_a_loss_that_decays_to_zero_converges():
    losses = [0.69 * 0.5**k for k in range(20)]
    assert train(losses, null_loss=0.69) == (8, "converged")


def test_one_percent_of_the_loss_itself_would_never_be_missed():
    losses = [0.5 * 0.98**k for k in range(100)]
    rule = replace(RULE, max_epochs=100)
    count, why = train(losses, rule=rule)
    assert why == "converged"
    assert count < 60


def test_cooldown_follows_patience_passes_without_improvement():
    assert train([0.5] * 20) == (1 + 2 + 3, "converged")


def test_slow_progress_counts_when_it_adds_up_within_the_patience():
    """0.006 a pass is no improvement by itself, and one over two passes."""
    losses = [0.9 - 0.006 * k for k in range(17)]
    assert train(losses)[1] is None


@pytest.mark.parametrize("null_loss", [0.1, 1.0, 50.0])
def test_units_of_the_loss_do_not_matter(null_loss):
    losses = [0.9 * null_loss * 0.9**k for k in range(20)]
    assert train(losses, null_loss=null_loss) == train([0.9 * 0.9**k for k in range(20)])


def test_guard_leaves_time_for_the_cooldown():
    losses = [1 - 0.02 * k for k in range(40)]
    assert train(losses) == (20, "max_epochs")


def test_loss_does_not_decide_during_the_cooldown():
    assert train([0.5, 0.5, 0.5, 0.2, 0.1, 0.05]) == (6, "converged")


@pytest.mark.parametrize(("max_epochs", "length"), [(1, 0), (2, 1), (5, 2), (20, 3)])
def test_cooldown_is_at_most_half_of_the_guard(max_epochs, length):
    assert cooldown_length(replace(RULE, max_epochs=max_epochs)) == length


def test_one_pass_is_one_pass():
    assert train([0.5], rule=replace(RULE, max_epochs=1)) == (1, "max_epochs")


def factor(step: int, *, cooldown_start: int | None = None, warmup_epochs: float = 0.5) -> float:
    position = Position(risen_xi=1.0, step=step, cooldown_start=cooldown_start)
    return converging_factor(
        position, steps_per_epoch=STEPS, warmup_epochs=warmup_epochs, cooldown_epochs=2
    )


def test_warm_up_rises_linearly():
    assert [factor(step) for step in range(5)] == pytest.approx([k / 6 for k in range(1, 6)])


def test_no_warm_up_starts_at_the_peak():
    assert factor(0, warmup_epochs=0.0) == 1.0


def test_learning_rate_is_constant_until_the_loss_stops_improving():
    assert {factor(step) for step in (5, 100, 10_000)} == {1.0}


def test_cooldown_is_linear_to_zero():
    values = [factor(40 + k, cooldown_start=40) for k in range(21)]
    assert values == pytest.approx([1 - k / 20 for k in range(21)])
