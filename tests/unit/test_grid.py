"""Sweep files: products, lists taken together, points, overlays, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sorakit.cli import parse_run_config
from sorakit.records import run_id
from sorakit.sweep.grid import Sweep, load_sweep


def load(folder: Path, *contents: str | dict[str, Any]) -> Sweep:
    files = []
    for number, content in enumerate(contents):
        file = folder / f"sweep_{number}.yaml"
        file.write_text(
            content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        )
        files.append(file)
    return load_sweep(files)


def test_sweep_without_lists_is_one_run(tmp_path):
    [point] = load(tmp_path, {"task": {"name": "rte"}, "seed": 3}).points
    assert point.config == parse_run_config(["--task.name=rte", "--seed=3"])
    assert point.label == ""


def test_grid_is_a_product_whose_last_option_changes_fastest(tmp_path):
    points = load(tmp_path, {"grid": {"task.name": ["cola", "rte"], "seed": [0, 1, 2]}}).points
    chosen = [(point.config.task.name, point.config.seed) for point in points]
    assert chosen == [(task, seed) for task in ("cola", "rte") for seed in (0, 1, 2)]
    assert points[1].label == "task.name=cola seed=1"


def test_zipped_lists_are_one_factor_of_the_product(tmp_path):
    zipped = {"task.name": ["cola", "rte"], "xi": {"first": [0.01, 0.02]}}
    points = load(tmp_path, {"zip": zipped, "grid": {"seed": [0, 1]}}).points
    chosen = [(p.config.seed, p.config.task.name, p.config.xi.first) for p in points]
    assert chosen == [(s, *row) for s in (0, 1) for row in (("cola", 0.01), ("rte", 0.02))]


def test_points_are_one_factor_of_the_product(tmp_path):
    sweep = load(tmp_path, "grid: {seed: [0, 1]}\npoints: [{}, {method: {name: head_only}}]\n")
    chosen = [(p.config.seed, p.config.method.name) for p in sweep.points]
    assert chosen == [(0, "sora"), (0, "head_only"), (1, "sora"), (1, "head_only")]


def test_section_may_be_chosen_as_a_whole(tmp_path):
    sections = [{"update": "adamw", "gate_lr": 0.01}, {"update": "sgd"}]
    points = load(tmp_path, {"grid": {"gates": sections}}).points
    assert [(p.config.gates.update, p.config.gates.gate_lr) for p in points] == [
        ("adamw", 0.01),
        ("sgd", 1.0),
    ]


def test_equal_points_are_one_run(tmp_path):
    # 8 is the default, and 16 and 16.0 are one experiment
    points = [{"method.r": 8}, {}, {"method.lora_alpha": 16}, {"method.lora_alpha": 16.0}]
    sweep = load(tmp_path, {"points": points})
    assert (len(sweep.points), sweep.num_duplicates) == (1, 3)


VALUES: dict[str, list[Any]] = {
    "xi.first": ["5e-3", 0.004, "1.5e-3"],
    "method.lora_alpha": [8, "32", 2.5],
    "method.target_modules": ["all-linear", ["query", "value"], "query"],
    "gates.averaging": [None, 0, "0.5"],
    "method.train_head": [True, "false"],
    "task.data_dir": ["null", "a b", "12"],
    "backbone.name": ["embedded", "./models/7", "FacebookAI/roberta-large"],
    "task.max_length": ["64", 32],
}


@pytest.mark.parametrize("option", VALUES)
def test_values_become_what_run_makes_of_them(option, tmp_path):
    section, _, name = option.partition(".")
    expected = []
    for number, value in enumerate(VALUES[option]):
        file = tmp_path / f"run_{number}.yaml"
        file.write_text(yaml.safe_dump({section: {name: value}}))
        expected.append(parse_run_config([f"--config={file}"]))
    points = load(tmp_path, {"points": [{option: value} for value in VALUES[option]]}).points
    assert [point.config for point in points] == expected
    assert [point.run_id for point in points] == [run_id(config) for config in expected]


def test_many_values_of_an_option_are_all_converted(tmp_path):
    points = load(tmp_path, {"grid": {"seed": list(range(100))}}).points
    assert [point.config.seed for point in points] == list(range(100))


def test_base_files_come_before_the_options_of_the_sweep(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "run.yaml").write_text("seed: 4\nmethod:\n  r: 2\n  lora_alpha: 4\n")
    sweep = load(tmp_path, {"config": "base/run.yaml", "method.r": 3})
    [point] = sweep.points
    config = point.config
    assert (config.seed, config.method.r, config.method.lora_alpha) == (4, 3, 4.0)


def test_overlay_replaces_options_and_lists_by_name(tmp_path):
    first = {
        "optim.lr": 1e-3,
        "grid": {"task.name": ["pydoc_topic"], "seed": [0, 1]},
        "zip": {"xi.ratio": [1.1, 1.2]},
    }
    second = {"optim.lr": 1e-4, "grid": {"task.name": ["rte"]}, "zip": {}, "records": "kept"}
    sweep = load(tmp_path, first, second)
    chosen = [(p.config.task.name, p.config.seed, p.config.optim.lr) for p in sweep.points]
    assert chosen == [("rte", 0, 1e-4), ("rte", 1, 1e-4)]
    assert sweep.records == [tmp_path / "kept"]


WRONG = {
    "unknown_option": ("grid: {method.rank: [1]}", "`method.rank` must be an option"),
    "unknown_section": ("tasks: {name: rte}", "`tasks.name` must be an option"),
    "section_without_options": ("task: null", "`task` must be an option"),
    "wrong_type": ("grid: {method.r: [8, many]}", "`method.r` must be a whole number, got 'many'."),
    "wrong_choice": ("gates.update: adam", "`gates.update` must be one of .*, sgd, got 'adam'"),
    "wrong_value": (
        "grid: {method.r: [8, 0]}",
        r"Point 2 of the sweep \(method.r=0\): `method.r` must be >= 1, got 0.",
    ),
    "values_that_do_not_go_together": (
        "xi.spacing: geometric\ngrid: {stage.control: [none, random_mask]}",
        r"Point 2 of the sweep \(stage.control=random_mask\): `xi.spacing` must be target",
    ),
    "no_list": ("grid: {seed: 3}", "`grid.seed` must be a list that is not empty, got 3."),
    "empty_list": ("grid: {seed: []}", "`grid.seed` must be a list that is not empty"),
    "unequal_lists": (
        "zip: {seed: [0, 1], method.r: [1]}",
        "`zip` must hold lists of equal length, got {'seed': 2, 'method.r': 1}.",
    ),
    "option_twice": (
        "grid: {seed: [0]}\npoints: [{seed: 1}]",
        "`seed` must be in one of `grid`, `zip` and `points`, got it in two.",
    ),
    "key_twice": ("seed: 1\nseed: 2", "key 'seed' stands twice"),
    "run_folder": ("out_dir: here", "`out_dir` must be null in a sweep, got 'here'"),
    "corrupted": ("grid: {seed: [0, 1", "must be YAML, got .*sweep_0.yaml.* line 1"),
    "binary": ("\x00\x01", "must be YAML, got .*sweep_0.yaml"),
    "empty": ("", "must be YAML with keys and values, got .*sweep_0.yaml', which holds nothing."),
    "list": ("[1, 2]", "which holds list"),
    "missing_base": ("config: none.yaml", "must be a file that can be read, got .*none.yaml"),
    "point_without_options": ("points: [3]", "`points` must hold options and values, got 3."),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_sweep_is_refused_in_one_sentence(case, tmp_path):
    content, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as refusal:
        load(tmp_path, content)
    assert "\n" not in str(refusal.value)
