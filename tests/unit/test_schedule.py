"""Algorithm 1 driven by scripted losses: no model, no Lightning."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest

from sorakit.config import DenseConfig, RefitConfig, StageConfig, XiConfig
from sorakit.schedule.position import Position
from sorakit.schedule.schedule import Schedule

STEPS = 10
"""Optimizer steps in a pass over the data."""
REFIT = RefitConfig(max_epochs=6, patience=1, cooldown_epochs=1, lr_factor=0.5)


@dataclass
class Traits:
    rises: bool = True
    trains: bool = True
    restarts: bool = False
    refits: bool = False


def make(
    *, traits: Traits | None = None, has_gates: bool = True, dense: Any = None, **stage: Any
) -> Schedule:
    return Schedule(
        xi=XiConfig(start=0.1, levels=[0.2, 0.4], spacing="list"),
        dense=DenseConfig(max_epochs=5, patience=2, cooldown_epochs=0, **(dense or {})),
        stage=StageConfig(**{"refit": "none", "epochs": 1.0, **stage}),
        refit=REFIT,
        warmup_epochs=0.0,
        null_loss=1.0,
        traits=traits or Traits(),
        has_gates=has_gates,
    )


def make_target(*, traits: Traits | None = None, **stage: Any) -> Schedule:
    return Schedule(
        xi=XiConfig(start=0.1, first=0.2, ratio=2.0, num_stages=2, spacing="target"),
        dense=DenseConfig(max_epochs=5, patience=2, cooldown_epochs=0),
        stage=StageConfig(**{"refit": "none", "epochs": 0.5, "max_epochs": 3.0, **stage}),
        refit=REFIT,
        warmup_epochs=0.0,
        null_loss=1.0,
        traits=traits or Traits(),
        has_gates=True,
    )


def segment(schedule: Schedule, loss: float, *, is_reached: bool = False) -> str | None:
    """Take the steps of one segment, and end the phase where the schedule says so."""
    for _ in range(schedule.segment_steps(STEPS)):
        schedule.end_step()
    why = schedule.end_segment(loss, steps_per_epoch=STEPS, is_reached=is_reached)
    if why is not None:
        schedule.end_phase(no_gate_left=False)
    return why


def to_first_stage(schedule: Schedule) -> Schedule:
    while schedule.position.stage == 0:
        segment(schedule, 1.0)
    schedule.count_dense(1000)
    return schedule


def test_dense_stage_ends_after_patience_passes_without_improvement():
    schedule = make()
    assert [segment(schedule, loss) for loss in (1.0, 0.5, 0.5, 0.5)] == [
        None,
        None,
        None,
        "converged",
    ]
    assert schedule.position.stage == 1


def test_dense_stage_ends_at_its_guard():
    schedule = make()
    losses = [1.0 - 0.1 * k for k in range(5)]
    assert [segment(schedule, loss) for loss in losses] == [None] * 4 + ["max_epochs"]


def test_levels_follow_each_other():
    schedule = make()
    levels = [schedule.xi]
    while not schedule.position.is_finished:
        stage = schedule.position.stage
        segment(schedule, 1.0)
        if schedule.position.stage > stage:
            levels.append(schedule.xi)
    assert levels == [0.1, 0.2, 0.4]
    assert schedule.position.completed_stages == 3


def test_run_without_gates_ends_with_the_dense_stage():
    schedule = make(has_gates=False)
    while not schedule.position.is_finished:
        segment(schedule, 1.0)
    assert (schedule.position.stage, schedule.position.completed_stages) == (0, 1)


def test_run_ends_when_no_gate_is_left():
    schedule = to_first_stage(make())
    schedule.end_phase(no_gate_left=True)
    assert schedule.position.is_finished


def test_held_xi_does_not_rise():
    schedule = to_first_stage(make(traits=Traits(rises=False)))
    assert schedule.xi == 0.1


def test_stage_without_training_has_no_learning_rate():
    schedule = to_first_stage(make(traits=Traits(trains=False)))
    assert schedule.learning_rate_factor(STEPS) == 0.0


def test_restarted_stage_is_trained_like_the_dense_one():
    schedule = to_first_stage(make(traits=Traits(restarts=True)))
    assert schedule.phase.ends == "convergence"
    assert [segment(schedule, 1.0) for _ in range(3)] == [None, None, "converged"]


def test_stage_of_a_length_is_one_segment():
    schedule = to_first_stage(make(epochs=1.5))
    assert schedule.segment_steps(STEPS) == 15
    assert segment(schedule, 1.0) == "length"


def test_unchanging_stage_takes_one_step():
    schedule = to_first_stage(make(traits=Traits(rises=False, trains=False)))
    assert schedule.segment_steps(STEPS) == 1


@pytest.mark.parametrize(("residual", "why"), [(0.05, "stationary"), (0.5, None)])
def test_stationary_stage_ends_at_its_tolerance(residual, why):
    schedule = to_first_stage(make(until="stationary", tolerance=0.1))
    for _ in range(STEPS):
        schedule.end_step()
    assert schedule.end_segment(1.0, steps_per_epoch=STEPS, residual=residual) == why


def test_target_counts_are_evenly_spaced_in_log():
    schedule = to_first_stage(make_target())
    assert schedule.target(smallest=10) == 100
    segment(schedule, 1.0, is_reached=True)
    assert schedule.target(smallest=10) == 10


def test_xi_rises_by_the_ratio_within_a_stage_length():
    schedule = to_first_stage(make_target())
    assert schedule.xi == 0.2
    for _ in range(5):
        schedule.raise_xi(STEPS)
    assert schedule.xi == pytest.approx(0.4)


def test_target_is_met_no_sooner_than_the_stage_length():
    schedule = to_first_stage(make_target())
    met = []
    for _ in range(6):
        schedule.end_step()
        met.append(schedule.is_target_met(STEPS, is_reached=True))
    assert met == [False] * 4 + [True] * 2


def test_target_that_is_not_reached_ends_at_the_guard():
    schedule = to_first_stage(make_target())
    assert schedule.segment_steps(STEPS) == 30
    assert segment(schedule, 1.0) == "max_epochs"


def test_dense_stage_that_leaves_nothing_is_refused():
    schedule = to_first_stage(make_target())
    schedule.count_dense(0)
    with pytest.raises(ValueError, match=r"^`xi\.start` must leave a gate after the dense stage"):
        schedule.check_dense()


def test_schedule_goes_on_from_its_position():
    whole = to_first_stage(make_target())
    whole.raise_xi(STEPS)
    whole.end_step()
    other = make_target()
    other.resume(Position(**asdict(whole.position)))
    assert other.position == whole.position
    assert other.xi == whole.xi


def test_xi_rises_from_the_own_first_level_after_a_shared_dense_stage():
    shared = replace(to_first_stage(make_target()).position, risen_xi=9.0)
    other = make_target()
    other.resume(shared)
    assert other.xi == 0.2


# Refit ---------------------------------------------------------------------------------------


def names_of(schedule: Schedule) -> list[tuple[int, str, float]]:
    """Run to the end; return stage, phase and threshold of every segment."""
    seen = []
    while not schedule.position.is_finished:
        seen.append((schedule.position.stage, schedule.phase.name, schedule.xi))
        segment(schedule, 1.0, is_reached=True)
    return seen


@pytest.mark.parametrize("refit", ["branch", "continue"])
def test_every_sparsifying_stage_compresses_and_then_refits(refit):
    seen = names_of(to_first_stage(make(refit=refit)))
    stages = list(dict.fromkeys(seen))  # a refit takes several passes
    assert stages == [
        (1, "compress", 0.2),
        (1, "refit", 0.0),
        (2, "compress", 0.4),
        (2, "refit", 0.0),
    ]


@pytest.mark.parametrize(
    "traits", [Traits(rises=False), Traits(restarts=True)], ids=["rises_not", "restarts"]
)
def test_controls_have_the_same_phases(traits):
    seen = names_of(to_first_stage(make(traits=traits, refit="continue")))
    assert [name for _, name, _ in dict.fromkeys(seen)] == ["compress", "refit"] * 2


def test_control_that_trains_nothing_has_no_refit():
    seen = names_of(to_first_stage(make(traits=Traits(trains=False), refit="continue")))
    assert {name for _, name, _ in seen} == {"compress"}


def test_refit_starts_with_a_learning_rate_of_its_own_and_cools_down():
    schedule = to_first_stage(make(refit="continue"))
    assert schedule.learning_rate_factor(STEPS) == StageConfig().lr_factor
    segment(schedule, 1.0)
    factors = []
    while schedule.phase.name == "refit":
        factors.append(schedule.learning_rate_factor(STEPS))
        segment(schedule, 1.0)
    assert factors == [
        0.5,
        0.5,
        0.5,
    ]  # first pass, the one without improvement, the cooldown's start


def test_level_of_a_stage_stays_while_it_is_refitted():
    schedule = to_first_stage(make(refit="continue"))
    segment(schedule, 1.0)
    assert (schedule.phase.name, schedule.level, schedule.xi) == ("refit", 0.2, 0.0)


def test_level_never_falls_on_the_way_to_targets():
    schedule = to_first_stage(make_target(refit="continue"))
    levels = [schedule.level]
    while not schedule.position.is_finished:
        if schedule.phase.ends == "target":
            for _ in range(5):
                schedule.raise_xi(STEPS)
        segment(schedule, 1.0, is_reached=True)
        levels.append(schedule.level)
    assert levels == sorted(levels)


def test_refit_without_a_gate_left_ends_the_run():
    schedule = to_first_stage(make(refit="continue"))
    schedule.end_phase(no_gate_left=True)
    assert schedule.phase.name == "refit"
    schedule.end_phase(no_gate_left=True)
    assert schedule.position.is_finished
