"""Every control on a tiny model: what it changes, and that it leaves the same records."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from sorakit import variants
from sorakit.config import RunConfig
from sorakit.controls import control_class
from sorakit.controls.ablation_mask import AblationMask
from sorakit.controls.random_gradient import RandomGradient
from sorakit.method.optimizer import ProxAdamW
from sorakit.records import Run, load_run
from sorakit.training.run import run
from sorakit.training.sample_loss import SAMPLE_EXAMPLES
from tests.support.broken_runs import Killed, assert_same_run, files_of, kill_at_step
from tests.support.tiny_hub import tiny_run, write_model, write_task

CONTROLS = variants.CONTROLS.names
NULL_MODELS = [name for name in CONTROLS if control_class(name).is_null_model]
MASK_CONTROLS = [name for name in CONTROLS if control_class(name).sets_count]
AFTER_DENSE = tuple(name for name in CONTROLS if name not in NULL_MODELS)
NUM_STAGES = 4


def control_run(root: Path, control: str, name: str | None = None, **stage: Any) -> RunConfig:
    xi = {"spacing": "target", "levels": None, "num_stages": NUM_STAGES, "first": 1e-2}
    if control == "from_scratch":
        xi |= {"spacing": "geometric"}
    sections = {"xi": {**xi, "ratio": 1.5}, "stage": {"control": control, "epochs": 1.0, **stage}}
    return tiny_run(root, out_dir=name or control, sections=sections)


@pytest.fixture(scope="module")
def runs(hub: Path) -> dict[str, Run]:
    return {c: load_run(run(control_run(hub, c), show_progress=False).path) for c in CONTROLS}


def test_every_control_leaves_the_same_records(runs):
    def records(result: Run) -> set[str]:
        return {file for file in files_of(result.path) if not file.startswith("checkpoints/")}

    for control, result in runs.items():
        assert records(result) == records(runs["none"]), control
        assert list(result.stages) == list(runs["none"].stages)


@pytest.mark.parametrize("control", AFTER_DENSE)
def test_control_shares_the_dense_stage(control, runs):
    pd.testing.assert_series_equal(
        runs[control].stages.iloc[0], runs["none"].stages.iloc[0], check_names=False
    )


@pytest.mark.parametrize("control", NULL_MODELS)
def test_null_model_differs_from_the_first_stage_on(control, runs):
    assert runs[control].stages["train_loss"].iloc[0] != runs["none"].stages["train_loss"].iloc[0]


@pytest.mark.parametrize("control", MASK_CONTROLS)
def test_mask_meets_its_targets_to_a_rank(control, runs):
    counts = runs[control].stages["num_nonzero_params"].tolist()
    dense = counts[0]
    for stage, count in enumerate(counts[1:], start=1):
        target = round(dense * (32 / dense) ** (stage / NUM_STAGES))
        assert target <= count < target + 64


@pytest.mark.parametrize("control", ["hard_mask_retrain", "random_mask"])
def test_cut_ranks_stay_cut(control, runs):
    ranks = runs[control].ranks
    alive = [
        np.array([s > 0 for row in ranks[ranks["stage"] == k]["strengths"] for s in row])
        for k in range(NUM_STAGES + 1)
    ]
    for before, after in pairwise(alive):
        assert not (after & ~before).any()


def test_hard_mask_keeps_the_strongest_ranks(runs):
    ranks = runs["hard_mask_no_retrain"].ranks
    dense = np.array([s for row in ranks[ranks["stage"] == 0]["strengths"] for s in row])
    last = np.array([s for row in ranks[ranks["stage"] == 2]["strengths"] for s in row])
    assert dense[last > 0].min() > dense[last == 0].max()


def test_random_mask_is_not_the_hard_mask(runs):
    left = [
        tuple(s > 0 for row in ranks[ranks["stage"] == 2]["strengths"] for s in row)
        for ranks in (runs["random_mask"].ranks, runs["hard_mask_retrain"].ranks)
    ]
    assert left[0] != left[1]


def factors(result: Run, stage: int) -> dict[str, torch.Tensor]:
    """Return the folded update B A of every kept matrix, and the head."""
    folder = result.path / "adapters" / f"stage_{stage:02d}" / "adapter_model.safetensors"
    state = load_file(folder)
    updates = {
        name: state[name.replace("lora_A", "lora_B")] @ state[name]
        for name in state
        if ".lora_A." in name
    }
    return updates | {name: value for name, value in state.items() if ".lora_" not in name}


@pytest.mark.parametrize("control", ["shrink_only", "hard_mask_no_retrain"])
def test_nothing_but_gates_changes_without_training(control, runs):
    dense, last = factors(runs[control], 0), factors(runs[control], NUM_STAGES)
    heads = [name for name in dense if "classifier" in name]
    assert heads
    assert all(torch.equal(dense[name], last[name]) for name in heads)


def test_training_changes_the_head(runs):
    dense, last = factors(runs["hard_mask_retrain"], 0), factors(runs["hard_mask_retrain"], 1)
    assert any(not torch.equal(dense[n], last[n]) for n in dense if "classifier" in n)


def test_shrink_only_takes_the_same_xi_off_every_gate(runs):
    ranks = runs["shrink_only"].ranks
    one, other = (
        np.array([s for row in ranks[ranks["stage"] == k]["strengths"] for s in row])
        for k in (0, 1)
    )
    # a strength is |g| |A| |B| and A, B are frozen: survivors keep the order of |g|, none grows
    assert (other <= one).all()
    assert ((other < one) | (one == 0)).all()


def test_hold_dense_keeps_xi(runs):
    assert (runs["hold_dense"].stages["xi"] == 1e-4).all()


def test_from_scratch_trains_every_level_like_a_dense_stage(runs):
    stages = runs["from_scratch"].stages
    assert (stages["optimizer_steps"] == 16).all()  # dense.max_epochs 2
    assert set(stages["stopped_by"]) <= {"converged", "max_epochs"}


def test_from_scratch_begins_every_level_at_the_untrained_model(tmp_path):
    # without dropout, with one batch and hardly another xi, every level is the dense stage again
    write_model(tmp_path / "model", dropout=0.0)
    write_task(tmp_path / "task")
    one = tiny_run(
        tmp_path,
        out_dir="a",
        levels=(1.0001e-4, 1.0002e-4),
        sections={
            "stage": {"control": "from_scratch", "kkt_examples": 0},
            "optim": {"batch_size": 64},  # every batch is the whole training set
            "dense": {"max_epochs": 3, "patience": 100},
        },
    )
    stages = load_run(run(one, show_progress=False).path).stages
    losses = stages["memorization_loss"]
    assert losses.tolist() == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_noise_has_the_size_of_the_gradient_and_not_its_direction():
    gate = torch.nn.Parameter(torch.ones(2000))
    gate.grad = torch.linspace(1, 3, 2000)
    expected = gate.grad.square().mean().sqrt()
    optimizer = ProxAdamW([{"params": [gate], "xi": 0.1}], lr=0.1)
    RandomGradient(seed=1).before_step(optimizer, step=3)
    assert gate.grad.square().mean().sqrt() == pytest.approx(float(expected), rel=0.05)
    assert abs(float(gate.grad.mean())) < 0.2


@pytest.mark.parametrize("control", ["from_scratch", "hard_mask_no_retrain", "random_gradient"])
def test_resumed_control_equals_the_unbroken_one(control, runs, monkeypatch):
    root = runs[control].path.parent
    config = control_run(root, control, name=f"broken-{control}")
    with monkeypatch.context() as patch:
        kill_at_step(patch, 17 if control == "hard_mask_no_retrain" else 26)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    run(config, show_progress=False)
    assert_same_run(root / f"broken-{control}", runs[control].path)


def test_loss_that_a_control_sees_is_that_of_the_recorded_examples(hub, monkeypatch):
    seen = []
    importance = AblationMask.importance

    def watched(self: AblationMask, optimizer: ProxAdamW) -> torch.Tensor:
        seen.append(self.training_loss())
        return importance(self, optimizer)

    monkeypatch.setattr(AblationMask, "importance", watched)
    config = control_run(hub, "ablation_mask", "watched")
    examples = load_run(run(config, show_progress=False).path).examples()
    dense = examples[(examples["stage"] == 0) & (examples["split"] == "memorization")]
    assert 0 < len(dense) <= SAMPLE_EXAMPLES
    assert seen[0] == pytest.approx(dense["loss"].mean(), rel=1e-5)
