"""Which paths are one curve, and which floors and controls are theirs."""

import re
from pathlib import Path
from typing import Any

import pytest

from analysis.configurations import agrees, differences
from analysis.controls import block_of, configuration_notes, missing_controls
from analysis.load import PATH, RunSet, load_runs, select_paths
from sorakit.config import (
    DenseConfig,
    GatesConfig,
    MethodConfig,
    OptimConfig,
    Refit,
    RunConfig,
    StageConfig,
    TrainerConfig,
    XiConfig,
)
from sorakit.records import config_to_dict
from sorakit.records.matching import experiment_options, matching_ids
from tests.support.fake_runs import write_run


def write_control(root: Path, control: str, **changes: Any) -> Path:
    length: float = changes.pop("epochs", 0.4)
    stage = StageConfig(control=control, epochs=length)  # pyright: ignore[reportArgumentType]
    kind = "hold_dense" if control == "hold_dense" else "path"
    return write_run(root, kind, **{"stage": stage, "xi": XiConfig(spacing="target"), **changes})


def block_roles(runs: RunSet, variant: str = "") -> set[str]:
    names = ("pydoc_topic", "embedded", "default", variant)
    return set(block_of(runs.stages, names)["role"])


def test_control_with_other_levels_and_lengths_belongs_to_the_path(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_control(tmp_path, "hold_dense", xi=XiConfig(num_stages=5))
    write_control(tmp_path, "random_mask")
    write_run(tmp_path, "floor")
    runs = load_runs([tmp_path])
    assert block_roles(runs) == {"path", "floor", "hold_dense", "random_mask"}
    assert missing_controls(runs.stages) == []


def test_another_method_is_neither_a_path_nor_a_control(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_run(tmp_path, num_stages=1, method=MethodConfig(name="lora", r=2))
    runs = load_runs([tmp_path])
    assert sorted(runs.runs["role"]) == ["lora", "path"]
    assert block_roles(runs) == {"path"}
    assert configuration_notes(runs.stages) == []


@pytest.mark.parametrize(
    "change",
    [
        {"gates": GatesConfig(gate_lr=3.0)},
        {"method": MethodConfig(r=4)},
        {"optim": OptimConfig(lr=2e-3)},
        {"dense": DenseConfig(max_epochs=3)},
        {"trainer": TrainerConfig(precision="32-true")},
        {"meta": {"method_version": 1}},
        {"seed": 5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_control_of_another_configuration_is_not_used(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    write_run(tmp_path)
    run = write_control(tmp_path, "random_mask", **change)
    runs = load_runs([tmp_path])
    assert block_roles(runs) == {"path"}
    (note,) = configuration_notes(runs.stages)
    assert note == (
        "1 random_mask run of pydoc_topic (embedded) belongs to no path here (another "
        "configuration, method version or seed), and no curve is compared with it: "
        f"{run.name}."
    )


@pytest.mark.parametrize(
    "change",
    [{"dense": DenseConfig(max_epochs=3)}, {"optim": OptimConfig(batch_size=8)}],
    ids=lambda change: next(iter(change)),
)
def test_floor_of_another_training_is_not_used(tmp_path: Path, change: dict[str, Any]) -> None:
    write_run(tmp_path)
    write_run(tmp_path, "floor", **change)
    assert missing_controls(load_runs([tmp_path]).stages)[0].startswith(
        "pydoc_topic (embedded) has no floor run: "
    )


def test_each_configuration_has_its_own_controls(tmp_path: Path) -> None:
    for gate_lr in (1.0, 3.0):
        write_run(tmp_path, gates=GatesConfig(gate_lr=gate_lr))
    write_run(tmp_path, "floor")
    write_control(tmp_path, "hold_dense", gates=GatesConfig(gate_lr=3.0))
    runs = load_runs([tmp_path])
    assert block_roles(runs, "gates.gate_lr=1") == {"path", "floor"}
    assert block_roles(runs, "gates.gate_lr=3") == {"path", "floor", "hold_dense"}
    lacking = [sentence.split(": ")[0] for sentence in missing_controls(runs.stages)]
    assert lacking == [
        "pydoc_topic (embedded, gates.gate_lr=1) has no hold_dense run",
        "pydoc_topic (embedded, gates.gate_lr=1) has no random_mask run",
        "pydoc_topic (embedded, gates.gate_lr=3) has no random_mask run",
    ]


def test_two_runs_of_one_control_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    ids = sorted(
        write_control(tmp_path, "random_mask", epochs=epochs).name for epochs in (0.3, 0.4)
    )
    message = (
        "`RUNS` must hold one random_mask run for pydoc_topic (embedded), seed 0, got "
        f"{ids[0]}, {ids[1]}. Name only the folders of runs that belong together."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        block_roles(load_runs([tmp_path]))


def test_option_that_an_older_record_lacks_is_at_its_default() -> None:
    config = config_to_dict(RunConfig())
    del config["gates"]["averaging"]
    assert experiment_options(config) == experiment_options(config_to_dict(RunConfig()))


def test_seed_and_threads_are_no_options() -> None:
    configs = (
        RunConfig(seed=seed, trainer=TrainerConfig(num_threads=seed + 1)) for seed in range(2)
    )
    one, other = (experiment_options(config_to_dict(config)) for config in configs)
    assert one == other


def test_differences_name_what_is_not_the_same() -> None:
    assert differences({"a": {"x": 1.0, "y": 2}, "b": {"x": 3.5, "y": 2}}) == {
        "a": "x=1",
        "b": "x=3.5",
    }


@pytest.mark.parametrize(
    ("value", "text", "same"),
    [(1.0, "1", True), (1.0, "1.0", True), (None, "null", True), ("unit", "unit", True),
     (True, "true", True), (3.0, "1", False), ("unit", "free", False)],
)  # fmt: skip
def test_value_is_compared_as_yaml(value: object, text: str, same: bool) -> None:
    assert agrees(value, text) == same


def test_selected_paths_keep_their_controls(tmp_path: Path) -> None:
    kept = write_run(tmp_path, gates=GatesConfig(gate_lr=1.0))
    write_run(tmp_path, gates=GatesConfig(gate_lr=3.0))
    floor = write_run(tmp_path, "floor")
    own = write_control(tmp_path, "random_mask", gates=GatesConfig(gate_lr=1.0))
    write_control(tmp_path, "random_mask", gates=GatesConfig(gate_lr=3.0))
    runs = select_paths(load_runs([tmp_path]), {"gates.gate_lr": "1"})
    assert set(runs.runs["run_id"]) == {kept.name, floor.name, own.name}
    assert set(runs.stages["run_id"]) == set(runs.runs["run_id"])
    assert set(runs.runs["variant"]) == {""}
    assert sorted(reason for _, reason in runs.excluded) == [
        "not selected: control of a path that is not",
        "not selected: gates.gate_lr is 3.0",
    ]


def test_selection_without_effect_is_the_whole(tmp_path: Path) -> None:
    write_run(tmp_path)
    runs = load_runs([tmp_path])
    assert len(select_paths(runs, {"task.name": "pydoc_topic"}).runs) == len(runs.runs)


def test_unknown_option_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    message = r"^`--only` must name an option of a run, got 'gates\.lr'\.$"
    with pytest.raises(ValueError, match=message):
        select_paths(load_runs([tmp_path]), {"gates.lr": "1"})


def test_paths_are_marked_with_their_variant(tmp_path: Path) -> None:
    for gate_lr in (1.0, 3.0):
        write_run(tmp_path, gates=GatesConfig(gate_lr=gate_lr))
    runs = load_runs([tmp_path])
    paths = runs.stages[runs.stages["role"] == PATH]
    assert sorted(set(paths["variant"])) == ["gates.gate_lr=1", "gates.gate_lr=3"]


def test_option_of_a_newer_release_at_its_default_changes_no_id() -> None:
    config = config_to_dict(RunConfig())
    older = {**config, "dense": {k: v for k, v in config["dense"].items() if k != "patience"}}
    newer = {**config, "dense": {**config["dense"], "patience": 99}}
    ids = [matching_ids(c, method_version=3) for c in (config, older, newer)]
    assert ids[0] == ids[1]
    assert ids[0]["floor_id"] != ids[2]["floor_id"]


def test_control_without_a_refit_is_none_of_a_path_with_one() -> None:
    refits: tuple[Refit, Refit] = ("continue", "none")
    configs = (RunConfig(stage=StageConfig(refit=refit)) for refit in refits)
    refitted, plain = (matching_ids(config_to_dict(c), method_version=4) for c in configs)
    assert refitted["dense_id"] != plain["dense_id"]
    assert refitted["floor_id"] == plain["floor_id"]
