import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from safetensors.torch import load_file
from torch import nn

from sorakit.method.prune import export_lora, fold, merge, nonzero_ranks, num_nonzero_params
from sorakit.method.tuner import SoraConfig, adapted_matrices

SHAPES = [(3, 5), (5, 2), (2, 4)]
gate_lists = st.lists(st.sampled_from([0.0, -0.0, 1e-30, -1.0, 0.5]), min_size=9, max_size=9)


def build(values: list[float]) -> nn.Module:
    """Return three linear layers in a row with rank 3 and the given gates."""
    torch.manual_seed(0)
    base = nn.Sequential(*(nn.Linear(d_in, d_out) for d_in, d_out in SHAPES))
    config = SoraConfig(r=3, target_modules=["0", "1", "2"])
    model = get_peft_model(base, config)  # pyright: ignore[reportArgumentType]  # any module will do
    with torch.no_grad():
        for index, matrix in enumerate(adapted_matrices(model)):
            matrix.lora_B.normal_()
            matrix.gate.copy_(torch.tensor(values[3 * index : 3 * index + 3]))
    return model


@settings(max_examples=25)
@given(gate_lists)
def test_count_equals_the_elements_of_the_exported_factors(values):
    model = build(values)
    with tempfile.TemporaryDirectory() as folder:
        export_lora(model, folder)
        state = load_file(Path(folder) / "adapter_model.safetensors")
    assert num_nonzero_params(model) == sum(value.numel() for value in state.values())


@settings(max_examples=25)
@given(gate_lists)
def test_ranks_count_the_gates_that_are_not_zero(values):
    expected = [sum(v != 0 for v in values[k : k + 3]) for k in (0, 3, 6)]
    assert list(nonzero_ranks(build(values)).values()) == expected


@settings(max_examples=25)
@given(gate_lists)
def test_fold_keeps_the_update(values):
    for matrix in adapted_matrices(build(values)):
        lora_A, lora_B = fold(matrix)
        with torch.no_grad():
            expected = matrix.scaling * (matrix.lora_B * matrix.gate) @ matrix.lora_A
        torch.testing.assert_close(lora_B @ lora_A, expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25)
@given(gate_lists)
def test_merge_keeps_the_output(values):
    model = build(values).eval()
    x = torch.linspace(-1, 1, 6).view(2, 3)
    with torch.no_grad():
        before = model(x)
        torch.testing.assert_close(merge(model)(x), before, rtol=1e-4, atol=1e-5)
