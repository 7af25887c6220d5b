from typing import Any

import pytest
import torch

from experiments.benchmarks.many_runs import JointLinear, join, joint_loss, runs_of
from experiments.benchmarks.variants import Setting
from sorakit.method.tuner import adapted_matrices


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_of_joint_runs_are_those_of_separate_ones(count):
    setting = Setting(backbone="embedded", examples=2, tokens=5, precision="32-true")
    separate, joint = runs_of(setting, count), join(runs_of(setting, count))
    base: Any = separate[0].model.get_base_model()
    vocabulary = base.config.vocab_size
    generator = torch.Generator().manual_seed(2)
    batches = [
        {
            "input_ids": torch.randint(0, vocabulary, (2, 5), generator=generator),
            "attention_mask": torch.ones(2, 5, dtype=torch.long),
            "label": torch.randint(0, 2, (2,), generator=generator),
        }
        for _ in range(count)
    ]
    joint_loss(joint, batches).backward()
    layers = [layer for layer in joint.modules() if isinstance(layer, JointLinear)]
    for run, (module, batch) in enumerate(zip(separate, batches, strict=True)):
        module.loss(batch).backward()
        matrices = adapted_matrices(module.model)
        assert len(matrices) == len(layers)
        for matrix, layer in zip(matrices, layers, strict=True):
            for own, stacked in (
                (matrix.lora_A.grad, layer.down.grad),
                (matrix.lora_B.grad.t(), layer.up.grad),  # pyright: ignore[reportOptionalMemberAccess]  # trained
                (matrix.gate.grad, layer.gate.grad),
            ):
                assert own is not None
                assert stacked is not None
                error = (stacked[run] - own).abs().max() / own.abs().max()
                assert error < 1e-4, matrix.name
