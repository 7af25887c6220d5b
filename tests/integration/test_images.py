"""An image classifier from a folder of pictures to its exported adapter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from peft import PeftModel
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from sorakit.config import RunConfig, TaskConfig
from sorakit.records import Run, load_run
from sorakit.tasks import load_task
from sorakit.tasks.overlap import find_overlap
from sorakit.training.build import adapt
from sorakit.training.export import export_stage
from sorakit.training.inputs import data_fingerprint
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run
from tests.support.tiny_images import (
    CLASSES,
    picture,
    write_image_folder,
    write_image_model,
    write_image_parquet,
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_image_model(root / "model")
    write_image_folder(root / "folder")
    write_image_parquet(root / "parquet")
    return root


def image_run(root: Path, *, out_dir: str = "run", **task: Any) -> RunConfig:
    config = tiny_run(root, out_dir=out_dir, levels=(0.02, 0.3))
    data = {"name": "hub", "data_dir": str(root / "folder"), "memorization_examples": 16}
    return replace(
        config,
        task=TaskConfig(**data | task),
        dense=replace(config.dense, max_epochs=12),
        optim=replace(config.optim, lr=1e-2, batch_size=4),
    )


@pytest.fixture(scope="module")
def path(root: Path) -> Run:
    return load_run(run(image_run(root), show_progress=False).path)


def test_light_and_dark_are_told_apart(path):
    assert path.stages["generalization"][0] == 1.0
    assert path.stages["num_nonzero_params"].is_monotonic_decreasing
    dense = path.examples()
    dense = dense[(dense["stage"] == 0) & (dense["split"] == "generalization")]
    assert dense["correct"].all()
    assert path.meta["interface"]["class_names"] == list(CLASSES)


def test_folder_of_pictures_and_parquet_are_the_same_task(root):
    folder = load_task(TaskConfig(name="hub", data_dir=str(root / "folder")), seed=0)
    parquet = load_task(TaskConfig(name="hub", data_dir=str(root / "parquet")), seed=0)
    assert (folder.objective, folder.label_names) == ("image_classification", CLASSES)
    assert (parquet.objective, parquet.label_names) == ("image_classification", CLASSES)
    found = sorted(image.tobytes() for image in folder.train["image"])
    assert found == sorted(image.tobytes() for image in parquet.train["image"])
    assert data_fingerprint(folder) != data_fingerprint(replace(folder, train=folder.validation))


def test_picture_that_is_held_out_and_trained_on_is_counted(root):
    task = load_task(TaskConfig(name="hub", data_dir=str(root / "folder")), seed=0)
    assert find_overlap(task).held_out_in_train == 0
    assert find_overlap(replace(task, validation=task.train)).held_out_in_train == 16


def test_convolutions_are_not_adapted_and_blocks_are(root):
    adapted = adapt(image_run(root))
    names = {name for name, _ in adapted.model.named_modules() if name.endswith(".lora_A")}
    assert len(names) == 2 * 6
    assert all(".encoder.layer." in name for name in names)


def test_layer_and_matrix_of_a_rank_map_are_named(path):
    assert set(path.ranks["layer"]) == {0, 1}
    assert {"attention.q_proj", "mlp.fc1"} <= set(path.ranks["matrix"])


def test_pixels_are_what_the_processor_makes_of_a_picture(root):
    data = adapt(image_run(root)).data
    row = data.tokens["train"].rows([3])[0]
    image = load_task(TaskConfig(name="hub", data_dir=str(root / "folder")), seed=0).train[3]
    processor = AutoImageProcessor.from_pretrained(root / "model")
    pixels = processor([image["image"].convert("RGB")], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(row["pixel_values"], pixels, rtol=0, atol=0)
    assert row["label"] == image["label"]


def test_size_of_images_can_be_chosen(root):
    data = adapt(image_run(root, image_size=8)).data
    assert data.tokens["train"].rows([0])[0]["pixel_values"].shape == (3, 8, 8)


def test_exported_adapter_classifies_pictures_in_plain_peft(path, root, tmp_path):
    exported = export_stage(path, 1, tmp_path / "out")
    assert exported.score == exported.recorded
    config = AutoConfig.from_pretrained(tmp_path / "out" / "base")
    base = AutoModelForImageClassification.from_pretrained(
        root / "model", config=config, ignore_mismatched_sizes=True
    )
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    images = [picture(k % 2, seed=1000 + k).convert("RGB") for k in range(8)]
    with torch.no_grad():
        logits = model(**processor(images, return_tensors="pt")).logits
    assert logits.argmax(dim=1).tolist() == [k % 2 for k in range(8)]
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "pipeline_tag: image-classification" in card
    code = card.split("```python\n")[1].partition("```")[0]
    code = code.replace('folder = "."', f'folder = "{tmp_path / "out"}"')
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["classify"](images) == [CLASSES[k % 2] for k in range(8)]


def test_dataset_without_pictures_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na b,x\nc d,y\n" * 20)
    data: dict[str, Any] = {
        "name": "hub",
        "data_dir": str(tmp_path),
        "objective": "image_classification",
    }
    with pytest.raises(ValueError, match=r"^`task\.objective` must be one for texts unless a col"):
        load_task(TaskConfig(**data, validation_split="train"), seed=0)


def test_missing_picture_names_its_row(root, tmp_path):
    split = load_dataset(str(root / "parquet"))["train"]
    rows = split.to_list()
    rows[3]["picture"] = None
    type(split).from_list(rows, features=split.features).to_parquet(tmp_path / "train.parquet")
    config = TaskConfig(name="hub", data_dir=str(tmp_path), validation_split="train")
    with pytest.raises(ValueError, match=r"'picture' in row 3 of the training split must be an im"):
        load_task(config, seed=0)
