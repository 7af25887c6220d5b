"""Levels by target, budgets and stationary stages: whole runs on a tiny model, CPU, one thread."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from sorakit.config import RunConfig
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.tuner import AdaptedMatrix
from sorakit.records import load_run
from sorakit.training.parameter_targets import has_reached
from sorakit.training.run import run
from tests.support.broken_runs import Killed, assert_same_run, kill_at_step
from tests.support.tiny_hub import tiny_run

SMALLEST, DENSE = 32, 1792  # parameters of one rank of a 16 x 16 matrix, and of the whole adapter


def target_run(hub: Path, name: str, *, num_stages: int = 6, **sections: Any) -> RunConfig:
    xi = {"spacing": "target", "levels": None, "num_stages": num_stages, "first": 1e-2}
    options = {"xi": {**xi, "ratio": 1.5, **sections.pop("xi", {})}, **sections}
    return tiny_run(hub, out_dir=name, sections=options)


def stages_of(config: RunConfig) -> pd.DataFrame:
    return load_run(run(config, show_progress=False).path).stages


def distinct(stages: pd.DataFrame) -> list[int]:
    return sorted(set(stages["num_nonzero_params"]), reverse=True)


@pytest.mark.parametrize("num_stages", [3, 6, 10])
@pytest.mark.parametrize(
    "gates",
    [
        {"scale": "free"},
        {"scale": "unit", "gate_lr": 0.3},
        {"averaging": 0.0},
        {"update": "adamw", "gate_lr": 0.01},
        {"update": "adamw_metric", "gate_lr": 0.01},
        {"update": "released", "gate_lr": 0.01, "scale": "free"},
    ],
    ids=lambda g: "-".join(map(str, g.values())) or "sgd",
)
def test_counts_are_spread_evenly_from_dense_to_one_rank(gates, num_stages, hub):
    name = f"spread-{num_stages}-{'-'.join(map(str, gates.values()))}"
    config = target_run(
        hub,
        name,
        num_stages=num_stages,
        gates=gates,
        # the metric of adamw_metric divides xi by about a thousandth
        xi={"start": 1e-7, "first": 1e-6} if gates.get("update") == "adamw_metric" else {},
        method={"gate_init": "auto" if gates.get("scale") == "unit" else "normal"},
        stage={"epochs": 0.5, "kkt_examples": 0},
    )
    counts = distinct(stages_of(config))
    assert abs(len(counts) - 1 - num_stages) <= 1
    step = (DENSE / SMALLEST) ** (1 / num_stages)
    # a single rank of the larger kind can be more than two steps where few are left
    assert all(a / b <= step**2 or a - b <= 48 for a, b in pairwise(counts))
    assert counts[0] >= 0.9 * DENSE
    assert counts[-1] in (SMALLEST, 48)  # a rank of a square matrix, or of one of the other two


def test_gates_that_are_all_alike_do_not_die_together(hub):
    # free gates at 1 with small steps: with levels of xi they would all die in one stage
    config = target_run(hub, "cliff", method={"gate_init": "ones"}, gates={"gate_lr": 0.05})
    assert len(distinct(stages_of(config))) >= 6


def test_target_that_only_large_ranks_can_meet_is_met():
    # the strongest ranks that add up to 1,747: 384 and twice 960; without the small one 1,920 stay
    def matrix(name: str, d_in: int, d_out: int, gate: list[float]) -> AdaptedMatrix:
        return AdaptedMatrix(
            name=name,
            lora_A=torch.nn.Parameter(torch.ones(len(gate), d_in)),
            lora_B=torch.nn.Parameter(torch.ones(d_out, len(gate))),
            gate=torch.nn.Parameter(torch.tensor(gate)),
            scaling=1.0,
        )

    matrices = [matrix("small", 192, 192, [3.0, 0.0]), matrix("large", 192, 768, [2.0, 1.0, 0.0])]
    group = {"params": [m.gate for m in matrices], "xi": 0.1}
    optimizer = ProxAdamW([group], matrices=matrices, lr=0.1)
    assert has_reached(optimizer, 1747)
    assert not has_reached(optimizer, 1344)


@pytest.mark.parametrize("budget", [1024, 640, 320])
def test_budget_is_met_within_5_percent(budget, hub):
    config = target_run(hub, f"budget-{budget}", num_stages=3, xi={"budget": budget})
    last = stages_of(config)["num_nonzero_params"].iloc[-1]
    assert abs(last - budget) <= 0.05 * budget


@pytest.mark.parametrize("budget", [SMALLEST - 1, DENSE])
def test_budget_out_of_reach_is_refused(budget, hub):
    config = target_run(hub, f"no-budget-{budget}", xi={"budget": budget})
    message = (
        f"`xi.budget` must be at least one rank ({SMALLEST}) and less than the dense adapter "
        f"({DENSE}), got {budget}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run(config, show_progress=False)
    assert not Path(config.out_dir or "").exists()


def test_dense_stage_without_a_gate_has_no_target(hub):
    config = target_run(
        hub,
        "dense-zero",
        method={"gate_init": "auto"},
        gates={"scale": "unit", "gate_lr": 1e-9},
    )
    message = (
        "`xi.start` must leave a gate after the dense stage when `xi.spacing` is target, got "
        "0.0001. Lower it."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        run(config, show_progress=False)


def test_stage_is_at_least_its_length(hub):
    stages = stages_of(target_run(hub, "length", stage={"epochs": 1.5}))
    assert (stages["epochs"] >= 1.5).all()
    assert stages["stopped_by"].tolist() == ["max_epochs", *["target"] * (len(stages) - 1)]


def test_stage_ends_where_it_must_although_its_target_is_far(hub):
    config = target_run(hub, "far", xi={"ratio": 1.0001}, stage={"epochs": 0.5, "max_epochs": 1.0})
    stages = stages_of(config)
    assert stages["stopped_by"].tolist() == ["max_epochs"] * 7
    assert stages["epochs"].tolist() == [2.0, *[1.0] * 6]


@pytest.mark.parametrize("step", [3, 20, 40])
def test_resumed_run_by_target_equals_the_unbroken_one(step, hub, monkeypatch):
    gates = {"averaging": 0.9}
    twin = target_run(hub, f"unbroken-{step}", gates=gates)
    config = target_run(hub, f"broken-{step}", gates=gates)
    run(twin, show_progress=False)
    with monkeypatch.context() as patch:
        kill_at_step(patch, step)
        with pytest.raises(Killed):
            run(config, show_progress=False)
    run(config, show_progress=False)
    assert_same_run(hub / f"broken-{step}", hub / f"unbroken-{step}")


# Stationary stages ---------------------------------------------------------------------------


def stationary_run(hub: Path, name: str, **stage: Any) -> RunConfig:
    sections = {
        "method": {"gate_init": "auto"},
        "gates": {"scale": "unit", "gate_lr": 0.3},
        "stage": {"until": "stationary", "epochs": 1.0, **stage},
    }
    return tiny_run(hub, out_dir=name, levels=(0.02, 0.05), sections=sections)


def test_stationary_stage_ends_at_its_tolerance(hub):
    stages = stages_of(stationary_run(hub, "loose", tolerance=3.0, max_epochs=40.0))
    ended = stages[stages["stopped_by"] == "stationary"]
    assert len(ended) >= 1
    assert (ended["stationarity_residual"] <= 3.0).all()


def test_stage_that_does_not_settle_ends_at_its_cap(hub):
    stages = stages_of(stationary_run(hub, "tight", tolerance=1e-6, max_epochs=3.0))
    assert stages["stopped_by"].tolist()[1:] == ["max_epochs", "max_epochs"]
    assert stages["epochs"].tolist()[1:] == [3.0, 3.0]
