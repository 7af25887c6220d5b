"""The controls of a path: how a sweep names them, and that analysis takes them for its own."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from sorakit.config import DenseConfig, GatesConfig, RunConfig, StageConfig, XiConfig
from sorakit.records import config_to_dict, role_of
from sorakit.records.matching import id_column, matching_ids
from sorakit.sweep.controls import (
    ControlRule,
    control_of,
    control_rules,
    parse_controls,
    with_steps_of,
)

PATH = RunConfig(
    xi=XiConfig(spacing="target", first=5e-3, num_stages=12),
    gates=GatesConfig(gate_lr=0.5),
    dense=DenseConfig(max_epochs=7),
    stage=StageConfig(epochs=0.25),
    seed=3,
)
LEVELS = {"xi": {"spacing": "list", "levels": [1e-3], "num_stages": 1}}
ENTRIES: list[Any] = [
    "floor",
    "hold_dense",
    "shrink_only",
    "hard_mask_no_retrain",
    "hard_mask_retrain",
    "random_mask",
    {"from_scratch": LEVELS},
]


def stages(*epochs: float) -> pd.DataFrame:
    """Return the lengths of a path's stages, the dense one first."""
    return pd.DataFrame({"epochs": [7.0, *epochs], "refit_epochs": None})


def one(entry: Any) -> ControlRule:
    [rule] = control_rules([entry])
    return rule


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_control_shares_with_its_path_what_analysis_matches_by(entry):
    rule = one(entry)
    control = control_of(PATH, rule)
    if rule.waits_for_path:
        control = with_steps_of(control, stages(0.3, 0.5))
    role = role_of(control.method.name, control.stage.control)
    assert role == rule.name
    path_ids, ids = (matching_ids(config_to_dict(c), method_version=3) for c in (PATH, control))
    assert ids[id_column(role)] == path_ids[id_column(role)]
    assert control.seed == PATH.seed


def test_ranks_of_lora_are_runs_of_one_scaling():
    rules = control_rules([{"lora": [1, 2, 8]}])
    runs = [control_of(PATH, rule).method for rule in rules]
    assert [(run.name, run.r) for run in runs] == [("lora", 1), ("lora", 2), ("lora", 8)]
    assert {run.lora_alpha / run.r for run in runs} == {PATH.method.lora_alpha / PATH.method.r}
    assert not any(rule.waits_for_path for rule in rules)


def test_floor_is_the_path_without_its_adapter():
    floor = control_of(PATH, one("floor"))
    assert floor == replace(PATH, method=replace(PATH.method, name="head_only"))


@pytest.mark.parametrize("name", ["random_mask", "hold_dense", "shrink_only"])
def test_stages_are_as_long_as_those_of_the_path_on_average(name):
    rule = one(name)
    assert rule.waits_for_path
    control = with_steps_of(control_of(PATH, rule), stages(0.25, 0.5, 0.4321))
    assert control.stage.epochs == 0.394


def test_refit_is_not_among_the_steps_that_are_matched():
    refitted = pd.DataFrame({"epochs": [7.0, 4.25, 9.75], "refit_epochs": [None, 4.0, 9.0]})
    control = with_steps_of(control_of(PATH, one("random_mask")), refitted)
    assert control.stage.epochs == 0.5


def test_hold_dense_has_as_many_stages_as_the_path_had():
    # A path ends when no gate is left; nothing would end hold_dense.
    control = with_steps_of(control_of(PATH, one("hold_dense")), stages(0.25, 0.5))
    assert control.xi.num_stages == 2
    levels = replace(PATH, xi=XiConfig(spacing="list", levels=[1e-3, 2e-3, 3e-3], num_stages=3))
    control = with_steps_of(control_of(levels, one("hold_dense")), stages(1.0, 1.0))
    assert (control.xi.levels, control.xi.num_stages) == ([1e-3, 2e-3], 2)


def test_targets_of_a_mask_stay_those_of_the_path():
    control = with_steps_of(control_of(PATH, one("random_mask")), stages(0.25, 0.5))
    assert control.xi == PATH.xi


def test_steps_of_a_path_that_ended_by_stationarity_are_matched_too():
    path = replace(
        PATH,
        xi=XiConfig(spacing="list", levels=[1e-3, 2e-3], num_stages=2),
        stage=StageConfig(until="stationary", epochs=0.5, max_epochs=2.0),
    )
    control = with_steps_of(control_of(path, one("hold_dense")), stages(1.5, 2.5))
    assert (control.stage.until, control.stage.epochs) == ("length", 2.0)


def test_own_length_of_stages_is_kept():
    rule = one({"random_mask": {"stage.epochs": 0.7}})
    assert not rule.waits_for_path
    assert control_of(PATH, rule).stage.epochs == 0.7


@pytest.mark.parametrize("name", ["random_gradient", "shuffled_labels", "floor"])
def test_what_trains_by_the_rules_of_the_path_waits_for_nothing(name):
    assert not one(name).waits_for_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("floor", ["floor"]),
        ("floor,random_mask", ["floor", "random_mask"]),
        ("floor,lora: [1, 4]", ["floor", "lora", "lora"]),
        ("[floor, hold_dense]", ["floor", "hold_dense"]),
        ("floor, random_gradient: {stage.kkt_examples: 256}", ["floor", "random_gradient"]),
    ],
)
def test_command_line_names_controls(text, names):
    assert [rule.name for rule in parse_controls(text)] == names


WRONG: dict[str, tuple[Any, str]] = {
    "no_list": (
        "floor",
        r"^`controls` must be a list such as \[floor, hold_dense, .*, got 'floor'.$",
    ),
    "unknown": (
        ["random"],
        r"^`controls` must name floor, .*lora.* or a value of .*, got 'random'. ",
    ),
    "path_itself": (
        ["none"],
        r"^`controls` must name floor, .*lora.* or a value of .*, got 'none'. ",
    ),
    "twice": (["floor", "floor"], "^`controls` must name a control once, got floor twice.$"),
    "no_rank": (["lora"], r"^`controls.lora` must be ranks such as \[1, 2, 4\], got None.$"),
    "rank_0": ([{"lora": [4, 0]}], r"^`controls.lora` must be ranks such as .*, got \[4, 0\].$"),
    "options_of_floor": ([{"floor": {"seed": 1}}], "^`controls.floor` must have no options, got "),
    "no_options": ([{"random_mask": 3}], "^`controls.random_mask` must hold options and values"),
    "dense_stage": (
        [{"random_mask": {"gates": {"gate_lr": 2}}}],
        "^`controls.random_mask` may change what follows the dense stage, .*, got 'gates.gate_lr'.",
    ),
    "dense_learning_rate": (
        [{"random_mask": {"xi.start": 1e-3}}],
        "^`controls.random_mask` may change what follows .* got 'xi.start'.",
    ),
    "wrong_type": (
        [{"random_mask": {"stage.epochs": "long"}}],
        "^`stage.epochs` must be a number, got 'long'.$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_controls_are_refused_in_one_sentence(case):
    entries, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        control_rules(entries)


def test_control_that_the_path_cannot_have_is_refused():
    with pytest.raises(ValueError, match=r"^Control from_scratch: `xi.spacing` must not be target"):
        control_of(PATH, one("from_scratch"))
