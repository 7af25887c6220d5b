import re
from pathlib import Path

import pytest
import torch

import sorakit.backbones
from sorakit.backbones import load_backbone, weights_fingerprint
from sorakit.config import BackboneConfig
from sorakit.objectives import objective
from tests.support.tiny_hub import write_model

LABELS = ("animals", "tools", "plants")
ENCODER = Path(sorakit.backbones.__file__).parent / "assets" / "encoder"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_model(tmp_path_factory.mktemp("hub") / "tiny"))


def load(name: str, labels: tuple[str, ...] = LABELS, *, random_init: bool = False):
    torch.manual_seed(3)
    return load_backbone(
        BackboneConfig(name=name, random_init=random_init),
        objective=objective("classification" if labels else "regression"),
        label_names=labels,
    )


def test_local_folder_loads_with_its_labels(folder):
    config = load(folder).model.config
    assert config.id2label == {0: "animals", 1: "tools", 2: "plants"}
    assert config.label2id == {"animals": 0, "tools": 1, "plants": 2}


def test_local_folder_loads_in_float32(folder):
    assert {p.dtype for p in load(folder).model.parameters()} == {torch.float32}


def test_tokenizer_of_a_local_folder_knows_its_words(folder):
    tokenizer = load(folder).text_tokenizer
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("the cat")["input_ids"])
    assert tokens == ["[CLS]", "the", "cat", "[SEP]"]


def test_regression_has_one_output(folder):
    config = load(folder, ()).model.config
    assert (config.num_labels, config.problem_type) == (1, "regression")


def test_head_is_drawn_from_the_global_generator(folder):
    first, second = (load(folder).model.get_parameter("classifier.weight") for _ in range(2))
    assert torch.equal(first, second)


def test_random_init_changes_the_weights(folder):
    assert load(folder, random_init=True).fingerprint != load(folder).fingerprint


def test_random_init_keeps_the_architecture(folder):
    first, second = load(folder).model, load(folder, random_init=True).model
    assert [(n, p.shape) for n, p in first.named_parameters()] == [
        (n, p.shape) for n, p in second.named_parameters()
    ]


def test_random_init_keeps_float32(folder):
    model = load(folder, random_init=True).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_attention_kernel_is_passed_on(folder):
    backbone = load_backbone(
        BackboneConfig(name=folder),
        objective=objective("classification"),
        label_names=LABELS,
        attention="eager",
    )
    assert backbone.model.config._attn_implementation == "eager"


def test_fingerprint_does_not_depend_on_the_head(folder):
    assert load(folder).fingerprint == load(folder, ("a", "b")).fingerprint


def test_fingerprint_changes_with_one_weight(folder):
    model = load(folder).model
    before = weights_fingerprint(model)
    with torch.no_grad():
        next(model.base_model.parameters()).flatten()[0] += 1e-3
    assert weights_fingerprint(model) != before


def test_fingerprint_takes_buffers_without_dimensions(folder):
    model = load(folder).model
    model.base_model.register_buffer("num_batches_tracked", torch.tensor(0))
    assert len(weights_fingerprint(model)) == 16


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder"])
def test_unknown_name_is_one_sentence(name):
    with pytest.raises(
        ValueError,
        match=r"\A`backbone\.name` must be embedded, a local model folder or a Hub id, "
        rf"got {re.escape(repr(name))}: [^\n]+\Z",
    ):
        load(name)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\A`backbone\.name` must be [^\n]+\Z"):
        load(str(tmp_path))


def test_folder_with_a_broken_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"\A`backbone\.name` must be [^\n]+\Z"):
        load(str(tmp_path))


@pytest.mark.skipif(
    not (ENCODER / "config.json").is_file(), reason=f"needs the encoder in {ENCODER}"
)
def test_embedded_encoder_loads():
    assert load("embedded").model.config.num_labels == 3
