import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2Model

from sorakit.method.fused import GatedLinear
from sorakit.method.tuner import SoraConfig, adapted_matrices
from tests.support.plain_path import computed_by_peft

NAME = "GatedLinearFunctionBackward"
SHAPES = [(5, 8), (2, 3, 8), (2, 1, 3, 8), (8,)]


class Net(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def adapt(layer: nn.Module, generator: torch.Generator, **options: Any) -> Any:
    """Adapt a layer with random factors and gates, one gate exactly 0."""
    config = SoraConfig(**{"r": 4, "target_modules": ["layer"], **options})
    model = get_peft_model(Net(layer), config)  # pyright: ignore[reportArgumentType]  # any module
    with torch.no_grad():
        for matrix in adapted_matrices(model):
            for parameter in (matrix.lora_A, matrix.lora_B, matrix.gate):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            matrix.gate[1] = 0
    return model


def adapted_layer(model: Any) -> Any:
    return model.base_model.model.layer


def gradients(model: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the output and all gradients of a loss that weighs every output differently."""
    x = x.detach().clone().requires_grad_()
    out = model(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    (out * weights).sum().backward()
    (matrix,) = adapted_matrices(model)
    found = {"A": matrix.lora_A, "B": matrix.lora_B, "gate": matrix.gate, "x": x}
    return {"output": out, **{name: tensor.grad for name, tensor in found.items()}}


def is_fused(output: torch.Tensor) -> bool:
    """Whether the function, or a view of what it returned, made this output."""
    node = output.grad_fn
    assert node is not None
    return NAME in (node.name(), *(n.name() for n, _ in node.next_functions if n is not None))


def assert_same(model: Any, x: torch.Tensor, *, tolerance: float) -> None:
    expected, found = gradients(computed_by_peft(model), x), gradients(model, x)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        error = (found[name] - value).abs().max() / value.abs().max()
        assert error <= tolerance, name


# The same numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-14)])
def test_output_and_gradients_are_those_of_peft(dtype, tolerance, bias, shape, generator):
    model = adapt(nn.Linear(8, 6, bias=bias), generator).to(dtype)
    x = torch.randn(shape, generator=generator).to(dtype)
    assert is_fused(model(x))
    assert_same(model, x, tolerance=tolerance)


def test_dead_gate_keeps_its_gradient(generator):
    model = adapt(nn.Linear(8, 6), generator)
    found = gradients(model, torch.randn(5, 8, generator=generator))
    assert torch.count_nonzero(found["gate"]) == 4
    assert torch.count_nonzero(found["A"][1]) == 0


def test_autocast_is_no_further_from_the_exact_result_than_peft(generator):
    model = adapt(nn.Linear(64, 48), generator)
    x = torch.randn(40, 64, generator=generator)
    exact = gradients(copy.deepcopy(model).double(), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert is_fused(model(x))
        found, peft = gradients(model, x), gradients(computed_by_peft(model), x)
    for name, value in exact.items():
        assert found[name].dtype == peft[name].dtype, name
        scale = value.abs().max()
        error, usual = ((v[name].double() - value).abs().max() / scale for v in (found, peft))
        assert error <= max(1.5 * usual, 0.02), name


def test_gradients_of_the_gates_alone_are_the_same(generator):
    model = adapt(nn.Linear(8, 6), generator)
    x = torch.randn(5, 8, generator=generator)
    (matrix,) = adapted_matrices(model)
    (alone,) = torch.autograd.grad(model(x).square().sum(), [matrix.gate])
    model(x).square().sum().backward()
    assert matrix.gate.grad is not None
    assert torch.equal(alone, matrix.gate.grad)


def test_input_without_gradient_gets_none(generator):
    model = adapt(nn.Linear(8, 6), generator)
    x = torch.randn(5, 8, generator=generator)
    model(x).sum().backward()
    assert x.grad is None


def test_module_of_rank_0_is_its_base_layer(generator):
    model = adapt(nn.Linear(8, 6), generator)
    (matrix,) = adapted_matrices(model)
    for parameter, dim in ((matrix.lora_A, 0), (matrix.lora_B, 1), (matrix.gate, 0)):
        parameter.data = parameter.data.narrow(dim, 0, 0)
    x = torch.randn(5, 8, generator=generator)
    out = model(x)
    assert torch.equal(out, adapted_layer(model).base_layer(x))
    assert not out.requires_grad


def test_second_derivatives_are_refused(generator):
    model = adapt(nn.Linear(8, 6), generator)
    x = torch.randn(5, 8, generator=generator, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x).square().sum(), [x], create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable"):
        slope.sum().backward()


# Where PEFT's own path runs ------------------------------------------------------------------


def trained_base(model: Any) -> None:
    adapted_layer(model).base_layer.weight.requires_grad_(True)


def hooked(part: str) -> Callable[[Any], None]:
    def act(model: Any) -> None:
        layer = adapted_layer(model)
        module = layer.base_layer if part == "base" else getattr(layer, part)["default"]
        module.register_forward_hook(lambda _module, _inputs, output: output + 1)

    return act


def offloaded(model: Any) -> None:
    base = adapted_layer(model).base_layer
    base.forward = lambda x: nn.functional.linear(x, base.weight, base.bias)


@pytest.mark.parametrize(
    "act",
    [trained_base, hooked("base"), hooked("lora_A"), hooked("lora_B"), offloaded],
    ids=["trained base", "hook on base", "hook on A", "hook on B", "another forward"],
)
def test_peft_computes_what_somebody_has_changed(act, generator):
    model = adapt(nn.Linear(8, 6), generator)
    act(model)
    x = torch.randn(5, 8, generator=generator)
    assert not is_fused(model(x))
    assert_same(model, x, tolerance=0.0)


def test_peft_computes_with_dropout_on_the_input_of_a(generator):
    model = adapt(nn.Linear(8, 6), generator, lora_dropout=0.5)
    x = torch.randn(5, 8, generator=generator)
    model.train()
    assert not is_fused(model(x))
    model.eval()
    assert is_fused(model(x))
    assert_same(model, x, tolerance=1e-5)


def test_peft_computes_several_adapters_at_once(generator):
    model = adapt(nn.Linear(8, 6), generator)
    model.add_adapter("second", SoraConfig(r=2, target_modules=["layer"]))
    x = torch.randn(5, 8, generator=generator)
    assert is_fused(model(x))
    model.base_model.set_adapter(["default", "second"])
    assert not is_fused(model(x))


def test_peft_computes_factors_of_another_dtype_than_the_input(generator):
    model = adapt(nn.Linear(8, 6).to(torch.bfloat16), generator)  # PEFT keeps factors in float32
    out = model(torch.randn(5, 8, generator=generator).to(torch.bfloat16))
    assert not is_fused(out)
    assert out.dtype == torch.bfloat16


def test_peft_computes_float64_under_autocast(generator):
    model = adapt(nn.Linear(8, 6), generator).double()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(5, 8, generator=generator).double()).dtype == torch.float64


def test_convolutions_and_conv1d_are_left_to_peft(generator):
    config = GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    gpt2 = get_peft_model(
        GPT2Model(config),
        SoraConfig(target_modules=["c_attn"], fan_in_fan_out=True),
    )
    conv = adapt(nn.Conv2d(3, 4, 3), generator)
    attention = adapt(nn.MultiheadAttention(8, 2), generator)
    for model in (gpt2, conv, attention):
        assert adapted_matrices(model)
        assert not any(isinstance(module, GatedLinear) for module in model.modules())


def test_subclass_of_linear_is_left_to_peft(generator):
    class Quantised(nn.Linear):
        pass

    model = adapt(Quantised(8, 6), generator)
    assert not isinstance(adapted_layer(model), GatedLinear)


# Held weights --------------------------------------------------------------------------------


def cast_output(model: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return model(x)


@pytest.mark.parametrize("change", ["in place", "data, then eval"])
def test_changed_base_weight_is_seen(change, generator):
    model = adapt(nn.Linear(8, 6), generator)
    x = torch.randn(5, 8, generator=generator)
    before = cast_output(model, x)
    with torch.no_grad():
        if change == "in place":
            adapted_layer(model).base_layer.weight.mul_(2)
        else:
            adapted_layer(model).base_layer.weight.data.mul_(2)
            model.eval()
    after = cast_output(model, x)
    assert not torch.equal(after, before)
    assert torch.equal(after, cast_output(copy.deepcopy(model), x))


def test_merged_adapter_acts_under_autocast(generator):
    model = adapt(nn.Linear(8, 6), generator)
    model.add_adapter("second", SoraConfig(r=2, target_modules=["layer"]))
    x = torch.randn(5, 8, generator=generator)
    model.set_adapter("second")
    without = cast_output(model, x)  # holds the unmerged weight
    model.set_adapter("default")
    expected = cast_output(model, x)
    model.merge_adapter(["default"])
    torch.testing.assert_close(cast_output(model, x), expected, rtol=0.05, atol=0.05)
    model.unmerge_adapter()
    model.set_adapter("second")
    torch.testing.assert_close(cast_output(model, x), without, rtol=0.05, atol=0.05)


def test_frozen_weight_is_cast_once(generator):
    model = adapt(nn.Linear(8, 6), generator)
    x = torch.randn(5, 8, generator=generator)
    cast_output(model, x)
    first = adapted_layer(model)._held
    cast_output(model, x)
    assert adapted_layer(model)._held is first


def test_copies_and_files_hold_no_cast_weights(generator):
    model = adapt(nn.Linear(8, 6), generator)
    cast_output(model, torch.randn(5, 8, generator=generator))
    layer = adapted_layer(model)
    assert layer._held is not None
    assert copy.deepcopy(layer)._held is None
    assert pickle.loads(pickle.dumps(layer))._held is None
    assert set(layer.state_dict()) == set(
        computed_by_peft(model).base_model.model.layer.state_dict()
    )


# The cast of an input that several layers share --------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.query(x) + self.key(x)


def test_gradient_of_a_shared_input_is_the_sum(generator):
    model = get_peft_model(
        Attention(),  # pyright: ignore[reportArgumentType]  # any module
        SoraConfig(r=4, target_modules=["query", "key"], gate_scale="unit", gate_init="ones"),
    )
    found: list[torch.Tensor] = []
    for other in (model, computed_by_peft(model)):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = other(x)
        out.float().sum().backward()
        assert x.grad is not None
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("change", ["in place", "gradient"])
def test_changed_input_is_cast_anew(change, generator):
    model = adapt(nn.Linear(8, 6), generator)
    x = torch.randn(5, 8, generator=generator)
    before = cast_output(model, x)
    if change == "in place":
        x.mul_(2)
        assert not torch.equal(cast_output(model, x), before)
    else:
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            model(x).sum().backward()
        assert x.grad is not None
