"""An exported adapter loads and names classes in plain PEFT, by what its model card says."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, ModelCardData
from peft import AutoPeftModelForSequenceClassification, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2Model

from sorakit.records import Run, load_run
from sorakit.training.export import TOLERANCES, Export, export_stage
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run, write_model, write_regression

CLASSES = {"zoo": "cat", "shed": "saw", 'the "attic" | roof': "old"}
NAMES = sorted(CLASSES)
LEARNS = {"dense": {"max_epochs": 20, "patience": 20}}


def write_rooms(folder: Path) -> None:
    """Write a task of three classes named by texts, one of which needs quoting."""
    folder.mkdir(parents=True)
    for name, filler in (("train", "big "), ("validation", "small ")):
        with (folder / f"{name}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            for index in range(12):
                start = filler * (1 + index % 4)
                writer.writerows(
                    [f"{start}{word} is near", label] for label, word in CLASSES.items()
                )


def write_gpt2(folder: Path) -> Path:
    """Write a GPT-2 without a pad token, as the Hub has it, and a tokenizer that pads left."""
    write_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token, tokenizer.pad_token = "[SEP]", None
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids: dict[str, Any] = {"bos_token_id": 2, "eos_token_id": 3, "initializer_range": 0.5}
        sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
        GPT2Model(GPT2Config(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(folder)
    return folder


def complete_run(root: Path, out_dir: str = "run", **sections: dict[str, Any]) -> Run:
    config = tiny_run(root, out_dir=out_dir, levels=(0.02,), sections={**LEARNS, **sections})
    return load_run(run(config, show_progress=False).path)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("rooms")
    write_model(root / "model", dropout=0.0)
    write_rooms(root / "task")
    return complete_run(root)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("decoder")
    write_gpt2(root / "model")
    write_rooms(root / "task")
    return complete_run(root)


def code_blocks(folder: Path) -> list[str]:
    card = (folder / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)


def follow_the_card(folder: Path, texts: list[str]) -> dict[str, Any]:
    """Run the card's first block on texts, from within the folder as it says, and its second."""
    first, second = code_blocks(folder)
    first, count = re.subn(r"texts = \[.*\]", f"texts = {texts!r}", first)
    assert count == 1
    names: dict[str, Any] = {}
    exec(first, names)
    exec(second, names | {"folder": "."})
    return names


def predictions(result: Run, stage: int = 1) -> list[int]:
    table = result.examples()
    held_out = table[(table["stage"] == stage) & (table["split"] == "generalization")]
    return held_out.sort_values("index")["prediction"].tolist()


def held_out_texts(result: Run) -> list[str]:
    file = Path(result.config["task"]["data_dir"]) / "validation.csv"
    with file.open(newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


@pytest.mark.parametrize("name", ["rooms", "decoder"])
def test_card_loads_the_adapter_and_predicts_class_names(name, request, tmp_path, monkeypatch):
    result: Run = request.getfixturevalue(name)
    export_stage(result, 1, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path / "adapter")
    names = follow_the_card(Path(), held_out_texts(result))
    assert names["answers"] == [NAMES[index] for index in predictions(result)]
    assert type(names["model"].base_model.model).__module__.startswith("transformers.")


@pytest.mark.parametrize("name", ["rooms", "decoder"])
def test_runs_that_are_exported_tell_classes_apart(name, request):
    assert len(set(predictions(request.getfixturevalue(name)))) > 1


@pytest.mark.parametrize("name", ["rooms", "decoder"])
def test_auto_class_of_peft_loads_three_classes(name, request, tmp_path, monkeypatch):
    export_stage(request.getfixturevalue(name), 1, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path / "adapter")
    names: dict[str, Any] = {"folder": "."}
    exec(code_blocks(Path())[1], names)
    model = names["model"]
    assert isinstance(model, PeftModel)
    assert model.config.id2label == dict(enumerate(NAMES))
    assert model.config.pad_token_id is not None
    batch = AutoTokenizer.from_pretrained(".")(["cat", "the old saw"], padding=True)
    assert model(**batch.convert_to_tensors("pt")).logits.shape == (2, 3)


@pytest.mark.parametrize("name", ["rooms", "decoder"])
def test_auto_class_of_peft_needs_no_word_where_the_base_is_exported(name, request, tmp_path):
    result: Run = request.getfixturevalue(name)
    out = tmp_path / "adapter"
    export_stage(result, 1, out, with_base=True)
    model = AutoPeftModelForSequenceClassification.from_pretrained(out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    batch = tokenizer(held_out_texts(result), padding=True, return_tensors="pt")
    assert model(**batch).logits.argmax(dim=1).tolist() == predictions(result)
    assert model.config.id2label == dict(enumerate(NAMES))


def test_auto_peft_finds_the_base_from_any_folder(rooms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_stage(rooms, 1, Path("adapter"), with_base=True)
    monkeypatch.chdir(tmp_path / "adapter")  # as the card, which says folder = "."
    model = AutoPeftModelForSequenceClassification.from_pretrained(".")
    assert model.config.id2label == dict(enumerate(NAMES))


def test_configuration_beside_the_adapter_names_classes_and_pad_token(decoder, tmp_path):
    export_stage(decoder, 1, tmp_path / "adapter")
    config = AutoConfig.from_pretrained(tmp_path / "adapter" / "base")
    assert config.id2label == dict(enumerate(NAMES))
    assert config.pad_token_id == 3


def test_tokenizer_beside_the_adapter_pads_as_the_run_did(decoder, tmp_path):
    export_stage(decoder, 1, tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert (tokenizer.pad_token, tokenizer.padding_side) == ("[SEP]", "right")


def test_card_has_the_index_of_every_class(rooms, tmp_path):
    export_stage(rooms, 1, tmp_path / "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert '| 0 | shed |\n| 1 | the \\"attic\\" \\| roof |\n| 2 | zoo |\n' in card
    assert "| longest input | 16 tokens; longer texts are cut |" in card


def test_card_tells_task_data_counts_scores_with_their_interval_and_how_it_was_made(
    rooms, tmp_path
):
    export = export_stage(rooms, 1, tmp_path / "adapter")
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    stage, dense, meta = rooms.stages.iloc[1], rooms.stages.iloc[0], rooms.meta
    assert export.interval is not None
    low, high = export.interval.low, export.interval.high
    count, full = int(stage["num_nonzero_params"]), int(stage["num_adapter_params"])
    assert "| trained on | task, 36 examples |" in card
    assert f"| adapter parameters | {count:,} of {full:,}, " in card
    held_out = f"{stage['generalization']:.4f} (95 % interval {low:.4f} to {high:.4f}: what the "
    assert f"| accuracy on held-out examples | {held_out}choice of 36 examples adds" in card
    assert f"| accuracy on training examples | {stage['memorization']:.4f} |" in card
    assert f"with {int(dense['num_nonzero_params']):,} parameters |" in card
    assert f"| sorakit run | {rooms.run_id}, stage 1, seed 0, method version " in card
    assert f"torch {meta['versions']['torch']}, transformers " in card
    assert "sorakit run --config sorakit.yaml --out_dir run\n" in card
    assert "sorakit export run --stage 1 --out adapter\n" in card


def test_card_without_a_verified_score_has_no_interval(rooms, tmp_path):
    assert export_stage(rooms, 1, tmp_path / "adapter", verify=False).interval is None
    assert "interval 0." not in (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")


def test_run_records_what_a_class_index_means(rooms, decoder):
    assert rooms.meta["interface"] == {
        "objective": "classification",
        "inputs": "texts",
        "labels": "classes",
        "model_class": "AutoModelForSequenceClassification",
        "class_names": NAMES,
        "num_labels": 3,
        "positive_class": None,
        "max_length": 16,
        "longest_input": 9,
        "pad_token": "[PAD]",
        "pad_token_id": 0,
        "padding_side": "right",
        "padded_to": None,
    }
    assert decoder.meta["interface"]["pad_token"] == "[SEP]"


def test_positive_class_of_two_is_the_second(tmp_path):
    result = complete_run(tmp_path)
    assert result.meta["interface"]["class_names"] == ["animals", "tools"]
    assert result.meta["interface"]["positive_class"] == "tools"


def test_regression_exports_a_number(tmp_path, monkeypatch):
    write_model(tmp_path / "model")
    write_regression(tmp_path / "task")
    result = complete_run(tmp_path, task={"metric": "pearson"})
    assert export_stage(result, 1, tmp_path / "adapter").score is not None
    monkeypatch.chdir(tmp_path / "adapter")
    answers = follow_the_card(Path(), ["the cat", "the old saw is near"])["answers"]
    assert [type(answer) for answer in answers] == [float, float]
    names: dict[str, Any] = {"folder": "."}
    exec(code_blocks(Path())[1], names)
    assert names["model"].config.num_labels == 1
    data = ModelCard.load("README.md").data
    assert isinstance(data, ModelCardData)
    assert data.metrics == ["pearsonr"]


def test_score_of_the_exported_adapter_is_that_of_the_record(rooms, tmp_path):
    recorded = rooms.stages["generalization"][1]
    export = export_stage(rooms, 1, tmp_path / "adapter")
    assert export == Export(
        recorded=recorded,
        score=recorded,
        tolerance=2 / 36,
        precision="32-true",
        not_verified=None,
        interval=export.interval,
    )


def test_score_recorded_in_bfloat16_is_verified_in_float32(tmp_path):
    result = complete_run(tmp_path, trainer={"precision": "bf16-mixed"})
    export = export_stage(result, 1, tmp_path / "adapter")
    assert export.score is not None
    assert export.tolerance == max(TOLERANCES["bf16-mixed"], 2 / 32)
    assert abs(export.score - export.recorded) <= export.tolerance


def test_adapter_that_is_not_the_recorded_one_is_refused(rooms, tmp_path):
    copy = Path(shutil.copytree(rooms.path, tmp_path / "run"))
    file = copy / "adapters" / "stage_01" / "adapter_model.safetensors"
    state = load_file(file)
    name = "base_model.model.classifier.bias"
    worst = min(range(3), key=predictions(rooms).count)
    save_file({**state, name: torch.eye(3)[worst] * 1e3}, file, metadata={"format": "pt"})
    message = r"^`RUN` must hold an adapter with the recorded score, got 0\.3333 in plain PEFT"
    with pytest.raises(ValueError, match=message):
        export_stage(load_run(copy), 1, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_export_without_the_data_says_that_it_is_not_verified(rooms, tmp_path):
    data = Path(rooms.config["task"]["data_dir"])
    data.rename(data.with_name("moved"))
    try:
        export = export_stage(rooms, 1, tmp_path / "adapter")
    finally:
        data.with_name("moved").rename(data)
    assert export.score is None
    assert export.not_verified is not None
    assert "must" in export.not_verified
    assert (tmp_path / "adapter" / "README.md").is_file()


def test_adapter_on_the_embedded_encoder_comes_with_it(tmp_path, monkeypatch):
    write_model(tmp_path / "model")  # not used; without it `tiny_run` writes a task of its own
    write_rooms(tmp_path / "task")
    result = complete_run(tmp_path, backbone={"name": "embedded"})
    export_stage(result, 1, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(tmp_path / "adapter" / "base")
    monkeypatch.chdir(tmp_path / "adapter")
    names = follow_the_card(Path(), held_out_texts(result))
    assert names["answers"] == [NAMES[index] for index in predictions(result)]


def test_exported_files_name_no_folder_of_the_installation(tmp_path):
    write_model(tmp_path / "model")  # not used; without it `tiny_run` writes a task of its own
    write_rooms(tmp_path / "task")
    result = complete_run(tmp_path, backbone={"name": "embedded"})
    export_stage(result, 1, tmp_path / "adapter", with_base=False)
    for file in (tmp_path / "adapter").rglob("*"):
        if file.suffix in (".json", ".md"):
            assert "assets" not in file.read_text(encoding="utf-8"), file
