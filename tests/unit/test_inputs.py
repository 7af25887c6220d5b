"""A run goes on, or counts as complete, with the data and the base model that it began with."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from sorakit import backbones
from sorakit.config import BackboneConfig, RunConfig, TaskConfig
from sorakit.records import inputs as file_stamps
from sorakit.records import read_meta
from sorakit.training import inputs
from sorakit.training.dense import dense_name
from sorakit.training.inputs import (
    backbone_files,
    data_fingerprint,
    input_stamps,
    load_data,
    require_same_inputs,
)
from tests.support.fake_runs import fake_config, fake_meta, write_run
from tests.support.tiny_hub import write_model, write_task


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    write_model(root / "model")
    write_task(root / "task", num_train=12, num_validation=6)
    return root


@pytest.fixture
def made(hub: Path, tmp_path: Path) -> tuple[Path, RunConfig]:
    """A run folder, its configuration; its data and model are copies that a test may change."""
    for name in ("model", "task"):
        shutil.copytree(hub / name, tmp_path / name)
    sections: dict[str, Any] = {
        "task": TaskConfig(
            name="files",
            data_dir=str(tmp_path / "task"),
            train_file="train.csv",
            validation_file="validation.csv",
        ),
        "backbone": BackboneConfig(name=str(tmp_path / "model")),
    }
    config = fake_config(**sections)
    meta = {"data_fingerprint": data_fingerprint(load_data(config))}
    return write_run(tmp_path, num_stages=0, meta=meta, **sections), config


def check(made: tuple[Path, RunConfig], **options: Any) -> None:
    path, config = made
    inputs._fingerprint_of.cache_clear()  # another process, later
    require_same_inputs(path, config, read_meta(path), **options)


def swap_labels(folder: Path) -> None:
    file = folder / "task" / "train.csv"
    swapped = file.read_text().replace(",animals", ",X").replace(",tools", ",animals")
    file.write_text(swapped.replace(",X", ",tools"))


def change_held_out(folder: Path) -> None:
    file = folder / "task" / "validation.csv"
    file.write_text(file.read_text().replace("the ", "a "))


def damage_data(folder: Path) -> None:
    (folder / "task" / "train.csv").write_text("text\nno label")


def scale_weights(folder: Path) -> None:
    file = folder / "model" / "model.safetensors"
    weights = {name: 2 * value for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_dropout(folder: Path) -> None:
    edit_json(folder / "model" / "config.json", hidden_dropout_prob=0.5)


def change_tokenizer(folder: Path) -> None:
    file = folder / "model" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    file.write_text(json.dumps(content))


def add_tokens(folder: Path) -> None:
    (folder / "model" / "added_tokens.json").write_text('{"bird": 5}')


def lose_a_tokenizer_file(folder: Path) -> None:
    (folder / "model" / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (swap_labels, "other data (changed: train.csv)"),
        (change_held_out, "other data (changed: validation.csv)"),
        (damage_data, "other data (changed: train.csv)"),
        (scale_weights, "other base weights (changed: model.safetensors)"),
        (change_dropout, "another base model or tokenizer (changed: config.json)"),
        (change_tokenizer, "another base model or tokenizer (changed: tokenizer.json)"),
        (add_tokens, "another base model or tokenizer (changed: added_tokens.json)"),
        (
            lose_a_tokenizer_file,
            "another base model or tokenizer (changed: tokenizer_config.json)",
        ),
    ],
)
def test_changed_input_is_refused_by_name(
    made: tuple[Path, RunConfig], change: Callable[[Path], None], difference: str
) -> None:
    path, _ = made
    change(path.parent)
    message = (
        f"`out_dir` must hold a run with the data and base model of now, got {str(path)!r}, made "
        f"with {difference}. Put back what it was made with, or choose another `out_dir`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check(made)


def test_every_difference_is_named(made: tuple[Path, RunConfig]) -> None:
    path, _ = made
    swap_labels(path.parent)
    scale_weights(path.parent)
    with pytest.raises(ValueError, match=r"other data \(.*\) and other base weights \(.*\)\. "):
        check(made)


def nothing(folder: Path) -> None:
    pass


def touch_everything(folder: Path) -> None:
    for file in (*(folder / "task").iterdir(), *(folder / "model").iterdir()):
        os.utime(file, ns=(0, 0))


def add_an_unread_column(folder: Path) -> None:
    file = folder / "task" / "train.csv"
    header, *lines = file.read_text().splitlines()
    file.write_text("\n".join([f"{header},note", *(f"{line},x" for line in lines)]) + "\n")


def write_a_card(folder: Path) -> None:
    (folder / "model" / "README.md").write_text("# A card")


def lose_the_data(folder: Path) -> None:
    shutil.rmtree(folder / "task")


def lose_the_training_file(folder: Path) -> None:
    (folder / "task" / "train.csv").unlink()


def lose_the_model(folder: Path) -> None:
    shutil.rmtree(folder / "model")


@pytest.mark.parametrize(
    "change",
    [
        nothing,
        touch_everything,
        add_an_unread_column,
        write_a_card,
        lose_the_data,
        lose_the_training_file,
        lose_the_model,
    ],
)
def test_what_changes_no_number_is_accepted(
    made: tuple[Path, RunConfig], change: Callable[[Path], None]
) -> None:
    change(made[0].parent)
    check(made)


def test_untouched_files_are_not_read(
    made: tuple[Path, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*key: object) -> str:
        raise AssertionError

    monkeypatch.setattr(file_stamps, "_sha256", read)
    monkeypatch.setattr(inputs, "load_task", read)
    check(made)


# Data and model that are loaded


def test_weights_that_are_the_same_in_another_file_go_on(made: tuple[Path, RunConfig]) -> None:
    path, _ = made
    file = path.parent / "model" / "model.safetensors"
    save_file(load_file(file), file, metadata={"format": "pt", "saved": "anew"})
    meta = read_meta(path)
    check(made, loaded=meta)
    with pytest.raises(ValueError, match=r"other base weights \(changed: model.safetensors\)"):
        check(made, loaded={**meta, "backbone_fingerprint": "of other weights"})


# Records of an older sorakit have no stamps


def of_older(made: tuple[Path, RunConfig]) -> tuple[Path, RunConfig]:
    meta = read_meta(made[0])
    del meta["inputs"]
    (made[0] / "meta.json").write_text(json.dumps(meta))
    return made


def test_older_record_of_the_same_data_is_accepted(made: tuple[Path, RunConfig]) -> None:
    check(of_older(made))


def test_older_record_of_other_data_is_refused(made: tuple[Path, RunConfig]) -> None:
    swap_labels(made[0].parent)
    with pytest.raises(ValueError, match=r"made with other data \(their fingerprint differs\)\. "):
        check(of_older(made))


@pytest.mark.parametrize("key", ["data", "backbone"])
def test_older_run_goes_on_with_what_it_began_with_only(
    made: tuple[Path, RunConfig], key: str
) -> None:
    meta = read_meta(made[0])
    older = of_older(made)
    check(older, loaded=meta)
    with pytest.raises(ValueError, match=r"made with other .* \(their fingerprint differs\)\. "):
        check(older, loaded={**meta, f"{key}_fingerprint": "another"})


# Inputs that are no files of the user


def test_docstrings_of_another_python_are_other_data(tmp_path: Path) -> None:
    config = fake_config()
    made_with = input_stamps(config)
    made_with["data"] |= {"python": "3.10.0", "wandb": "0.1"}
    path = write_run(tmp_path, num_stages=0, meta={"inputs": made_with})
    with pytest.raises(ValueError, match=r"made with other data \(changed: python, wandb\)\. "):
        require_same_inputs(path, config, read_meta(path))


def test_docstrings_that_are_the_same_under_another_version_are_accepted(tmp_path: Path) -> None:
    config = fake_config()
    made_with = input_stamps(config)
    made_with["data"] |= {"python": "3.10.0"}
    meta = {"inputs": made_with, "data_fingerprint": data_fingerprint(load_data(config))}
    path = write_run(tmp_path, num_stages=0, meta=meta)
    require_same_inputs(path, config, read_meta(path))


def hub_cache(folder: Path, repository: str, revision: str) -> Path:
    """Write what the Hub's cache holds of a repository; return the folder of the revision."""
    name = repository.replace("/", "--")
    (folder / name / "refs").mkdir(parents=True, exist_ok=True)
    (folder / name / "refs" / "main").write_text(revision)
    snapshot = folder / name / "snapshots" / revision
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_model_of_another_revision_is_another(hub: Path, cache: Path, tmp_path: Path) -> None:
    backbone = BackboneConfig(name="someone/tiny")
    shutil.copytree(
        hub / "model", hub_cache(cache, "models/someone/tiny", "aaaa"), dirs_exist_ok=True
    )
    config = fake_config(backbone=backbone)
    path = write_run(tmp_path, num_stages=0, backbone=backbone)
    assert read_meta(path)["inputs"]["revision"] == "aaaa"
    require_same_inputs(path, config, read_meta(path))
    newer = hub_cache(cache, "models/someone/tiny", "bbbb")
    shutil.copytree(hub / "model", newer, dirs_exist_ok=True)
    require_same_inputs(path, config, read_meta(path))  # a commit that changed no file of it
    edit_json(newer / "config.json", hidden_dropout_prob=0.5)
    with pytest.raises(ValueError, match=r"base model or tokenizer \(changed: config\.json\)\. "):
        require_same_inputs(path, config, read_meta(path))


def test_dataset_of_another_revision_is_loaded_and_compared(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_cache(cache, "datasets/nyu-mll/glue", "aaaa")
    config = fake_config(task="mrpc")
    path = write_run(tmp_path, num_stages=0, task="mrpc")
    require_same_inputs(path, config, read_meta(path))
    hub_cache(cache, "datasets/nyu-mll/glue", "bbbb")
    monkeypatch.setattr(inputs, "_fingerprint_of", lambda *key: read_meta(path)["data_fingerprint"])
    require_same_inputs(path, config, read_meta(path))
    monkeypatch.setattr(inputs, "_fingerprint_of", lambda *key: "another")
    with pytest.raises(ValueError, match=r"made with other data \(changed: nyu-mll/glue\)\. "):
        require_same_inputs(path, config, read_meta(path))


def test_folder_of_glue_is_compared_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "glue" / "MRPC"
    folder.mkdir(parents=True)
    for name in ("train.parquet", "validation.parquet", "README.md"):
        (folder / name).write_text(name)
    task = TaskConfig(name="mrpc", data_dir=str(tmp_path / "glue"))
    assert list(input_stamps(fake_config(task=task))["data"]) == [
        "train.parquet",
        "validation.parquet",
    ]


def test_dataset_of_the_hub_is_known_by_its_revision(cache: Path) -> None:
    hub_cache(cache, "datasets/someone/reviews", "aaaa")
    task = TaskConfig(name="hub", dataset="someone/reviews")
    assert input_stamps(fake_config(task=task))["data"] == {"someone/reviews": "aaaa"}


def test_folder_that_datasets_reads_is_compared_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("README.md", "data/train.csv"):
        (tmp_path / name).write_text(name)
    task = TaskConfig(name="hub", data_dir=str(tmp_path))
    assert list(input_stamps(fake_config(task=task))["data"]) == ["README.md", "data/train.csv"]


# What is looked at


def test_embedded_encoder_is_the_one_that_is_loaded() -> None:
    weights, others = backbone_files(BackboneConfig())
    folders = {file.parent for file in (*weights.values(), *others.values())}
    assert folders == {backbones.EMBEDDED_DIR}
    assert list(weights) == ["model.safetensors"]
    assert list(others) == ["config.json", "tokenizer.json", "tokenizer_config.json"]


def test_weights_that_transformers_prefers_are_taken(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "model-00001-of-00001.safetensors", "training_args.bin"):
        (tmp_path / name).touch()
    weights, _ = backbone_files(BackboneConfig(name=str(tmp_path)))
    assert list(weights) == ["model-00001-of-00001.safetensors"]


def test_random_weights_are_of_no_file(hub: Path) -> None:
    weights, others = backbone_files(BackboneConfig(name=str(hub / "model"), random_init=True))
    assert (weights, "config.json" in others) == ({}, True)


def test_stamps_name_no_path_of_this_machine(made: tuple[Path, RunConfig]) -> None:
    assert str(made[0].parent) not in json.dumps(read_meta(made[0])["inputs"])


def test_dense_stages_of_two_tokenizers_are_two(made: tuple[Path, RunConfig]) -> None:
    path, config = made
    hardware = {"machine": "x86_64", "threads": 1, "gpu": None}
    before = dense_name(config, fake_meta(config, hardware=hardware))
    touch_everything(path.parent)
    assert dense_name(config, fake_meta(config, hardware=hardware)) == before
    change_tokenizer(path.parent)
    assert dense_name(config, fake_meta(config, hardware=hardware)) != before
