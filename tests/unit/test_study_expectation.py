"""What the runs of a study are expected to take: plain arithmetic from a timed step."""

from dataclasses import replace

import pytest

from sorakit.config import (
    DenseConfig,
    MethodConfig,
    OptimConfig,
    RefitConfig,
    RunConfig,
    StageConfig,
    TaskConfig,
    XiConfig,
)
from sorakit.studies.expectation import (
    Passes,
    describe,
    expect,
    most_passes,
    times_of,
    usual_passes,
)
from sorakit.studies.look import Look
from sorakit.sweep.display import plan_costs
from sorakit.sweep.grid import load_specification
from sorakit.sweep.plan import plan_points

LOOK = Look(text="", warnings=[], seconds_a_step=0.5, steps_per_epoch=10, evaluated_batches=6.0)
CONFIG = RunConfig(
    task=TaskConfig(memorization_examples=64),
    optim=OptimConfig(batch_size=32),
    xi=XiConfig(num_stages=4),
)


def test_times_are_those_of_passes_evaluations_and_residuals():
    times = times_of(CONFIG, LOOK, Passes(dense=20, stage=16.0))
    evaluation, residuals = 6 * 0.5 / 3, 64 / 32 * 0.5
    assert times.dense == pytest.approx(20 * 5 + evaluation)
    assert times.later == pytest.approx(4 * (16 * 5 + 2 * evaluation + residuals))


def test_lora_and_the_floor_have_no_later_stages():
    for name in ("lora", "head_only"):
        config = replace(CONFIG, method=MethodConfig(name=name))
        assert times_of(config, LOOK, Passes(dense=20, stage=16.0)).later == 0


def test_guards_bound_what_is_usual():
    config = replace(
        CONFIG,
        dense=DenseConfig(max_epochs=5),
        refit=RefitConfig(max_epochs=4),
        stage=StageConfig(max_epochs=0.5),
    )
    assert usual_passes(config) == most_passes(config) == Passes(dense=5, stage=4.5)
    assert usual_passes(CONFIG).dense < most_passes(CONFIG).dense


def test_estimate_says_how_it_was_made_and_its_bound(tmp_path):
    content = {"xi.num_stages": 4, "controls": ["floor", {"lora": [1]}]}
    sweep = load_specification(content, name="study")
    plan = plan_points(sweep, out=tmp_path / "runs", threads_per_run=1)
    costs = plan_costs(plan)
    looks = dict.fromkeys(range(3), LOOK)
    expect(costs, plan, looks, at_most=False)
    said = describe(plan, looks, costs=costs, workers=2)
    times = [times_of(job.config, LOOK, usual_passes(job.config)) for job in plan.jobs]
    usual = sum(time.dense + time.later for time in times)
    assert said.startswith(f"About {usual / 60:.0f} min of computing, ")
    assert "with 2 workers: a timed training step took 0.5 s" in said
    assert said.endswith("if max_epochs ends every stage.")
