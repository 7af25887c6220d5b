"""Folders that people have: damaged files, weights of another model, tokenizers of their own."""

import json
import re
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    LayoutLMv2Config,
    PerceiverConfig,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
)

from sorakit.backbones import load_backbone
from sorakit.config import BackboneConfig
from sorakit.objectives import objective
from tests.support.tiny_hub import FILLERS, THEMES, write_model

LABELS = ("animals", "tools", "plants")
LFS_POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:"
    + "0123456789abcdef" * 4
    + "\nsize 9\n"
)
SIZES: dict[str, Any] = {
    "vocab_size": 23,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hub") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A folder of this test's own, in the Hub's layout."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def load(folder: Path, *, seed: int = 3, labels: tuple[str, ...] = LABELS):
    torch.manual_seed(seed)
    return load_backbone(
        BackboneConfig(name=str(folder)),
        objective=objective("classification"),
        label_names=labels,
    )


def refusal(folder: Path) -> str:
    """Return the message, after the facts that hold for every one."""
    with pytest.raises(ValueError, match=r"\A`backbone\.name` must [^\n]+\Z") as caught:
        load(folder)
    message = str(caught.value)
    assert len(message) < 1000
    assert "\n" not in message
    assert repr(str(folder)) in message
    return message


def edit_config(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


# Weights that are not those of the configuration --------------------------------------------------


def test_weights_below_a_strange_prefix_are_refused(folder):
    edit_weights(folder, lambda weights: {f"module.{k}": v for k, v in weights.items()})
    assert "Its weights are saved below 'module': save the model within." in refusal(folder)


def test_missing_layer_is_refused_by_name(folder):
    edit_weights(folder, lambda ws: {k: v for k, v in ws.items() if "layer.1." not in k})
    assert "lacks 16 of 37 (bert.encoder.layer.1.attention.output.LayerNorm.bias, " in refusal(
        folder
    )


def test_layer_more_in_the_configuration_is_refused(folder):
    edit_config(folder, num_hidden_layers=3)
    assert "lacks 16 of 53 (bert.encoder.layer.2." in refusal(folder)


def test_layer_less_in_the_configuration_is_refused(folder):
    edit_config(folder, num_hidden_layers=1)
    assert "holds 16 without a place (encoder.layer.1.attention." in refusal(folder)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("intermediate_size", "intermediate.dense.bias of (32,), not (64,)"),
        ("max_position_embeddings", "position_embeddings.weight of (32, 16), not (64, 16)"),
        ("vocab_size", "word_embeddings.weight of (28, 16), not (56, 16)"),
    ],
)
def test_size_that_is_not_that_of_the_weights_is_refused(key, words, folder):
    edit_config(folder, **{key: 2 * json.loads((folder / "config.json").read_text())[key]})
    message = refusal(folder)
    assert words in message
    assert message.endswith("Its config.json does not describe its weights.")


def test_missing_pooler_is_drawn(folder):
    edit_weights(folder, lambda ws: {k: v for k, v in ws.items() if "pooler" not in k})
    first, second = (load(folder, seed=seed).model for seed in (0, 1))
    name = "bert.pooler.dense.weight"
    assert not torch.equal(first.get_parameter(name), second.get_parameter(name))


def test_pooler_that_is_there_is_kept(folder):
    weight = load_file(folder / "model.safetensors")["pooler.dense.weight"]
    assert torch.equal(load(folder).model.get_parameter("bert.pooler.dense.weight"), weight)


def test_head_of_a_language_model_is_no_misfit(folder):
    model = BertForMaskedLM(BertConfig.from_pretrained(folder))
    model.save_pretrained(folder)
    assert load(folder).model.config.num_labels == 3


def test_constants_of_older_versions_are_no_misfit(folder):
    edit_weights(folder, lambda ws: {**ws, "embeddings.position_ids": torch.arange(32)[None]})
    assert load(folder).model.config.num_labels == 3


# The one rule for a head that is there ------------------------------------------------------------


def write_classifier(folder: Path, *, classes: int) -> None:
    model = BertForSequenceClassification(
        BertConfig.from_pretrained(folder, num_labels=classes, id2label=dict(enumerate("abcdefg")))
    )
    model.bert = BertModel.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.fill_(0.25)
        model.classifier.bias.fill_(0.25)
    model.save_pretrained(folder)


@pytest.mark.parametrize("classes", [2, 3])
def test_head_of_a_fine_tuned_folder_is_drawn_anew(classes, folder):
    plain = load(folder).fingerprint
    write_classifier(folder, classes=classes)
    first, second = load(folder, seed=0), load(folder, seed=1)
    weights = [backbone.model.get_parameter("classifier.weight") for backbone in (first, second)]
    assert not torch.equal(*weights)
    assert all(0 < weight.std() < 1 for weight in weights)
    assert first.model.get_parameter("classifier.bias").tolist() == [0, 0, 0]
    assert first.model.config.id2label == dict(enumerate(LABELS))
    assert first.fingerprint == plain


def test_every_part_of_a_head_is_drawn_anew(tmp_path, folder):
    model = RobertaForSequenceClassification(RobertaConfig(**{**SIZES, "num_labels": 5}))
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.fill_(0.25)
    model.save_pretrained(folder)  # `dense` fits three classes as well as five
    drawn = load(folder).model.get_submodule("classifier")
    assert not any((parameter == 0.25).any() for parameter in drawn.parameters())


def test_head_is_drawn_as_for_a_folder_without_one(folder):
    plain = [p.clone() for p in load(folder).model.get_submodule("classifier").parameters()]
    write_classifier(folder, classes=3)
    again = load(folder).model.get_submodule("classifier").parameters()
    assert all(map(torch.equal, plain, again))


# Models without a head ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ViTConfig(), "that transformers can put a classification head on, got"),
        (
            PerceiverConfig(
                d_model=16,
                d_latents=16,
                num_latents=4,
                num_self_attends_per_block=1,
                num_self_attention_heads=2,
                num_cross_attention_heads=2,
                vocab_size=28,
                max_position_embeddings=32,
            ),
            "with a task head outside its base model, got PerceiverForSequenceClassification",
        ),
    ],
    ids=["vit", "perceiver"],
)
def test_model_without_a_head_is_refused(config, words, folder):
    config.save_pretrained(folder)
    with pytest.raises(ValueError, match=rf"^`backbone\.name` must be a model {re.escape(words)}"):
        load_backbone(
            BackboneConfig(name=str(folder), random_init=True),
            objective=objective("classification"),
            label_names=LABELS,
        )


# Damaged files, missing packages, remote code -----------------------------------------------------


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_lfs_pointer_is_named(name, folder):
    (folder / name).write_text(LFS_POINTER)
    assert f"{name} is a Git LFS pointer, not the file itself. Run `git lfs pull`" in refusal(
        folder
    )


def test_lfs_pointer_in_the_place_of_old_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_text(LFS_POINTER)
    assert "pytorch_model.bin is a Git LFS pointer" in refusal(folder)


def test_lfs_pointer_that_nothing_reads_does_no_harm(folder):
    (folder / "pytorch_model.bin").write_text(LFS_POINTER)
    assert load(folder).model.config.num_labels == 3


def test_vocabulary_that_is_an_lfs_pointer_is_refused(folder):
    # BertTokenizer would take its three lines for words
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text(LFS_POINTER)
    assert "vocab.txt is a Git LFS pointer" in refusal(folder)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_half_a_weights_file_is_named(share, folder):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    size = f"{int(share * len(content)):,}"
    assert f"model.safetensors ({size} bytes) is no whole safetensors file" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_half_a_text_file_is_refused(name, folder):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    refusal(folder)


def test_empty_old_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()
    assert "pytorch_model.bin is empty" in refusal(folder)


def test_code_of_a_folder_is_never_run(folder):
    (folder / "modeling_own.py").write_text("raise RuntimeError('this code was run')")
    own = {"AutoConfig": "modeling_own.Own", "AutoModelForSequenceClassification": "modeling_own.O"}
    edit_config(folder, model_type="own", auto_map=own)
    message = refusal(folder)
    assert "this code was run" not in message
    assert "custom code" in message


@pytest.mark.skipif(find_spec("detectron2") is not None, reason="detectron2 is installed")
def test_missing_package_is_named(folder):
    LayoutLMv2Config().save_pretrained(folder)
    message = refusal(folder)
    assert "LayoutLMv2Model requires the detectron2 library but it was not found" in message
    assert "installation page" in message


def test_unknown_architecture_is_refused(folder):
    edit_config(folder, model_type="no_such_architecture")
    assert "no_such_architecture" in refusal(folder)


# Tokenizers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DeBERTaV3's layout: spm.model and no tokenizer.json, at a small size."""
    folder = tmp_path_factory.mktemp("hub") / "deberta"
    words = [word for theme in THEMES.values() for word in theme] + FILLERS
    corpus = folder.parent / "corpus.txt"
    corpus.write_text("\n".join(f"{a} {b}" for a in words for b in words))
    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spm"),
        vocab_size=46,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
    )
    (folder / "spm.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": False, "vocab_type": "spm"})
    )
    sizes: dict[str, Any] = {**SIZES, "vocab_size": 47, "relative_attention": True}
    config = DebertaV2Config(**sizes)
    DebertaV2Model(config).save_pretrained(folder)
    return folder


def test_sentencepiece_tokenizer_without_tokenizer_json_loads(deberta):
    tokenizer = load(deberta).text_tokenizer
    ids = tokenizer("the cat is near")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "[CLS]",
        *(f"▁{word}" for word in ["the", "cat", "is", "near"]),
        "[SEP]",
    ]


def test_tokenizer_without_pad_token_pads_with_its_end_token(folder):
    change_tokenizer(folder, pad_token=None, eos_token="[SEP]")
    backbone = load(folder)
    assert backbone.text_tokenizer.pad_token == "[SEP]"
    assert backbone.model.config.pad_token_id == backbone.text_tokenizer.eos_token_id


def test_tokenizer_with_neither_pad_nor_end_token_is_refused(folder):
    change_tokenizer(folder, pad_token=None)
    assert refusal(folder) == (
        "`backbone.name` must have a tokenizer with a pad token, or an end token to pad with, got "
        f"{str(folder)!r} with neither. Set `pad_token` in its tokenizer_config.json."
    )


def test_tokenizer_gives_no_input_that_the_model_does_not_take(folder):
    config = DistilBertConfig(vocab_size=28, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    DistilBertModel(config).save_pretrained(folder)
    change_tokenizer(folder, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    assert list(load(folder).text_tokenizer("the cat")) == ["input_ids", "attention_mask"]


def change_tokenizer(folder: Path, **values: Any) -> None:
    file = folder / "tokenizer_config.json"
    merged = json.loads(file.read_text()) | values
    file.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}))
