"""The refit of a stage in real runs: what it changes, what it keeps, and exact resume."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sorakit.config import RunConfig, StageConfig, TaskConfig, TrainerConfig, XiConfig
from sorakit.method.compaction import Compaction
from sorakit.method.optimizer import ProxAdamW
from sorakit.records import Run, load_run
from sorakit.training import xi_scheduler
from sorakit.training.run import run
from tests.support.broken_runs import Killed, assert_same_run, kill_at_step
from tests.support.tiny_hub import tiny_run

STEPS = 8
"""Optimizer steps in a pass over the data of `tiny_run`."""
LONG = {"max_epochs": 16, "patience": 16, "cooldown_epochs": 4}
"""A refit that has time to learn something."""
PENALISED = (
    "penalised_memorization",
    "penalised_generalization",
    "penalised_memorization_loss",
    "penalised_generalization_loss",
)


def refit_run(hub: Path, name: str, refit: str, **sections: Any) -> RunConfig:
    return tiny_run(
        hub,
        out_dir=name,
        levels=(0.05, 0.2),
        sections={"stage": {"refit": refit, "epochs": 1.0}, "refit": LONG, **sections},
    )


@pytest.fixture(scope="module")
def runs(hub: Path) -> dict[str, Run]:
    return {
        refit: load_run(run(refit_run(hub, f"refit-{refit}", refit), show_progress=False).path)
        for refit in ("none", "branch", "continue")
    }


@pytest.mark.parametrize("refit", ["branch", "continue"])
def test_dense_stage_is_the_same_and_has_no_refit(refit, runs):
    dense, plain = runs[refit].stages.iloc[0], runs["none"].stages.iloc[0]
    assert dense["memorization_loss"] == plain["memorization_loss"]
    assert dense[["refit_epochs", *PENALISED]].isna().all()


@pytest.mark.parametrize("refit", ["branch", "continue"])
def test_first_stage_is_penalised_as_without_a_refit(refit, runs):
    stage, plain = runs[refit].stages.iloc[1], runs["none"].stages.iloc[1]
    for column in PENALISED:
        assert stage[column] == plain[column.removeprefix("penalised_")]
    assert stage["kkt_residual"] == plain["kkt_residual"]
    assert stage["num_nonzero_params"] == plain["num_nonzero_params"]


@pytest.mark.parametrize("refit", ["branch", "continue"])
def test_point_of_a_stage_is_the_refitted_one(refit, runs):
    stages = runs[refit].stages.iloc[1:]
    assert (stages["memorization_loss"] != stages["penalised_memorization_loss"]).all()
    assert set(stages["refit_stopped_by"]) <= {"converged", "max_epochs"}
    assert (stages["refit_epochs"] >= 1).all()


@pytest.mark.parametrize("refit", ["branch", "continue"])
def test_stage_one_keeps_the_ranks_that_xi_left(refit, runs):
    def left(result: Run) -> dict[str, list[bool]]:
        ranks = result.ranks[result.ranks["stage"] == 1]
        return {
            module: [strength > 0 for strength in strengths]
            for module, strengths in zip(ranks["module"], ranks["strengths"], strict=True)
        }

    assert left(runs[refit]) == left(runs["none"])


def test_branch_goes_on_from_the_penalised_weights(runs):
    """Strengths shrink from stage to stage there, and grow anew in every refit otherwise."""
    losses = {refit: runs[refit].stages["penalised_memorization_loss"].iloc[2] for refit in runs}
    assert losses["branch"] != losses["continue"]


def test_run_without_a_refit_says_so(runs):
    columns = ["refit_epochs", "refit_stopped_by", *PENALISED]
    assert runs["none"].stages[columns].isna().all(axis=None)


def test_xi_of_a_path_never_falls(hub):
    xi = {"spacing": "target", "levels": None, "num_stages": 4, "first": 1e-2, "ratio": 1.5}
    config = tiny_run(
        hub, out_dir="refit-target", sections={"xi": xi, "stage": {"refit": "continue"}}
    )
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["xi"].is_monotonic_increasing
    assert (stages["applied_xi"] <= stages["xi"]).all()


def first_refit_step(result: Run) -> int:
    dense, first = result.stages["optimizer_steps"].iloc[:2]
    return int(dense + first - first % STEPS - result.stages["refit_epochs"].iloc[1] * STEPS)


@pytest.mark.parametrize("refit", ["branch", "continue"])
@pytest.mark.parametrize(
    "offset", [-2, 3, 11], ids=["before", "in_its_first_pass", "in_its_second"]
)
def test_killed_refit_goes_on_bit_for_bit(refit, offset, hub, runs, monkeypatch):
    config = refit_run(hub, f"killed-{refit}-{offset}", refit)
    with monkeypatch.context() as patch:
        kill_at_step(patch, first_refit_step(runs[refit]) + offset)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    run(config, show_progress=False)
    assert_same_run(Path(str(config.out_dir)), runs[refit].path)


@pytest.mark.slow
def test_refit_gives_back_what_the_penalty_took(tmp_path):
    """On real text: memorization at a third of the dense adapter, penalised and refitted."""
    config = RunConfig(
        task=TaskConfig(name="pydoc_order", train_examples=200, max_length=32),
        xi=XiConfig(spacing="target", num_stages=4, first=5e-3),
        stage=StageConfig(refit="continue", epochs=0.5, kkt_examples=0),
        trainer=TrainerConfig(num_threads=1),
        out_dir=str(tmp_path / "run"),
    )
    stage = load_run(run(config, show_progress=False).path).stages.iloc[3]
    assert stage["memorization"] > stage["penalised_memorization"] + 0.05


@pytest.mark.parametrize("control", ["random_mask", "hard_mask_retrain", "hold_dense"])
def test_controls_are_refitted_by_the_same_rule(control, hub):
    xi = {"spacing": "target", "levels": None, "num_stages": 2, "first": 1e-2, "ratio": 1.5}
    stage = {"refit": "continue", "control": control, "epochs": 0.5}
    config = tiny_run(hub, out_dir=f"refit-{control}", sections={"xi": xi, "stage": stage})
    stages = load_run(run(config, show_progress=False).path).stages.iloc[1:]
    assert (stages["refit_epochs"] >= 1).all()
    assert (stages["memorization_loss"] != stages["penalised_memorization_loss"]).all()


def test_what_trains_nothing_is_not_refitted(hub):
    shrink = {"stage": {"refit": "continue", "control": "shrink_only", "epochs": 0.5}}
    config = tiny_run(hub, out_dir="refit-shrink", levels=(0.05,), sections=shrink)
    stages = load_run(run(config, show_progress=False).path).stages
    assert stages["refit_epochs"].isna().all()


def test_dead_ranks_taken_out_of_a_refit_change_no_record(hub, monkeypatch):
    class Whole(Compaction):
        """Takes nothing out: the steps as they would be."""

        def __init__(self, optimizer: ProxAdamW) -> None:
            assert all(group["holds_zeros"] for group in optimizer.gate_groups)
            self._cuts = []

    def refitted(name: str) -> Run:
        config = tiny_run(
            hub,
            out_dir=name,
            levels=(0.2,),
            sections={
                "stage": {"refit": "continue", "epochs": 1.0},
                "refit": {"max_epochs": 3, "patience": 3, "cooldown_epochs": 1},
            },
        )
        return load_run(run(config, show_progress=False).path)

    cut = refitted("refit-cut")
    monkeypatch.setattr(xi_scheduler, "Compaction", Whole)
    whole = refitted("refit-whole")
    params = cut.stages["num_nonzero_params"]
    assert 0 < params[1] < params[0]
    for table in ("stages", "ranks"):
        one, other = (getattr(r, table).select_dtypes("number") for r in (cut, whole))
        pd.testing.assert_frame_equal(one, other, rtol=1e-4, atol=1e-6)


def test_frozen_head_has_nothing_to_refit_when_no_gate_is_left(hub):
    sections = {"stage": {"refit": "continue"}, "method": {"train_head": False}}
    config = tiny_run(hub, out_dir="refit-frozen", levels=(4.0,), sections=sections)
    last = load_run(run(config, show_progress=False).path).stages.iloc[-1]
    assert last["num_nonzero_params"] == 0
    assert last["refit_epochs"] is None


def test_terminal_says_which_phases_did_not_converge(hub, capfd):
    cut_short = {"max_epochs": 1, "patience": 5}
    sections = {"stage": {"refit": "continue"}, "refit": cut_short}
    config = tiny_run(hub, out_dir="refit-not-converged", levels=(0.05, 0.2), sections=sections)
    run(config, show_progress=True)
    shown = capfd.readouterr().err
    assert shown.count("The dense stage ended by dense.max_epochs and had not converged.") == 1
    assert shown.count("The refit ended by refit.max_epochs and had not converged.") == 2
