"""DeBERTaV3 and RoBERTa through the code that runs them, from folders as the Hub has them."""

from pathlib import Path

import pytest
import torch

from sorakit.adapters import adapter
from sorakit.backbones import load_backbone
from sorakit.config import BackboneConfig, MethodConfig, RunConfig
from sorakit.method.matrix_types import MATRIX_TYPES
from sorakit.method.targets import head_modules, resolve_target_modules
from sorakit.objectives import objective
from sorakit.records import load_run
from sorakit.training.run import run
from sorakit.variants import ADAPTERS
from tests.support.paper_models import HIDDEN, INTERMEDIATE, LAYERS, WRITERS
from tests.support.tiny_hub import tiny_run, write_task

METHODS = tuple(name for name in ADAPTERS.names if name not in ("sora", "lora_pattern"))
families = pytest.mark.parametrize("family", WRITERS)
ENDINGS = {
    "deberta_v3": {"W_Q": "query_proj", "W_K": "key_proj", "W_V": "value_proj"},
    "roberta": {"W_Q": "query", "W_K": "key", "W_V": "value"},
}
REST = {"W_O": "attention.output.dense", "W_F1": "intermediate.dense", "W_F2": "output.dense"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paper")
    write_task(root / "task")
    for family, write in WRITERS.items():
        write(root / family)
    (root / "model").mkdir()  # `tiny_run` writes one where there is none
    return root


def backbone_of(hub: Path, family: str):
    torch.manual_seed(0)
    return load_backbone(
        BackboneConfig(name=str(hub / family)),
        objective=objective("classification"),
        label_names=("a", "b"),
    )


@families
def test_tokenizer_is_made_of_the_files_that_are_there(family, hub):
    tokenizer = backbone_of(hub, family).text_tokenizer
    text = "the cat is near the bird"
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == text
    assert tokenizer.unk_token_id not in ids


@families
@pytest.mark.parametrize("kind", MATRIX_TYPES)
def test_matrix_type_is_that_matrix_of_every_layer(family, kind, hub):
    model = backbone_of(hub, family).model
    names = resolve_target_modules(model, [kind], exclude=head_modules(model))
    ending = ({**ENDINGS[family], **REST})[kind]
    assert len(names) == LAYERS
    assert all(name.endswith(ending) for name in names)
    assert kind == "W_O" or not any("attention.output" in name for name in names)


@families
def test_six_types_are_every_linear_layer_below_the_head(family, hub):
    model = backbone_of(hub, family).model
    head = head_modules(model)
    six = resolve_target_modules(model, list(MATRIX_TYPES), exclude=head)
    assert six == resolve_target_modules(model, "all-linear", exclude=head)


def test_types_of_a_family_that_is_not_known_are_refused(hub):
    layers = torch.nn.ModuleDict({"one": torch.nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=r"^`method\.target_modules` must be all-linear, .* BERT"):
        resolve_target_modules(layers, ["W_Q"])  # pyright: ignore[reportArgumentType]  # any module


@families
def test_path_runs_and_counts_every_matrix_by_its_own_size(family, hub):
    sections = {
        "task": {"max_length": 64},
        "backbone": {"name": str(hub / family)},
        "method": {"target_modules": list(MATRIX_TYPES), "r": 4},
        "dense": {"max_epochs": 1},
    }
    config = tiny_run(hub, out_dir=f"path-{family}", levels=(0.05,), sections=sections)
    stages = load_run(run(config, show_progress=False).path).stages
    square, ffn = 2 * HIDDEN, HIDDEN + INTERMEDIATE
    assert stages["num_adapter_params"].tolist() == 2 * [LAYERS * 4 * (4 * square + 2 * ffn)]
    assert stages["memorization"].between(0, 1).all()


@families
@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_a_step(method, family, hub):
    backbone = backbone_of(hub, family)
    config = RunConfig(method=MethodConfig(name=method, r=2, dimension=16, bottleneck=2))
    variant = adapter(method)
    head = head_modules(backbone.model)
    if (method, family) == ("prefix", "deberta_v3"):
        message = r"^`method\.name` must be another one than prefix for Deberta.*past_key_values"
        with pytest.raises(ValueError, match=message):
            variant.build(backbone.model, config, head=head)
        return
    model = variant.build(backbone.model, config, head=head)
    inputs = backbone.text_tokenizer(
        ["the cat is near", "a saw"], padding=True, return_tensors="pt"
    )
    loss = model(**inputs).logits.square().sum()
    loss.backward()
    moved = [p for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert sum(p.numel() for p in moved) >= variant.count_all(model)
    assert method == "head_only" or variant.count_all(model) > 0
