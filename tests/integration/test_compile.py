"""`torch.compile` of a gated model: neither a new xi nor a dying gate compiles it again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch._dynamo.testing import CompileCounterWithBackend

from sorakit.method.optimizer import ProxAdamW
from sorakit.method.prune import nonzero_ranks
from sorakit.method.tuner import SoraConfig, gates


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def train(model: Any, step: Callable[..., Any], inputs: torch.Tensor) -> list[int]:
    """Take 6 steps of rising xi and return the non-zero gates after each."""
    vectors = gates(model)
    ours = {id(gate) for gate in vectors.values()}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
    gate_group = {"params": list(vectors.values()), "lr": 1.0, "xi": 0.0}
    optimizer = ProxAdamW([{"params": others}, gate_group], lr=0.02)
    counts = []
    for xi in (0.0, 0.1, 0.2, 0.3, 0.35, 0.4):
        optimizer.gate_groups[0]["xi"] = xi
        step(input_ids=inputs).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        counts.append(sum(nonzero_ranks(model).values()))
    return counts


# torch 2.13: its inductor still uses torch.jit
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        "aot_eager",
        pytest.param("inductor", marks=pytest.mark.slow),  # needs a C++ compiler
    ],
)
def test_rising_xi_and_dying_gates_compile_nothing_again(backend, tiny_bert, generator):
    model: Any = get_peft_model(tiny_bert, SoraConfig(r=4, target_modules=["query", "value"]))
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    counts = train(model, compiled, torch.randint(3, 64, (4, 7), generator=generator))
    assert (counts[0], counts[-1], counter.frame_count) == (16, 0, 1)
