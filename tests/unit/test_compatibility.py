"""What the tokenizer made of the data against what the model takes; families: test_families.py."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from sorakit.backbones import load_backbone
from sorakit.config import BackboneConfig
from sorakit.metric_names import GENERALIZATION_SPLIT, TEXT_PAIR
from sorakit.objectives import objective
from sorakit.tasks.base import Task
from sorakit.training.compatibility import (
    check_tokens,
    describe_interface,
    interface_lines,
    settle_padding,
)
from sorakit.training.data import TRAIN, AdaptationData, Padding
from tests.support.tiny_families import write_family
from tests.support.tiny_hub import task_of

TEXTS = ["the cat", "the old saw is near the cat"]


def read(
    folder: Path,
    train: list[str] = TEXTS,
    held_out: list[str] | None = None,
    *,
    names: tuple[str, ...] = ("a", "b"),
    pairs: list[str] | None = None,
) -> tuple[Any, AdaptationData, Task]:
    task = task_of(train, held_out or train, names=names)
    if pairs is not None:
        paired = task.train.add_column(TEXT_PAIR, pairs)
        task = replace(task, train=paired, validation=paired)
    torch.manual_seed(0)
    backbone = load_backbone(
        BackboneConfig(name=str(folder), random_init=True),
        objective=objective("classification"),
        label_names=names,
    )
    data = AdaptationData(
        task,
        backbone.tokenizer,
        max_length=32,
        memorization_examples=4,
        batch_size=2,
        eval_batch_size=2,
        seed=0,
    )
    return backbone.model, data, task


def test_token_of_held_out_data_beyond_the_embedding_is_named_with_its_row(tmp_path):
    folder = write_family(tmp_path / "model", "bert")
    model, data, _ = read(folder, ["the cat"] * 2, ["the cat", "the cat is under"])
    largest = data.tokens[GENERALIZATION_SPLIT].largest("input_ids")
    assert largest is not None
    model.get_input_embeddings().num_embeddings = largest[0]
    with pytest.raises(
        ValueError,
        match=r"^`backbone\.name` must have an embedding for every token, got 'tiny' with \d+ rows "
        r"and token \d+ \('\w+'\) in row 1 of the held-out data\. Enlarge it with "
        r"`resize_token_embeddings\(28\)` and save it, or take its own tokenizer\.$",
    ):
        check_tokens(model, data, name="tiny")


def test_text_of_no_token_is_named_with_its_row(tmp_path):
    folder = write_family(tmp_path / "model", "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.save_pretrained(folder)
    model, data, _ = read(folder, ["the cat", " "])
    with pytest.raises(ValueError, match=r"got none for row 1 of the training data\. Take that"):
        check_tokens(model, data, name="tiny")


def edit_tokenizer(folder: Path, **values: Any) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_token_type_beyond_the_table_is_refused(tmp_path):
    folder = write_family(tmp_path / "model", "bert")
    edit_tokenizer(folder, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    model, data, _ = read(folder, pairs=TEXTS)
    check_tokens(model, data, name="tiny")
    model.config.type_vocab_size = 1
    message = r"got 'tiny' with 1 and token type 1 in row 0 of the training data\. Its tokenizer is"
    with pytest.raises(ValueError, match=message):
        check_tokens(model, data, name="tiny")


def test_gpt2_is_padded_right_whatever_its_tokenizer_says(tmp_path):
    folder = write_family(tmp_path / "model", "gpt2")
    edit_tokenizer(folder, padding_side="left")
    model, data, _ = read(folder)
    assert data.padding == Padding(side="left")
    assert settle_padding(model, data) == Padding(side="right")


def test_model_without_attention_mask_pads_every_example_to_one_length(tmp_path):
    model, data, task = read(write_family(tmp_path / "model", "fnet"))
    data.padding = settle_padding(model, data)
    assert data.padding == Padding(side="right", length=9)
    short = data.collate(data.tokens[TRAIN].rows([0]))
    assert short["input_ids"].shape == (1, 9)
    interface = describe_interface(task, data)
    assert interface["padded_to"] == 9
    assert interface_lines(interface)[1].endswith(
        "padded with [PAD] on the right, always to 9 tokens"
    )


def test_special_tokens_in_a_text_are_text(tmp_path):
    _, data, _ = read(write_family(tmp_path / "model", "bert"), ["the [SEP] cat", "the cat"])
    [row] = data.tokens[TRAIN].rows([0])
    assert row["input_ids"].count(data.tokenizer.sep_token_id) == 1


def test_unknown_words_are_warned_of(tmp_path):
    model, data, _ = read(write_family(tmp_path / "model", "bert"), ["zebra lion tiger bear"] * 2)
    with pytest.warns(UserWarning, match=r"^67% of the tokens of the training texts are unknown"):
        check_tokens(model, data, name="tiny")


def test_terminal_shows_classes_of_any_name_and_number(tmp_path):
    folder = write_family(tmp_path / "model", "bert")
    _, data, task = read(folder, names=("[bold]", "x" * 100))
    lines = interface_lines(describe_interface(task, data))
    assert lines[0] == f"  classes   0 [bold], 1 {'x' * 40} (positive: {'x' * 40})"
    _, data, task = read(folder, names=tuple(f"c{k}" for k in range(30)))
    assert interface_lines(describe_interface(task, data))[0].endswith("7 c7, ... (30 classes)")
