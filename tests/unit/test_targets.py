import re
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from sorakit.method.matrix_types import MATRIX_TYPES, type_names
from sorakit.method.targets import (
    head_modules,
    layer_names,
    linear_names,
    resolve_target_modules,
    split_layer,
)

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
LAYER = [
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
]


def tiny_bert_of(num_layers: int) -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(**{**SIZES, "num_hidden_layers": num_layers}))


def test_head_of_bert_is_classifier_and_pooler(tiny_bert):
    assert head_modules(tiny_bert) == ["classifier", "bert.pooler"]


def test_head_of_roberta_is_its_classifier():
    model = RobertaForSequenceClassification(RobertaConfig(**SIZES, pad_token_id=1))
    assert head_modules(model) == ["classifier"]


def test_head_of_deberta_is_classifier_and_pooler():
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**SIZES))
    assert head_modules(model) == ["pooler", "classifier"]


def test_head_of_gpt2_is_its_score():
    model = GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=32))
    assert head_modules(model) == ["score"]


def test_all_linear_is_every_linear_layer_below_the_head(tiny_bert):
    names = resolve_target_modules(tiny_bert, "all-linear", exclude=head_modules(tiny_bert))
    assert names == [f"bert.encoder.layer.{k}.{name}" for k in (0, 1) for name in LAYER]


def test_conv1d_of_gpt2_counts_as_linear():
    model = GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=32))
    names = resolve_target_modules(model, "all-linear", exclude=head_modules(model))
    assert [name.removeprefix("transformer.h.0.") for name in names] == [
        "attn.c_attn",
        "attn.c_proj",
        "mlp.c_fc",
        "mlp.c_proj",
    ]


def test_list_names_endings(tiny_bert):
    names = resolve_target_modules(tiny_bert, ["query", "value"])
    assert names == [
        f"bert.encoder.layer.{k}.attention.self.{m}" for k in (0, 1) for m in ("query", "value")
    ]


def test_endings_stop_at_a_dot():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "ba": nn.Linear(2, 2)})
    assert resolve_target_modules(model, ["a"]) == ["a"]


def test_text_is_a_regular_expression_of_whole_names(tiny_bert):
    names = resolve_target_modules(tiny_bert, r".*layer\.1\..*query")
    assert names == ["bert.encoder.layer.1.attention.self.query"]


def test_layer_1_is_not_layer_11():
    model = tiny_bert_of(12)
    names = resolve_target_modules(model, ["1.attention.self.query"])
    assert names == ["bert.encoder.layer.1.attention.self.query"]


def test_head_is_never_adapted(tiny_bert):
    with pytest.raises(ValueError, match=r"^`method\.target_modules` must match a linear layer"):
        resolve_target_modules(tiny_bert, ["classifier"], exclude=head_modules(tiny_bert))


def test_no_match_lists_each_available_name_once(tiny_bert):
    message = (
        "`method.target_modules` must match a linear layer, got ['q_proj']. "
        f"Available: {', '.join(LAYER)}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resolve_target_modules(tiny_bert, ["q_proj"], exclude=head_modules(tiny_bert))


def test_malformed_regular_expression_is_reported(tiny_bert):
    message = (
        "`method.target_modules` must be a regular expression, got '(': "
        "missing ), unterminated subpattern at position 0."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resolve_target_modules(tiny_bert, "(")


def test_excluded_name_is_no_prefix_of_another():
    model = nn.ModuleDict({"head": nn.Linear(2, 2), "headless": nn.Linear(2, 2)})
    assert linear_names(model, exclude=["head"]) == ["headless"]


@pytest.mark.parametrize(
    "exclude", [["key", "dense"], r".*(key|dense)"], ids=["endings", "regular expression"]
)
def test_excluded_layers_are_left_out(exclude, tiny_bert):
    names = resolve_target_modules(
        tiny_bert, "all-linear", exclude=head_modules(tiny_bert), exclude_modules=exclude
    )
    assert [split_layer(name) for name in names] == [
        (k, f"attention.self.{m}") for k in (0, 1) for m in ("query", "value")
    ]


def test_layers_to_leave_out_must_be_there(tiny_bert):
    message = (
        "`method.exclude_modules` must match a layer of `method.target_modules`, got ['q_proj']. "
        "Available: attention.self.query."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resolve_target_modules(tiny_bert, ["query"], exclude_modules=["q_proj"])


def test_layers_to_leave_out_must_leave_some(tiny_bert):
    message = (
        "`method.exclude_modules` must leave a layer of `method.target_modules`, got '.*', which "
        "leaves none."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resolve_target_modules(tiny_bert, ["query"], exclude_modules=".*")


def test_message_lists_no_more_than_16_names():
    model = nn.ModuleDict({f"tower{k}": nn.Linear(2, 2) for k in range(100)})
    with pytest.raises(ValueError, match=r"Available: tower0, .*, tower15 and 84 more\.$"):
        resolve_target_modules(model, ["query"])


def test_model_without_a_head_is_refused():
    message = (
        "`backbone.name` must be a model with a task head, got BertModel, which is a base model "
        "without one."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        head_modules(BertModel(BertConfig(**SIZES)))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("bert.encoder.layer.3.attention.self.query", (3, "attention.self.query")),
        ("transformer.h.11.mlp.c_fc", (11, "mlp.c_fc")),
        ("bert.pooler.dense", (None, "bert.pooler.dense")),
        ("0.weight", (0, "weight")),
        ("block.2.experts.5.up", (2, "experts.5.up")),
    ],
)
def test_split_layer(name, parts):
    assert split_layer(name) == parts


def test_resolved_names_leave_the_model_as_it_is(tiny_bert):
    before = {name: value.clone() for name, value in tiny_bert.state_dict().items()}
    resolve_target_modules(tiny_bert, "all-linear")
    after = tiny_bert.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_layers_of_two_towers_are_told_apart_and_those_of_one_are_not():
    two = ["model.encoder.layers.0.fc1", "model.decoder.layers.0.fc1", "model.decoder.layers.0.fc9"]
    assert list(layer_names(two).values()) == [
        (0, "encoder.fc1"),
        (0, "decoder.fc1"),
        (0, "decoder.fc9"),
    ]
    one = ["bert.encoder.layer.0.query", "bert.encoder.layer.1.query", "pooler.dense"]
    assert layer_names(one) == {name: split_layer(name) for name in one}


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (
            [
                *(f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"),
                *(f"model.layers.0.mlp.{name}_proj" for name in ("up", "down")),
            ],
            ["model.layers.0.mlp.gate_proj"],
        ),
        (
            [
                *(f"dinov2.encoder.layer.0.attention.{name}_proj" for name in "qkvo"),
                *(f"dinov2.encoder.layer.0.mlp.fc{name}" for name in "12"),
            ],
            [],
        ),
        (
            [
                *(f"encoder.block.0.layer.0.SelfAttention.{name}" for name in "qkvo"),
                *(f"encoder.block.0.layer.1.DenseReluDense.{name}" for name in ("wi", "wo")),
            ],
            ["decoder.block.0.layer.1.EncDecAttention.q"],
        ),
    ],
    ids=["llama", "dinov2", "t5"],
)
def test_matrix_types_of_decoders_images_and_text_to_text(names, left_out):
    assert type_names([*names, *left_out], MATRIX_TYPES) == names
    assert type_names([*names, *left_out], ("W_F2",)) == names[-1:]
