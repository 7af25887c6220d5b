import copy
import threading
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn

from sorakit.method.fused import GatedLinear
from sorakit.method.shared_input import settle_groups
from sorakit.method.tuner import SoraConfig, adapted_matrices

GROUPED = {"query", "key", "value"}


class Attention(nn.Module):
    """Three projections, of one input or two, with an output that weighs them differently."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 6), nn.Linear(8, 6, bias=False)
        self.value = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        other = x if memory is None else memory
        parts = [self.query(x), 2 * self.key(other), -self.value(other)]
        return torch.cat(parts, dim=-1)


def adapt(model: nn.Module, generator: torch.Generator, *, dead: str = "") -> Any:
    """Adapt all layers with random factors and gates; those of the layer `dead` are taken out."""
    config = SoraConfig(r=3, target_modules="all-linear")
    adapted = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]  # any module
    with torch.no_grad():
        for matrix in adapted_matrices(adapted):
            for parameter, dim in ((matrix.lora_A, 0), (matrix.lora_B, 1), (matrix.gate, 0)):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
                if dead and matrix.name.endswith(dead):
                    parameter.data = parameter.data.narrow(dim, 0, 0)
    return adapted


def layers(model: nn.Module) -> list[GatedLinear]:
    return [module for module in model.modules() if isinstance(module, GatedLinear)]


def alone(model: Any) -> Any:
    """Return a copy whose layers are computed one by one."""
    copied = copy.deepcopy(model)
    for layer in layers(copied):
        layer.shared = None
    return copied


def gradients(model: Any, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    found = [x.detach().clone().requires_grad_() for x in inputs]
    out = model(*found)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"out": out, **named, **{f"x{i}": x.grad for i, x in enumerate(found)}}  # pyright: ignore[reportReturnType]  # all have one


def assert_same(model: Any, *inputs: torch.Tensor, tolerance: float = 1e-12) -> None:
    expected, found = gradients(alone(model), *inputs), gradients(model, *inputs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


def num_nodes(out: torch.Tensor) -> int:
    """Return how many calls of the function made an output."""
    seen, todo = set[Any](), [out.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return sum(node.name() == "GatedLinearFunctionBackward" for node in seen)


# The same numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", ["", "query", "value"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_layers_computed_together_give_what_each_gives_alone(dtype, tolerance, dead, generator):
    model = adapt(Attention(), generator, dead=dead).to(dtype)
    x = torch.randn(2, 5, 8, generator=generator).to(dtype)
    assert num_nodes(model(x)) == 1
    assert num_nodes(alone(model)(x)) == (2 if dead else 3)
    assert_same(model, x, tolerance=tolerance)


def test_steps_of_layers_computed_together_are_those_of_each_alone(tiny_bert):
    """20 optimizer steps in float64 leave the same weights to 1e-10: no other curve."""
    found: list[dict[str, torch.Tensor]] = []
    for is_shared in (True, False):
        torch.manual_seed(0)
        config = SoraConfig(r=3, target_modules="all-linear", task_type="SEQ_CLS")
        model: Any = get_peft_model(copy.deepcopy(tiny_bert).double().eval(), config)
        model = model if is_shared else alone(model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            ids = torch.randint(0, 64, (4, 6), generator=generator)
            labels = torch.randint(0, 3, (4,), generator=generator)
            model(input_ids=ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        found.append({n: p.detach() for n, p in model.named_parameters() if p.requires_grad})
    together, apart = found
    for name, value in apart.items():
        torch.testing.assert_close(together[name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_bert_has_one_call_for_query_key_and_value(tiny_bert):
    config = SoraConfig(r=3, target_modules="all-linear", task_type="SEQ_CLS")
    model = get_peft_model(tiny_bert, config)
    shared = [name for name, m in model.named_modules() if getattr(m, "shared", None) is not None]
    assert {name.rpartition(".")[2] for name in shared} == GROUPED
    model(input_ids=torch.arange(12).view(2, 6))
    settle_groups(model)
    assert all(layer.shared.holds for layer in layers(model) if layer.shared is not None)


def test_without_gradients_the_output_is_the_same(generator):
    model = adapt(Attention(), generator).double().eval()
    x = torch.randn(5, 8, generator=generator).double()
    with torch.no_grad():
        torch.testing.assert_close(model(x), alone(model)(x))
    with torch.inference_mode():
        torch.testing.assert_close(model(x), alone(model)(x))


def test_gradient_checkpointing_recomputes_them_together(generator):
    model = adapt(Attention(), generator).double()
    x = torch.randn(5, 8, generator=generator).double().requires_grad_()
    out = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)  # pyright: ignore[reportAttributeAccessIssue]  # torch.utils
    assert isinstance(out, torch.Tensor)
    out.square().sum().backward()
    found, x.grad = x.grad, None
    alone(model)(x).square().sum().backward()
    torch.testing.assert_close(found, x.grad)


# Where they do not share it ----------------------------------------------------------------------


def test_layers_of_different_inputs_are_told_apart(generator):
    model = adapt(Attention(), generator).double()
    x, memory = (torch.randn(5, 8, generator=generator).double() for _ in range(2))
    for _ in range(3):
        assert_same(model, x, memory)
    assert not any(layer.shared.holds for layer in layers(model) if layer.shared is not None)
    assert_same(model, x)


def test_one_look_settles_which_layers_share_their_input(generator):
    model = adapt(Attention(), generator)
    memory = torch.randn(5, 8, generator=generator)
    model.base_model.model.query(memory)  # key and value are never called
    settle_groups(model)
    assert not any(layer.shared.holds for layer in layers(model) if layer.shared is not None)


def test_input_that_was_written_to_in_between_is_another(generator):
    model = adapt(Attention(), generator)
    inner = model.base_model.model
    x = torch.randn(5, 8, generator=generator)
    with torch.no_grad():
        inner.query(x)
        x.mul_(2)
        assert torch.equal(inner.key(x), alone(model).base_model.model.key(x))


def test_layer_that_cannot_be_fused_leaves_the_others_alone(generator):
    model = adapt(Attention(), generator).double()
    model.base_model.model.key.base_layer.register_forward_hook(lambda m, i, o: o + 1)
    x = torch.randn(5, 8, generator=generator).double()
    assert num_nodes(model(x)) == 2
    assert_same(model, x)


def test_threads_do_not_get_each_others_outputs(generator):
    model = adapt(Attention(), generator).eval()
    inputs = [torch.randn(5, 8, generator=generator) for _ in range(2)]
    with torch.no_grad():
        expected = [alone(model)(x) for x in inputs]
    wrong: list[float] = []

    def work(number: int) -> None:
        with torch.no_grad():
            errors = [(model(inputs[number]) - expected[number]).abs().max() for _ in range(100)]
        wrong.extend(float(error) for error in errors if error > 1e-5)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
