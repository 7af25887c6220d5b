"""What every adapter promises, whichever file it stands in."""

import copy
import re

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from sorakit.adapters import Adapter, adapter
from sorakit.config import MethodConfig, RunConfig, StageConfig
from sorakit.method.prune import count_adapter_params, count_nonzero_params
from sorakit.records import FLOOR, PATH, role_of
from sorakit.variants import ADAPTERS

methods = pytest.mark.parametrize("method", ADAPTERS.names)


def built(model, method: str, **options) -> tuple[Adapter, PeftModel]:
    torch.manual_seed(0)
    if method == "lora_pattern":
        layers = "bert.encoder.layer.{}.attention.self.query"
        options = {"rank_pattern": {layers.format(0): 1, layers.format(1): 3}, **options}
    config = RunConfig(method=MethodConfig(name=method, r=2, **options))
    return adapter(method), adapter(method).build(model, config, head=["classifier"])


@torch.no_grad()
def perturb(model: PeftModel, generator: torch.Generator) -> None:
    """Move everything that is trained, as training would."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(10).view(2, 5)).logits


OWN = ("adapter", "random_subspace")
"""Those that PEFT does not have: `Adapter.load` reads them."""


@pytest.mark.parametrize("method", [name for name in ADAPTERS.names if name not in OWN])
def test_export_loads_with_peft_alone_and_gives_the_same_outputs(
    method, tiny_bert, generator, tmp_path
):
    base = copy.deepcopy(tiny_bert)
    variant, model = built(tiny_bert, method)
    perturb(model, generator)
    variant.export(model, tmp_path, base_model_name_or_path="x", task_type="SEQ_CLS")
    loaded = PeftModel.from_pretrained(base, str(tmp_path))
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "sora", "adalora", "dylora", "lora_svd", "head_only"])
def test_count_is_the_elements_of_the_exported_adapter(method, tiny_bert, generator, tmp_path):
    variant, model = built(tiny_bert, method)
    perturb(model, generator)
    variant.export(model, tmp_path, base_model_name_or_path="x", task_type="SEQ_CLS")
    written = load_file(tmp_path / "adapter_model.safetensors")
    elements = sum(value.numel() for name, value in written.items() if ".lora_" in name)
    matrices = variant.matrices(model)
    assert count_nonzero_params(matrices) == count_adapter_params(matrices) == elements


@pytest.mark.parametrize("method", OWN)
def test_export_of_an_own_adapter_is_read_by_its_method(method, tiny_bert, generator, tmp_path):
    base = copy.deepcopy(tiny_bert)
    config = RunConfig(method=MethodConfig(name=method, dimension=20, bottleneck=2))
    variant = adapter(method)
    model = variant.build(tiny_bert, config, head=["classifier"])
    perturb(model, generator)
    variant.export(model, tmp_path, base_model_name_or_path="x", task_type="SEQ_CLS")
    loaded = variant.load(base, tmp_path, config, head=["classifier"])
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)


COUNTS = {
    # 2 layers of BERT: hidden 8, intermediate 16
    "adapter": 2 * 2 * (2 * 8 * 3 + 3 + 8),  # 2 layers, 2 places: both weights, both biases
    "prefix": 2 * 2 * 4 * 8,  # keys and values of 4 positions in 2 layers
    "prompt": 4 * 8,
    "random_subspace": 20,
    "vera": 2 * (5 * 8 + 16) + 8 + 13 * 2,  # out + r of 6 matrices a layer and of the pooler
}


@pytest.mark.parametrize("method", COUNTS)
def test_count_follows_from_the_sizes(method, tiny_bert):
    options = {"bottleneck": 3, "virtual_tokens": 4, "dimension": 20}
    _, model = built(tiny_bert, method, **options)
    variant = adapter(method)
    assert variant.count(model) == variant.count_all(model) == COUNTS[method]


def test_count_of_full_tuning_and_of_biases_leaves_out_the_head(tiny_bert):
    below = [p for n, p in tiny_bert.named_parameters() if not n.startswith("classifier")]
    biases = [
        p
        for n, p in tiny_bert.named_parameters()
        if n.endswith("bias") and not n.startswith("classifier")
    ]
    for method, expected in (("full", below), ("bitfit", biases)):
        variant, model = built(copy.deepcopy(tiny_bert), method)
        assert variant.count(model) == sum(p.numel() for p in expected)


@pytest.mark.parametrize("method", ["adapter", "random_subspace", "adalora", "vera", "lora_svd"])
def test_nothing_is_added_before_training(method, tiny_bert):
    before = logits(tiny_bert)
    _, model = built(tiny_bert, method, dimension=20)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-6)


def test_pfeiffer_has_half_of_the_adapters_of_houlsby(tiny_bert):
    _, houlsby = built(copy.deepcopy(tiny_bert), "adapter")
    _, pfeiffer = built(tiny_bert, "adapter", placement="pfeiffer")
    assert 2 * adapter("adapter").count(pfeiffer) == adapter("adapter").count(houlsby)


def test_adalora_is_refused_a_budget_that_is_none():
    message = (
        "`method.target_r` must be in (0, method.r = 2], got 2.5. It is the average rank that is "
        "left."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunConfig(method=MethodConfig(name="adalora", r=2, target_r=2.5))


def test_dylora_of_one_rank_is_refused():
    message = (
        "`method.r` must be >= 2 when `method.name` is dylora, got 1. With one rank it is LoRA."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunConfig(method=MethodConfig(name="dylora", r=1))


@pytest.mark.parametrize("method", ["lora", "sora"])
def test_frozen_head_is_not_trained(method, tiny_bert):
    _, model = built(tiny_bert, method, train_head=False)
    assert not [n for n, p in model.named_parameters() if p.requires_grad and "classifier" in n]


def test_floor_needs_a_head_to_train():
    message = "`method.train_head` must be true when `method.name` is head_only, got False."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunConfig(method=MethodConfig(name="head_only", train_head=False))


def test_lora_has_no_controls():
    message = (
        "`stage.control` must be none when `method.name` is lora, got 'random_mask'. It has no "
        "sparsifying stages."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunConfig(method=MethodConfig(name="lora"), stage=StageConfig(control="random_mask"))


def test_only_gated_methods_are_paths_and_only_paths_have_controls():
    roles = {method: role_of(method, "none") for method in ADAPTERS.names}
    assert [m for m, role in roles.items() if role == PATH] == ["sora"]
    assert [m for m in ADAPTERS.names if adapter(m).has_gates] == ["sora"]
    assert (roles["head_only"], roles["lora"]) == (FLOOR, "lora")
    assert role_of("sora", "random_mask") == "random_mask"
    assert role_of("head_only", "shuffled_labels") == FLOOR


def test_role_of_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"^`method\.name` must be one of .*, got 'xyz'\.$"):
        role_of("xyz", "none")
