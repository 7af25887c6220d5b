import copy
import re
from typing import Any

import pytest
import torch
from peft import ArrowConfig, LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from sorakit.config import MethodConfig
from sorakit.method.optimizer import ProxAdamW, ProxSGD
from sorakit.method.tuner import (
    GatedB,
    SoraConfig,
    SoraModel,
    adapted_matrices,
    gates,
)

TARGETS = ["query", "value"]
LABELS: dict[str, Any] = {"num_labels": 3}


@pytest.fixture
def inputs(generator) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(0, 64, (3, 7), generator=generator)}


class TinyConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def tiny_gpt2() -> GPT2ForSequenceClassification:
    config = GPT2Config(
        vocab_size=64, n_embd=8, n_layer=2, n_head=2, n_positions=32, pad_token_id=0, **LABELS
    )
    torch.manual_seed(0)
    return GPT2ForSequenceClassification(config)


def adapt(model: nn.Module, adapter_name: str = "default", **options: Any) -> Any:
    settings = {"r": 4, "target_modules": TARGETS, **options}
    return get_peft_model(
        model,  # pyright: ignore[reportArgumentType]  # any module will do
        SoraConfig(**settings),
        adapter_name=adapter_name,
    )


def randomise(model: nn.Module, generator: torch.Generator, adapter_name: str = "default") -> None:
    """Draw A, B and gates, one gate of each matrix exactly 0."""
    with torch.no_grad():
        for matrix in adapted_matrices(model, adapter_name):
            for parameter in (matrix.lora_A, matrix.lora_B, matrix.gate):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            matrix.gate[1] = 0


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model.eval()(**inputs).logits


# Forward -------------------------------------------------------------------------------------


def test_adapter_is_the_identity_at_the_start(tiny_bert, inputs):
    before = logits(tiny_bert, inputs)
    assert torch.equal(logits(adapt(tiny_bert), inputs), before)


def test_unit_scale_adapter_is_the_identity_at_the_start(tiny_bert, inputs):
    before = logits(tiny_bert, inputs)
    assert torch.equal(logits(adapt(tiny_bert, gate_scale="unit"), inputs), before)


def test_gate_1_equals_peft_lora(tiny_bert, inputs, generator):
    lora: Any = get_peft_model(
        copy.deepcopy(tiny_bert), LoraConfig(r=4, lora_alpha=16, target_modules=TARGETS)
    )
    sora = adapt(tiny_bert, lora_alpha=16.0)
    randomise(sora, generator)
    with torch.no_grad():
        for matrix in adapted_matrices(sora):
            matrix.gate.fill_(1)
            layer = lora.base_model.model.get_submodule(matrix.name)
            layer.lora_A["default"].weight.copy_(matrix.lora_A)
            layer.lora_B["default"].weight.copy_(matrix.lora_B)
    torch.testing.assert_close(logits(sora, inputs), logits(lora, inputs), rtol=1e-6, atol=1e-8)


def test_gate_0_equals_the_base_layer(tiny_bert, inputs, generator):
    before = logits(tiny_bert, inputs)
    model = adapt(tiny_bert)
    randomise(model, generator)
    with torch.no_grad():
        for gate in gates(model).values():
            gate.zero_()
    assert torch.equal(logits(model, inputs), before)


@pytest.mark.filterwarnings("ignore:`target_modules` should leave the task head:UserWarning")
def test_forward_follows_eq_9(tiny_bert, generator):
    model = adapt(tiny_bert, target_modules=["classifier"], lora_alpha=6.0)
    randomise(model, generator)
    (matrix,) = adapted_matrices(model)
    layer = model.base_model.model.classifier
    x = torch.randn(5, 8, generator=generator)
    with torch.no_grad():
        z = (6.0 / 4) * (x @ matrix.lora_A.T * matrix.gate) @ matrix.lora_B.T
        torch.testing.assert_close(layer(x), layer.base_layer(x) + z)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, 1.0),
        ({"gate_scale": "unit"}, 0.0),
        ({"gate_init": "zeros"}, 0.0),
        ({"gate_init": "ones", "gate_scale": "unit"}, 1.0),
    ],
)
def test_gates_start_at(options, value, tiny_bert):
    model = adapt(tiny_bert, **options)
    assert [gate.tolist() for gate in gates(model).values()] == [[value] * 4] * 4


def test_normal_gates_are_drawn(tiny_bert):
    model = adapt(tiny_bert, gate_init="normal")
    assert torch.cat(list(gates(model).values())).unique().numel() == 16


def test_unit_scale_starts_at_norm_1(tiny_bert):
    model = adapt(tiny_bert, gate_scale="unit")
    for matrix in adapted_matrices(model):
        torch.testing.assert_close(matrix.lora_A.norm(dim=1), torch.ones(4))
        torch.testing.assert_close(matrix.lora_B.norm(dim=0), torch.ones(4))


def test_only_factors_and_gates_train(tiny_bert):
    model = adapt(tiny_bert)
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert trainable == {
        id(p) for m in adapted_matrices(model) for p in (m.lora_A, m.lora_B, m.gate)
    }


def test_every_gate_gets_a_gradient(tiny_bert, inputs, generator):
    model = adapt(tiny_bert)
    randomise(model, generator)
    model(**inputs).logits.sum().backward()
    assert all(gate.grad is not None for gate in gates(model).values())


# Triples -------------------------------------------------------------------------------------


def test_triples_are_the_parameters_themselves(tiny_bert):
    model = adapt(tiny_bert)
    ours = {id(p) for p in model.parameters()}
    for matrix in adapted_matrices(model):
        assert {id(matrix.lora_A), id(matrix.lora_B), id(matrix.gate)} <= ours


def test_triples_have_the_shapes_of_loralib(tiny_bert):
    model = adapt(tiny_bert, target_modules=["intermediate.dense"])
    shapes = {(m.lora_A.shape, m.lora_B.shape, m.gate.shape) for m in adapted_matrices(model)}
    assert shapes == {((4, 8), (16, 4), (4,))}


def test_triples_carry_the_scaling_of_the_initial_rank(tiny_bert):
    model = adapt(tiny_bert, r=4, lora_alpha=6.0)
    assert {m.scaling for m in adapted_matrices(model)} == {1.5}


def test_params_per_rank_is_in_plus_out(tiny_bert):
    model = adapt(tiny_bert, target_modules=["intermediate.dense"])
    assert {m.params_per_rank for m in adapted_matrices(model)} == {24}


def test_strengths_are_the_products_of_the_three_sizes(tiny_bert, generator):
    model = adapt(tiny_bert)
    randomise(model, generator)
    matrix = adapted_matrices(model)[0]
    with torch.no_grad():
        expected = [
            (abs(matrix.gate[i]) * matrix.lora_A[i].norm() * matrix.lora_B[:, i].norm()).item()
            for i in range(4)
        ]
    assert matrix.strengths().tolist() == pytest.approx(expected, rel=1e-6)


def test_strengths_do_not_change_when_scale_is_traded(tiny_bert, generator):
    model = adapt(tiny_bert)
    randomise(model, generator)
    matrix = adapted_matrices(model)[0]
    before = matrix.strengths()
    with torch.no_grad():
        matrix.lora_A.mul_(4)
        matrix.gate.div_(4)
    assert torch.equal(matrix.strengths(), before)


def test_gates_are_named_by_their_module_in_the_base_model(tiny_bert):
    names = [name for name, m in tiny_bert.named_modules() if name.endswith(tuple(TARGETS))]
    assert list(gates(adapt(tiny_bert))) == names


def test_model_without_sora_has_no_gates(tiny_bert):
    assert gates(tiny_bert) == {}
    assert adapted_matrices(tiny_bert) == []


# Configuration -------------------------------------------------------------------------------


def test_config_defaults_are_those_of_a_run():
    config, method = SoraConfig(), MethodConfig()
    assert (config.r, config.lora_alpha, config.lora_dropout, config.gate_init) == (
        method.r,
        method.lora_alpha,
        method.lora_dropout,
        method.gate_init,
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("use_qalora", True),
        ("lora_bias", True),
        ("use_bdlora", {"nblocks": 2}),
        ("kasa_config", {"beta": 1e-4}),
        ("velora_config", {"num_groups": 2}),
        ("monteclora_config", {"num_samples": 2}),
        ("arrow_config", ArrowConfig()),
        ("alora_invocation_tokens", [1]),
        ("target_parameters", ["a.weight"]),
        ("layer_replication", [(0, 2)]),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("trainable_token_indices", [1]),
    ],
)
def test_unsupported_option_is_named(option, value):
    message = f"`{option}` must be unset with SoRA, got {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SoraConfig(target_modules=TARGETS, **{option: value})


@pytest.mark.parametrize("value", ["all", "lora_only"])
def test_trained_biases_are_refused(value):
    message = (
        f"`bias` must be 'none' with SoRA, got {value!r}. Trained biases would be neither counted "
        "nor exported."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SoraConfig(target_modules=TARGETS, bias=value)


@pytest.mark.parametrize("value", ["pissa", "olora", "pissa_niter_4", "eva", "corda", "loftq"])
def test_initialisation_that_changes_the_base_weight_is_refused(value):
    message = (
        "`init_lora_weights` must be True, False, 'gaussian' or 'orthogonal' with SoRA, "
        f"got {value!r}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SoraConfig(target_modules=TARGETS, init_lora_weights=value)


def test_embedding_target_is_refused_by_name(tiny_bert):
    message = (
        "`target_modules` must name layers with lora_A and lora_B, got "
        "'bert.embeddings.word_embeddings' (Embedding). SoRA cannot gate it; leave it out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        adapt(tiny_bert, target_modules=["word_embeddings"])


def test_layer_under_a_tensor_parallel_plan_is_refused_by_name(tiny_bert):
    name = "bert.encoder.layer.0.attention.self.query"
    # transformers >= 5.17 plans in the model, PEFT writes the plan to the layer as they did before
    tiny_bert.get_submodule(name)._hf_tp_plan = "colwise"
    message = (
        f"`target_modules` must name layers without tensor parallelism, got {name!r} with the "
        "plan 'colwise'. SoRA's gate is not sharded; use data parallelism."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        adapt(tiny_bert)


def test_lora_cannot_join_a_sora_model(tiny_bert):
    model = adapt(tiny_bert)
    with pytest.raises(ValueError, match=r"^Cannot combine adapters with different peft types\."):
        model.add_adapter("plain", LoraConfig(target_modules=TARGETS))


def test_sora_cannot_join_a_lora_model(tiny_bert):
    model = get_peft_model(tiny_bert, LoraConfig(target_modules=TARGETS))
    with pytest.raises(ValueError, match=r"^Cannot combine adapters with different peft types\."):
        model.add_adapter("gated", SoraConfig(target_modules=TARGETS))


def test_mixed_model_is_refused_by_peft(tiny_bert):
    with pytest.raises(ValueError, match=r"^The provided `peft_type` 'SORA' is not compatible"):
        get_peft_model(tiny_bert, SoraConfig(target_modules=TARGETS), mixed=True)


def test_quantised_layer_that_peft_does_not_know_is_refused_by_peft(tiny_bert):
    class Int8Linear(nn.Module):
        weight: torch.Tensor

    tiny_bert.classifier = Int8Linear()
    with pytest.raises(ValueError, match=r"^Target module Int8Linear\(\) is not supported\."):
        adapt(tiny_bert, target_modules=["classifier"])


def test_weighted_sum_of_adapters_is_refused(tiny_bert):
    model = adapt(tiny_bert)
    message = "SoRA adapters cannot be added up. Use `export_lora`, then PEFT's LoRA."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        model.add_weighted_adapter(["default"], [1.0], "sum")


# Other layers --------------------------------------------------------------------------------


def test_conv1d_of_gpt2_is_gated(inputs, generator):
    model = adapt(tiny_gpt2(), target_modules=["c_attn"], fan_in_fan_out=True)
    randomise(model, generator)
    shapes = {(m.lora_A.shape, m.lora_B.shape, m.fan_in_fan_out) for m in adapted_matrices(model)}
    assert shapes == {((4, 8), (24, 4), True)}


def test_gate_0_equals_the_conv1d(inputs, generator):
    base = tiny_gpt2()
    before = logits(base, inputs)
    model = adapt(base, target_modules=["c_attn"], fan_in_fan_out=True)
    randomise(model, generator)
    with torch.no_grad():
        for gate in gates(model).values():
            gate.zero_()
    assert torch.equal(logits(model, inputs), before)


def test_conv2d_is_gated(generator):
    model = adapt(TinyConv(), target_modules=["conv"])
    randomise(model, generator)
    (matrix,) = adapted_matrices(model)
    layer = model.base_model.model.conv
    x = torch.randn(2, 3, 5, 5, generator=generator)
    with torch.no_grad():
        down = nn.functional.conv2d(x, matrix.lora_A, padding=1)
        up = nn.functional.conv2d(down * matrix.gate.view(1, -1, 1, 1), matrix.lora_B)
        expected = layer.base_layer(x) + matrix.scaling * up
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


# Saving and merging --------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["free", "unit"])
def test_saved_adapter_loads_exactly_under_another_name(
    scale, tiny_bert, inputs, generator, tmp_path
):
    base = copy.deepcopy(tiny_bert)
    model = adapt(tiny_bert, gate_scale=scale, modules_to_save=["classifier"])
    randomise(model, generator)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base, tmp_path, adapter_name="other")
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))


def test_saved_adapter_is_a_sora_adapter(tiny_bert, tmp_path):
    adapt(tiny_bert, gate_scale="unit").save_pretrained(tmp_path)
    config = SoraConfig.from_pretrained(tmp_path)
    assert isinstance(config, SoraConfig)
    assert config.gate_scale == "unit"


def test_loaded_gates_train_when_asked(tiny_bert, tmp_path):
    base = copy.deepcopy(tiny_bert)
    adapt(tiny_bert).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    assert all(gate.requires_grad for gate in gates(loaded).values())


def test_loaded_gates_do_not_train_otherwise(tiny_bert, tmp_path):
    base = copy.deepcopy(tiny_bert)
    adapt(tiny_bert).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base, tmp_path)
    assert not any(gate.requires_grad for gate in gates(loaded).values())


def test_merge_keeps_the_function(tiny_bert, inputs, generator):
    model = adapt(tiny_bert)
    randomise(model, generator)
    before = logits(model, inputs)
    merged = model.merge_and_unload()  # pyright: ignore[reportCallIssue]  # of SoraModel
    torch.testing.assert_close(logits(merged, inputs), before, rtol=1e-5, atol=1e-6)


def test_merge_keeps_the_function_of_a_convolution(generator):
    model = adapt(TinyConv(), target_modules=["conv"])
    randomise(model, generator)
    x = torch.randn(2, 3, 5, 5, generator=generator)
    with torch.no_grad():
        before = model(x)
        torch.testing.assert_close(model.merge_and_unload()(x), before, rtol=1e-5, atol=1e-5)


def test_unmerge_restores_the_function(tiny_bert, inputs, generator):
    model = adapt(tiny_bert)
    randomise(model, generator)
    before = logits(model, inputs)
    model.merge_adapter()
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model, inputs), before, rtol=1e-5, atol=1e-6)


def test_bfloat16_base_keeps_float32_gates(tiny_bert):
    model = adapt(tiny_bert.to(torch.bfloat16))
    assert {gate.dtype for gate in gates(model).values()} == {torch.float32}


def test_bfloat16_factors_keep_float32_gates(tiny_bert):
    model = get_peft_model(
        tiny_bert.to(torch.bfloat16),
        SoraConfig(r=4, target_modules=TARGETS),
        autocast_adapter_dtype=False,
    )
    dtypes = {(m.lora_B.dtype, m.gate.dtype) for m in adapted_matrices(model)}
    assert dtypes == {(torch.bfloat16, torch.float32)}


@pytest.mark.parametrize("scale", ["free", "unit"])
def test_adapter_loads_exactly_with_low_cpu_mem_usage(
    scale, tiny_bert, inputs, generator, tmp_path
):
    base = copy.deepcopy(tiny_bert)
    model = adapt(tiny_bert, gate_scale=scale, rank_pattern={"query": 2})
    randomise(model, generator)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base, tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))


def test_disabled_adapter_gives_the_base_model(tiny_bert, inputs, generator):
    before = logits(tiny_bert, inputs)
    model = adapt(tiny_bert, modules_to_save=["classifier"])
    randomise(model, generator)
    with torch.no_grad():
        model.base_model.model.classifier.modules_to_save["default"].weight.add_(1)
    with model.disable_adapter():
        assert torch.equal(logits(model, inputs), before)


def test_adapter_is_back_after_being_disabled(tiny_bert, inputs, generator):
    model = adapt(tiny_bert)
    randomise(model, generator)
    before = logits(model, inputs)
    with model.disable_adapter():
        assert not torch.equal(logits(model, inputs), before)
    assert torch.equal(logits(model, inputs), before)


def test_unload_gives_the_base_model(tiny_bert, inputs, generator):
    before = logits(tiny_bert, inputs)
    model = adapt(tiny_bert)
    randomise(model, generator)
    assert torch.equal(logits(model.unload(), inputs), before)


def test_transformers_loads_a_saved_adapter(tiny_bert, inputs, generator, tmp_path):
    base = copy.deepcopy(tiny_bert)
    model = adapt(tiny_bert)
    randomise(model, generator)
    model.save_pretrained(tmp_path)
    base.load_adapter(str(tmp_path))
    assert torch.equal(logits(base, inputs), logits(model, inputs))


def test_rank_pattern_sets_the_gates_of_a_module(tiny_bert):
    model = adapt(tiny_bert, rank_pattern={"query": 2}, alpha_pattern={"query": 3})
    found = {(m.name.rpartition(".")[2], len(m.gate), m.scaling) for m in adapted_matrices(model)}
    assert found == {("query", 2, 1.5), ("value", 4, 4.0)}


def test_rank_stabilised_scaling_is_alpha_over_the_root_of_r(tiny_bert):
    model = adapt(tiny_bert, use_rslora=True, lora_alpha=6.0)
    assert {m.scaling for m in adapted_matrices(model)} == {3.0}


def test_all_linear_leaves_a_tied_language_model_head_out():
    config = GPT2Config(
        vocab_size=64, n_embd=8, n_layer=1, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0
    )
    model = adapt(GPT2LMHeadModel(config), target_modules="all-linear", fan_in_fan_out=True)
    assert list(gates(model)) == [
        f"transformer.h.0.{name}"
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ]


def test_target_that_matches_nothing_is_refused_by_peft(tiny_bert):
    with pytest.raises(ValueError, match=r"^Target modules \{'absent'\} not found"):
        adapt(tiny_bert, target_modules=["absent"])


# Several adapters ----------------------------------------------------------------------------


def adapt_twice(model: nn.Module, generator: torch.Generator) -> Any:
    """Adapt with `default` on queries and values and `second` on keys, both drawn at random."""
    adapted = adapt(model)
    adapted.add_adapter("second", SoraConfig(r=2, target_modules=["key"]))
    randomise(adapted, generator)
    randomise(adapted, generator, "second")
    return adapted


def test_switching_adapters_changes_the_function_back_and_forth(tiny_bert, inputs, generator):
    model = adapt_twice(tiny_bert, generator)
    first = logits(model, inputs)
    model.set_adapter("second")
    assert not torch.equal(logits(model, inputs), first)
    model.set_adapter("default")
    assert torch.equal(logits(model, inputs), first)


def test_only_gates_of_the_active_adapter_train(tiny_bert, generator):
    model = adapt_twice(tiny_bert, generator)
    model.set_adapter("second")
    trains = [
        g.requires_grad for name in ("default", "second") for g in gates(model, name).values()
    ]
    assert trains == [False] * 4 + [True] * 2


def test_examples_of_a_batch_choose_their_adapter(tiny_bert, inputs, generator):
    model = adapt_twice(tiny_bert, generator)
    expected = [logits(model, inputs)[0]]
    model.set_adapter("second")
    expected.append(logits(model, inputs)[1])
    with model.disable_adapter():
        expected.append(logits(model, inputs)[2])
    with torch.no_grad():
        mixed = model(**inputs, adapter_names=["default", "second", "__base__"]).logits
    torch.testing.assert_close(mixed, torch.stack(expected))


def test_deleting_an_adapter_leaves_the_other(tiny_bert, inputs, generator):
    model = adapt_twice(tiny_bert, generator)
    model.set_adapter("second")
    before = logits(model, inputs)
    model.delete_adapter("default")
    assert gates(model) == {}
    assert torch.equal(logits(model, inputs), before)


def test_merging_one_adapter_leaves_the_other_on_top(tiny_bert, inputs, generator):
    model = adapt_twice(tiny_bert, generator)
    model.base_model.set_adapter(["default", "second"])
    before = logits(model, inputs)
    model.merge_adapter(["default"])
    torch.testing.assert_close(logits(model, inputs), before, rtol=1e-5, atol=1e-6)


def test_two_adapters_have_gates_of_their_own(tiny_bert, inputs, generator):
    model = adapt(tiny_bert)
    model.add_adapter("second", SoraConfig(r=2, target_modules=["key"]))
    assert [gate.numel() for gate in gates(model, "second").values()] == [2, 2]
    assert [gate.numel() for gate in gates(model).values()] == [4] * 4


def test_tuner_is_a_sora_model(tiny_bert):
    assert isinstance(adapt(tiny_bert).base_model, SoraModel)


@pytest.mark.filterwarnings("ignore:`target_modules` should leave the task head:UserWarning")
def test_up_projection_is_replaced_everywhere(tiny_bert):
    model = adapt(tiny_bert, target_modules="all-linear")
    gated = [m for m in model.modules() if isinstance(m, GatedB)]
    assert len(gated) == len(adapted_matrices(model)) == 14  # 2 layers of 6, pooler, head


# The task head -------------------------------------------------------------------------------


def test_head_that_would_be_adapted_as_it_was_drawn_is_warned_of(tiny_bert):
    message = (
        r"^`target_modules` should leave the task head to be trained in full, but names "
        r"classifier\..* Set `task_type` \(SEQ_CLS for a sequence classifier\) or `modules_to_save`"
    )
    with pytest.warns(UserWarning, match=message):
        get_peft_model(tiny_bert, SoraConfig(r=4, target_modules="all-linear"))


@pytest.mark.parametrize(
    "options", [{"task_type": "SEQ_CLS"}, {"modules_to_save": ["classifier"]}], ids=["type", "save"]
)
def test_head_that_is_trained_in_full_is_not_adapted(options, tiny_bert):
    # warnings are errors here
    model = get_peft_model(tiny_bert, SoraConfig(r=4, target_modules="all-linear", **options))
    assert not any("classifier" in name for name in gates(model))


def test_pre_trained_output_layer_is_no_head():
    config = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=32, tie_word_embeddings=False)
    model = adapt(GPT2LMHeadModel(config), target_modules=["lm_head"])  # warnings are errors here
    assert list(gates(model)) == ["lm_head"]


# Precision and checkpointing -----------------------------------------------------------------


def train_step(model: nn.Module, inputs: dict[str, torch.Tensor], *, xi: float) -> None:
    vectors = gates(model)
    optimizer = ProxAdamW([{"params": list(vectors.items()), "lr": 1.0, "xi": xi}], lr=0.1)
    model(**inputs).logits.float().square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("autocast_adapter_dtype", [True, False])
def test_small_xi_moves_gates_on_a_bfloat16_base(autocast_adapter_dtype, tiny_bert, inputs):
    model = get_peft_model(
        tiny_bert.to(torch.bfloat16),
        SoraConfig(r=4, target_modules=TARGETS),
        autocast_adapter_dtype=autocast_adapter_dtype,
    )
    train_step(model, inputs, xi=1e-4)  # lora_B is 0, so nothing but xi moves them
    expected = torch.full((4,), 1 - 1e-4)
    assert all(torch.equal(gate, expected) for gate in gates(model).values())


def test_small_xi_moves_gates_under_autocast(tiny_bert, inputs):
    model = adapt(tiny_bert)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train_step(model, inputs, xi=1e-4)
    expected = torch.full((4,), 1 - 1e-4)
    assert all(torch.equal(gate, expected) for gate in gates(model).values())


def test_autocast_computes_in_bfloat16(tiny_bert, inputs, generator):
    model = adapt(tiny_bert)
    randomise(model, generator)
    layer = model.base_model.model.bert.encoder.layer[0].attention.self.query
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.lora_B["default"](torch.ones(1, 4)).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_of_transformers_keeps_the_gradients_of_gates(
    use_reentrant, tiny_bert, inputs, generator
):
    model = adapt(tiny_bert)
    randomise(model, generator)
    model.train()
    model(**inputs).logits.square().sum().backward()
    expected = [gate.grad for gate in gates(model).values()]
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model(**inputs).logits.square().sum().backward()
    for gate, gradient in zip(gates(model).values(), expected, strict=True):
        torch.testing.assert_close(gate.grad, gradient)


class Checkpointed(nn.Module):
    """Checkpoints a linear layer whose input, as that of a frozen embedding, has no gradient."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 1)
        self.use_reentrant = use_reentrant

    def forward(self, x: torch.Tensor) -> Any:
        hidden = checkpoint(self.layer, x, use_reentrant=self.use_reentrant)
        assert isinstance(hidden, torch.Tensor)
        return self.head(hidden)


def test_gate_that_reentrant_checkpointing_cuts_off_is_named(generator):
    model = adapt(
        Checkpointed(use_reentrant=True), target_modules=["layer"], modules_to_save=["head"]
    )
    optimizer = ProxSGD(gates(model).items(), lr=1.0, xi=0.1)
    with pytest.warns(UserWarning, match=r"^None of the inputs have requires_grad=True"):
        model(torch.randn(2, 4, generator=generator)).sum().backward()
    message = (
        "`grad` of a gate must not be None, got None for 1 of 1 gates, first 'layer'. Thresholding "
        "a gate without a gradient prunes it whatever the data say: check that every adapted "
        "module is used in the forward pass, and that gradient checkpointing is not reentrant."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizer.step()


def test_checkpointing_that_is_not_reentrant_keeps_the_gradient_of_the_gate(generator):
    model = adapt(
        Checkpointed(use_reentrant=False), target_modules=["layer"], modules_to_save=["head"]
    )
    randomise(model, generator)
    model(torch.randn(2, 4, generator=generator)).sum().backward()
    (gate,) = gates(model).values()
    assert gate.grad is not None
    assert torch.count_nonzero(gate.grad) == 4
