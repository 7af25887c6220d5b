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


@methods
def test_export_loads_with_peft_alone_and_gives_the_same_outputs(
    method, tiny_bert, generator, tmp_path
):
    base = copy.deepcopy(tiny_bert)
    variant, model = built(tiny_bert, method)
    perturb(model, generator)
    variant.export(model, tmp_path, base_model_name_or_path="x", task_type="SEQ_CLS")
    loaded = PeftModel.from_pretrained(base, str(tmp_path))
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-5)


@methods
def test_count_is_the_elements_of_the_exported_adapter(method, tiny_bert, generator, tmp_path):
    variant, model = built(tiny_bert, method)
    perturb(model, generator)
    variant.export(model, tmp_path, base_model_name_or_path="x", task_type="SEQ_CLS")
    written = load_file(tmp_path / "adapter_model.safetensors")
    elements = sum(value.numel() for name, value in written.items() if ".lora_" in name)
    matrices = variant.matrices(model)
    assert count_nonzero_params(matrices) == count_adapter_params(matrices) == elements


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
