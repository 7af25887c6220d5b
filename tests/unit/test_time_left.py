"""What a run says of the time that it will still take."""

from dataclasses import replace

from sorakit.config import DenseConfig, RefitConfig, RunConfig, StageConfig
from sorakit.training.time_left import TimeLeft


def watched(*, steps: int, seconds_each: float = 2.0) -> TimeLeft:
    """Return the clock of a run that has taken some steps."""
    clock = TimeLeft(dense_steps=100, stage_steps=20, num_stages=3)
    clock.begin(10.0)
    for step in range(1, steps + 1):
        clock.step(10.0 + seconds_each * step)
    return clock


def test_nothing_is_known_before_the_first_steps():
    assert watched(steps=4).remaining(0, 4) is None


def test_dense_stage_may_end_before_its_guard():
    left = watched(steps=40).remaining(0, 40)
    assert left is not None
    assert left.seconds == 2.0 * (60 + 3 * 20)
    assert str(left) == "up to 4 min left"


def test_stages_are_expected_to_be_as_long_as_those_that_have_ended():
    clock = watched(steps=40)
    clock.stage_ended(0, 30)
    before = clock.remaining(1, 5)
    clock.stage_ended(1, 40)
    after = clock.remaining(2, 10)
    assert before is not None
    assert after is not None
    assert (before.seconds, after.seconds) == (2.0 * (15 + 2 * 20), 2.0 * (30 + 40))
    assert str(after) == "about 2 min left"


def test_stage_that_takes_longer_than_expected_is_at_its_end():
    clock = watched(steps=40)
    left = clock.remaining(3, 90)
    assert left is not None
    assert str(left) == "about 0 s left"


def test_lengths_are_those_of_the_configuration():
    config = RunConfig(dense=DenseConfig(max_epochs=3), stage=StageConfig(epochs=0.5, refit="none"))
    clock = TimeLeft.of(config, steps_per_epoch=10, num_stages=2)
    assert clock.plan == (
        "At most 30 steps until dense training has converged, then about 5 in each of 2 stages; "
        "the time left is shown as soon as the first steps are taken."
    )
    refit = replace(config, stage=replace(config.stage, refit="continue"), refit=RefitConfig())
    assert "then about 75 in each" in TimeLeft.of(refit, steps_per_epoch=10, num_stages=2).plan
    alone = TimeLeft.of(config, steps_per_epoch=10, num_stages=0)
    assert alone.plan.startswith("At most 30 steps until dense training has converged; the time")
