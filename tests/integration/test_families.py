"""What holds for every family with a classification head, from a tiny folder of each.

A result never depends on the batch, what does not fit is refused, layers without a gradient are not
adapted, sizes and head are found. A handful here, all of them where slow tests run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sorakit.adapters import adapter
from sorakit.backbones import Backbone, load_backbone
from sorakit.backbones.probe import logits_of
from sorakit.config import BackboneConfig, GatesConfig, MethodConfig, RunConfig, TaskConfig
from sorakit.method.targets import head_modules
from sorakit.method.tuner import gates
from sorakit.objectives import objective
from sorakit.training.compatibility import check_tokens, leave_out_unreached, settle_padding
from sorakit.training.data import TRAIN, AdaptationData, model_inputs
from tests.support.tiny_families import FAMILIES, HIDDEN, LAYERS, NOT_BUILT, WITH_HEAD, write_family
from tests.support.tiny_hub import task_of

FEW = ("bart", "bert", "distilbert", "esm", "fnet", "gemma3", "gpt2", "roberta", "t5gemma", "xlnet")
"""One of every kind: encoder, decoder, both, no attention mask, nested sizes, unused layers."""
WORDS = "the old cat was near a small bird and the new saw under".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[k % 5 : k % 5 + k]) for k in range(1, 9)]
BY_POSITION = {"bert", "bart", "distilbert", "gpt2", "roberta"}  # of FEW: a table of positions
WITHOUT_LINEAR_LAYERS = {"ibert", "squeezebert"}  # quantised ones, convolutions
UNREACHED = {  # layers that classification never uses
    "canine": {"final_char_encoder"},
    "esm": {"contact_head.regression"},
    "gemma3": {"vision_tower"},
}

families = pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name in FEW else (pytest.mark.slow,), id=name)
        for name in FAMILIES
    ],
)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    backbone: Backbone
    data: AdaptationData


def read(folder: Path, texts: Sequence[str] = TEXTS, *, max_length: int = 16) -> Loaded:
    torch.manual_seed(0)
    backbone = load_backbone(
        BackboneConfig(name=str(folder), random_init=True),
        objective=objective("classification"),
        label_names=("a", "b", "c"),
    )
    data = AdaptationData(
        task_of(texts, texts, names=("a", "b", "c")),
        backbone.tokenizer,
        max_length=max_length,
        memorization_examples=4,
        batch_size=4,
        eval_batch_size=8,
        seed=0,
    )
    return Loaded(backbone=backbone, data=data)


@pytest.fixture
def loaded(family: str, tmp_path: Path) -> Loaded:
    return read(write_family(tmp_path / "model", family))


def configuration() -> RunConfig:
    return RunConfig(
        task=TaskConfig(name="files"),
        method=MethodConfig(r=2),
        gates=GatesConfig(scale="unit"),
    )


def test_more_than_40_families_are_tried_and_the_others_have_a_reason():
    assert len(FAMILIES) > 40
    assert set(FEW) <= set(FAMILIES)
    assert set(FAMILIES) | set(NOT_BUILT) == set(WITH_HEAD)


@families
def test_result_of_an_example_does_not_depend_on_its_batch(loaded):
    model, data = loaded.backbone.model, loaded.data
    data.padding = settle_padding(model, data)
    rows = data.tokens[TRAIN].rows(range(len(TEXTS)))
    together = logits_of(model, model_inputs(data.collate(rows)))
    for index, row in enumerate(rows):
        alone = logits_of(model, model_inputs(data.collate([row])))[0]
        torch.testing.assert_close(together[index], alone, rtol=1e-4, atol=1e-4)


@families
def test_sizes_and_head_are_found(loaded, family):
    model = loaded.backbone.model
    assert loaded.backbone.hidden_size == (24 if family == "lilt" else HIDDEN)
    assert loaded.backbone.num_layers == LAYERS
    head = [model.get_submodule(name) for name in head_modules(model)]
    trained = {id(p) for module in head for p in module.parameters()}
    below = {id(p) for p in model.base_model.parameters()}
    pooler = {id(p) for name, p in model.base_model.named_parameters() if "pooler." in name}
    assert {id(p) for p in model.parameters()} - below <= trained
    assert trained & below <= pooler


@families
@pytest.mark.filterwarnings("ignore:.* layers are not adapted:UserWarning")
def test_every_adapted_layer_gets_a_gradient(loaded, family):
    data, model = loaded.data, loaded.backbone.model
    data.padding = settle_padding(model, data)
    head = head_modules(model)
    if family in WITHOUT_LINEAR_LAYERS:
        with pytest.raises(
            ValueError, match=r"^`method\.target_modules` must match a linear layer"
        ):
            leave_out_unreached(model, data, configuration(), head=head)
        return
    adapted, left_out = leave_out_unreached(model, data, configuration(), head=head)
    peft_model = adapter("sora").build(model, adapted, head=head)
    for gate in gates(peft_model).values():  # at 0, gates would hide those of the factors behind
        torch.nn.init.ones_(gate)
    rows = data.tokens[TRAIN].rows(range(len(TEXTS)))
    peft_model.eval()(**model_inputs(data.collate(rows))).logits.square().sum().backward()
    without = [name for name, gate in gates(peft_model).items() if gate.grad is None]
    assert not without
    for part in UNREACHED.get(family, ()):
        assert any(part in name for name in left_out)
    if family in FEW and family not in UNREACHED:
        assert left_out == []


@families
def test_token_without_an_embedding_is_refused(loaded):
    model = loaded.backbone.model
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        table = None
    if not isinstance(table, torch.nn.Embedding):
        pytest.skip("hashes characters: every token has an embedding")
    largest = loaded.data.tokens[TRAIN].largest("input_ids")
    assert largest is not None
    table.num_embeddings = largest[0]
    with pytest.raises(ValueError, match=r"^`backbone\.name` must have an embedding for every tok"):
        check_tokens(model, loaded.data, name="tiny")


@families
@pytest.mark.filterwarnings("ignore:The longest input:UserWarning")
def test_input_longer_than_the_positions_is_refused_with_the_longest_that_fits(family, tmp_path):
    long = " ".join(WORDS * 5)
    folder = write_family(tmp_path / "model", family)
    loaded = read(folder, [*TEXTS, long], max_length=64)
    try:
        padding = settle_padding(loaded.backbone.model, loaded.data)
    except ValueError as error:
        words = str(error)
        assert words.startswith("`task.max_length` must be <= ")
        limit = int(words.removeprefix("`task.max_length` must be <= ").partition(",")[0])
        assert 30 <= limit <= 42  # 40, and what the family takes off or adds
        if family != "mpnet":  # its padding is token 1 whatever it is told, here the unknown word
            fitting = read(folder, [*TEXTS, long], max_length=limit)
            settle_padding(fitting.backbone.model, fitting.data)
    else:  # relative positions: the long input has a result
        assert family not in BY_POSITION
        loaded.data.padding = padding
        rows = loaded.data.tokens[TRAIN].rows([len(TEXTS)])
        batch = model_inputs(loaded.data.collate(rows))
        assert logits_of(loaded.backbone.model, batch).isfinite().all()
