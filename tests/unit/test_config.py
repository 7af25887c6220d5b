import dataclasses
import math
import re
from typing import Any

import pytest

from sorakit.config import (
    BackboneConfig,
    DenseConfig,
    GatesConfig,
    MethodConfig,
    OptimConfig,
    RefitConfig,
    RunConfig,
    StageConfig,
    TaskConfig,
    TrainerConfig,
    XiConfig,
)
from sorakit.tasks import load_task

NAN = math.nan
SECTIONS = {
    "task": TaskConfig,
    "method": MethodConfig,
    "gates": GatesConfig,
    "xi": XiConfig,
    "dense": DenseConfig,
    "refit": RefitConfig,
    "stage": StageConfig,
    "optim": OptimConfig,
    "trainer": TrainerConfig,
}
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("task", {"max_length": 7}, "`task.max_length` must be >= 8, got 7."),
    ("task", {"memorization_examples": 0}, "`task.memorization_examples` must be >= 1, got 0."),
    ("task", {"label_noise": -0.1}, "`task.label_noise` must be in [0, 1], got -0.1."),
    ("task", {"label_noise": 1.1}, "`task.label_noise` must be in [0, 1], got 1.1."),
    ("task", {"label_noise": NAN}, "`task.label_noise` must be in [0, 1], got nan."),
    ("method", {"r": 0}, "`method.r` must be >= 1, got 0."),
    ("method", {"lora_alpha": 0.0}, "`method.lora_alpha` must be > 0, got 0.0."),
    ("method", {"lora_alpha": math.inf}, "`method.lora_alpha` must be > 0, got inf."),
    ("method", {"lora_dropout": 1.0}, "`method.lora_dropout` must be in [0, 1), got 1.0."),
    ("method", {"target_modules": []}, "`method.target_modules` must be not empty, got []."),
    ("method", {"target_modules": ""}, "`method.target_modules` must be not empty, got ''."),
    ("gates", {"gate_lr": 0.0}, "`gates.gate_lr` must be > 0, got 0.0."),
    ("gates", {"gate_lr": NAN}, "`gates.gate_lr` must be > 0, got nan."),
    ("xi", {"start": 0.0}, "`xi.start` must be > 0, got 0.0."),
    ("xi", {"start": -1e-4}, "`xi.start` must be > 0, got -0.0001."),
    ("xi", {"start": NAN}, "`xi.start` must be > 0, got nan."),
    ("xi", {"num_stages": 0}, "`xi.num_stages` must be >= 1, got 0."),
    ("xi", {"first": 1e-4}, "`xi.first` must be > xi.start = 0.0001, got 0.0001."),
    ("xi", {"first": NAN}, "`xi.first` must be > xi.start = 0.0001, got nan."),
    ("xi", {"first": math.inf}, "`xi.first` must be finite, got inf."),
    ("xi", {"ratio": 1.0}, "`xi.ratio` must be > 1, got 1.0."),
    ("xi", {"ratio": NAN}, "`xi.ratio` must be > 1, got nan."),
    ("xi", {"ratio": math.inf}, "`xi.ratio` must be finite, got inf."),
    ("xi", {"spacing": "geometric", "end": 2e-3}, "`xi.end` must be > 0.002, got 0.002."),
    ("xi", {"spacing": "geometric", "end": NAN}, "`xi.end` must be > 0.002, got nan."),
    ("xi", {"spacing": "geometric", "end": math.inf}, "`xi.end` must be finite, got inf."),
    (
        "xi",
        {"spacing": "geometric", "end": 1e-4, "num_stages": 1},
        "`xi.end` must be > 0.0001, got 0.0001.",
    ),
    (
        "xi",
        {"spacing": "linear"},
        "`xi.end` must be set when `xi.spacing` is linear, got null.",
    ),
    (
        "xi",
        {"spacing": "linear", "end": 1e-5},
        "`xi.end` must be > xi.start = 0.0001, got 1e-05.",
    ),
    ("xi", {"spacing": "linear", "end": math.inf}, "`xi.end` must be finite, got inf."),
    (
        "xi",
        {"levels": [0.1]},
        "`xi.levels` must be null unless `xi.spacing` is list, got [0.1]. "
        "Set `xi.spacing` to list.",
    ),
    *(
        (
            "xi",
            {"spacing": "list", "levels": levels},
            f"`xi.levels` must hold at least one xi when `xi.spacing` is list, got {levels}.",
        )
        for levels in (None, [])
    ),
    *(
        (
            "xi",
            {"spacing": "list", "levels": levels},
            "`xi.levels` must be finite and strictly increasing from xi.start = 0.0001, "
            f"got {levels}.",
        )
        for levels in ([0.2, 0.1], [0.1, 0.1], [1e-4], [0.1, NAN], [0.1, math.inf], [-0.1])
    ),
    ("gates", {"averaging": 1.0}, "`gates.averaging` must be in [0, 1), got 1.0."),
    ("gates", {"averaging": NAN}, "`gates.averaging` must be in [0, 1), got nan."),
    (
        "gates",
        {"averaging": 0.5, "update": "adamw"},
        "`gates.averaging` must be 0 when `gates.update` is adamw, got 0.5. "
        "AdamW averages the gradient itself.",
    ),
    (
        "xi",
        {"spacing": "target", "first": 1e-5},
        "`xi.first` must be > xi.start = 0.0001, got 1e-05.",
    ),
    ("xi", {"spacing": "target", "ratio": 1.0}, "`xi.ratio` must be > 1, got 1.0."),
    (
        "xi",
        {"spacing": "target", "end": 1.0},
        "`xi.end` must be null when `xi.spacing` is target, got 1.0. xi rises until the number of "
        "parameters is reached; set `xi.budget`.",
    ),
    ("xi", {"spacing": "target", "budget": 0}, "`xi.budget` must be >= 1, got 0."),
    (
        "xi",
        {"spacing": "geometric", "budget": 100},
        "`xi.budget` must be null unless `xi.spacing` is target, got 100. "
        "Set `xi.spacing` to target.",
    ),
    ("dense", {"max_epochs": 0}, "`dense.max_epochs` must be >= 1, got 0."),
    ("dense", {"patience": 0}, "`dense.patience` must be >= 1, got 0."),
    ("dense", {"min_improvement": 1.0}, "`dense.min_improvement` must be in [0, 1), got 1.0."),
    ("dense", {"low_loss": NAN}, "`dense.low_loss` must be in [0, 1), got nan."),
    ("dense", {"cooldown_epochs": -1}, "`dense.cooldown_epochs` must be >= 0, got -1."),
    ("refit", {"max_epochs": 0}, "`refit.max_epochs` must be >= 1, got 0."),
    ("refit", {"patience": 0}, "`refit.patience` must be >= 1, got 0."),
    ("refit", {"lr_factor": 0.0}, "`refit.lr_factor` must be > 0, got 0.0."),
    ("stage", {"epochs": 0.0}, "`stage.epochs` must be > 0, got 0.0."),
    ("stage", {"epochs": math.inf}, "`stage.epochs` must be > 0, got inf."),
    ("stage", {"lr_factor": 0.0}, "`stage.lr_factor` must be > 0, got 0.0."),
    ("stage", {"kkt_examples": -2}, "`stage.kkt_examples` must be >= -1, got -2."),
    ("stage", {"tolerance": 0.0}, "`stage.tolerance` must be > 0, got 0.0."),
    ("stage", {"max_epochs": 0.0}, "`stage.max_epochs` must be > 0, got 0.0."),
    (
        "stage",
        {"until": "stationary", "kkt_examples": 0},
        "`stage.kkt_examples` must not be 0 when `stage.until` is stationary, got 0.",
    ),
    ("optim", {"lr": 0.0}, "`optim.lr` must be > 0, got 0.0."),
    ("optim", {"lr": NAN}, "`optim.lr` must be > 0, got nan."),
    ("optim", {"batch_size": 0}, "`optim.batch_size` must be >= 1, got 0."),
    ("optim", {"eval_batch_size": 0}, "`optim.eval_batch_size` must be >= 1, got 0."),
    ("optim", {"weight_decay": -0.1}, "`optim.weight_decay` must be >= 0, got -0.1."),
    ("optim", {"warmup_epochs": -0.5}, "`optim.warmup_epochs` must be >= 0, got -0.5."),
    ("optim", {"max_grad_norm": NAN}, "`optim.max_grad_norm` must be >= 0, got nan."),
    ("trainer", {"num_threads": 0}, "`trainer.num_threads` must be >= 1 or null, got 0."),
]


@pytest.mark.parametrize(
    ("section", "options", "message"), WRONG, ids=[f"{s}-{o}" for s, o, _ in WRONG]
)
def test_wrong_value_is_refused(section, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SECTIONS[section](**options)


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seed_is_a_positive_31_bit_number(seed):
    with pytest.raises(ValueError, match=rf"^`seed` must be in \[0, 2\*\*31\), got {seed}\.$"):
        RunConfig(seed=seed)


def test_released_update_needs_free_scale():
    message = "`gates.scale` must be free when `gates.update` is released, got 'unit'. Set it."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        GatesConfig(update="released", scale="unit")


COMBINATIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"stage": StageConfig(until="stationary")},
        "`gates.scale` must be unit when `stage.until` is stationary, got 'free'. "
        "With free scale the penalised loss has no minimum.",
    ),
    (
        {
            "gates": GatesConfig(scale="unit"),
            "stage": StageConfig(until="stationary"),
            "xi": XiConfig(spacing="target"),
        },
        "`stage.until` must be length when `xi.spacing` is target, got 'stationary'. "
        "A target ends its stages itself.",
    ),
    (
        {"stage": StageConfig(epochs=2.0, max_epochs=1.0), "xi": XiConfig(spacing="target")},
        "`stage.max_epochs` must be >= stage.epochs = 2.0, got 1.0.",
    ),
    (
        {"gates": GatesConfig(scale="unit"), "stage": StageConfig(epochs=20.0, until="stationary")},
        "`stage.max_epochs` must be >= stage.epochs = 20.0, got 10.0.",
    ),
    (
        {"stage": StageConfig(control="from_scratch"), "xi": XiConfig(spacing="target")},
        "`xi.spacing` must not be target when `stage.control` is from_scratch, got 'target'. "
        "Every level is trained at one xi: give levels.",
    ),
    *(
        (
            {"stage": StageConfig(control=control), "xi": XiConfig(spacing="geometric")},
            f"`xi.spacing` must be target when `stage.control` is {control}, got 'geometric'. "
            "A mask sets the number of parameters, not xi.",
        )
        for control in ("hard_mask_no_retrain", "hard_mask_retrain", "random_mask")
    ),
]


@pytest.mark.parametrize(("sections", "message"), COMBINATIONS)
def test_sections_that_do_not_fit_are_refused(sections, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunConfig(**{"gates": GatesConfig(scale="free"), **sections})


@pytest.mark.parametrize(("update", "weight"), [("sgd", 0.9), ("adamw", 0.0), ("released", 0.0)])
def test_only_sgd_averages_by_default(update, weight):
    assert GatesConfig(update=update, scale="free").gradient_averaging == weight


def test_averaging_that_is_set_is_used():
    assert GatesConfig(averaging=0.0).gradient_averaging == 0.0


@pytest.mark.parametrize("section", [RunConfig, *SECTIONS.values()])
def test_section_is_frozen(section):
    config = section()
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, None)


@pytest.mark.parametrize("section", SECTIONS.values())
def test_section_takes_keywords_only(section):
    with pytest.raises(TypeError):
        section(1)


def test_listed_levels_may_be_one():
    assert XiConfig(spacing="list", levels=[0.5]).levels == [0.5]


def test_boundaries_are_allowed():
    TaskConfig(max_length=8, memorization_examples=1, label_noise=1.0)
    MethodConfig(r=1, lora_dropout=0.0)
    OptimConfig(batch_size=1, weight_decay=0.0, warmup_epochs=0.0, max_grad_norm=0.0)
    StageConfig(kkt_examples=-1)
    DenseConfig(max_epochs=1, patience=1, min_improvement=0.0)


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        (TaskConfig, ("data_dir", "train_file", "validation_file")),
        (BackboneConfig, ("name",)),
        (RunConfig, ("out_dir",)),
    ],
)
def test_home_is_written_for_a_tilde_in_every_path(section, keys, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    config = section(**dict.fromkeys(keys, "~/a"))
    assert {getattr(config, key) for key in keys} == {"/home/somebody/a"}


def test_home_of_nobody_is_an_error():
    with pytest.raises(ValueError, match=r"^A path with ~ must begin with the home folder of a "):
        RunConfig(out_dir="~nobody-of-that-name/a")


def test_quoted_value_is_bounded():
    with pytest.raises(ValueError, match=r"^`task\.data_dir` must be null") as caught:
        load_task(TaskConfig(data_dir="x" * 5000), seed=0)
    assert len(str(caught.value)) < 300
