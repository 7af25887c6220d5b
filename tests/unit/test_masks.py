"""Which ranks the masks keep, on gates set by hand."""

import pytest
import torch

from sorakit.config import RunConfig
from sorakit.controls import control_class
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.tuner import AdaptedMatrix


@pytest.fixture
def optimizer(tiny_bert) -> ProxAdamW:
    model = RunConfig().method.adapter.build(tiny_bert, RunConfig(), head=["classifier"])
    matrices = RunConfig().method.adapter.matrices(model)
    with torch.no_grad():
        for place, matrix in enumerate(matrices):
            matrix.lora_A.copy_(torch.nn.functional.normalize(torch.ones_like(matrix.lora_A)))
            columns = torch.nn.functional.normalize(torch.ones_like(matrix.lora_B), dim=0)
            matrix.lora_B.copy_(columns)
            # the first matrix is the strongest, and in each the first rank
            matrix.gate.copy_(torch.arange(8.0, 0.0, -1.0) + 10.0 * (len(matrices) - place))
    groups = [{"params": [matrix.gate for matrix in matrices], "xi": 0.0}]
    return ProxAdamW(groups, matrices=matrices, lr=0.1)


def alive(matrices: list[AdaptedMatrix]) -> list[list[int]]:
    return [matrix.gate.nonzero().flatten().tolist() for matrix in matrices]


def test_spread_mask_keeps_the_strongest_rank_of_every_matrix(optimizer):
    matrices = optimizer.matrices
    one_each = sum(matrix.params_per_rank for matrix in matrices)
    control = control_class("spread_mask")(seed=0)
    control.begin_stage(torch.nn.Module(), optimizer, target=one_each)
    assert alive(matrices) == [[0]] * len(matrices)
    # and then those of the strongest matrices
    control.begin_stage(torch.nn.Module(), optimizer, target=matrices[0].params_per_rank + 1)
    assert alive(matrices) == [[0], [0], *([[]] * (len(matrices) - 2))]


def test_hard_mask_crowds_where_spread_mask_does_not(optimizer):
    matrices = optimizer.matrices
    control = control_class("hard_mask_retrain")(seed=0)
    control.begin_stage(torch.nn.Module(), optimizer, target=8 * matrices[0].params_per_rank)
    assert alive(matrices) == [list(range(8)), *([[]] * (len(matrices) - 1))]


def test_frugal_mask_prefers_equal_strength_at_fewer_parameters(optimizer):
    matrices = optimizer.matrices
    with torch.no_grad():
        for matrix in matrices:
            matrix.gate.fill_(1.0)
    cheapest = min(matrix.params_per_rank for matrix in matrices)
    assert cheapest < max(matrix.params_per_rank for matrix in matrices)
    num_cheap = sum(matrix.params_per_rank == cheapest for matrix in matrices)
    control = control_class("frugal_mask")(seed=0)
    control.begin_stage(torch.nn.Module(), optimizer, target=8 * cheapest * num_cheap)
    for matrix in matrices:
        assert int(matrix.gate.count_nonzero()) == (8 if matrix.params_per_rank == cheapest else 0)


def test_ablation_mask_keeps_what_the_loss_misses_most(optimizer):
    matrices = optimizer.matrices
    worth = [
        torch.rand(8, generator=torch.Generator().manual_seed(i)) for i in range(len(matrices))
    ]
    before = [matrix.gate.clone() for matrix in matrices]

    def loss() -> float:  # a rank's worth is what the loss rises without it, whatever its size
        lost = (of[matrix.gate == 0].sum() for of, matrix in zip(worth, matrices, strict=True))
        return 0.5 + float(sum(lost))

    control = control_class("ablation_mask")(seed=0)
    control.training_loss = loss
    control.begin_stage(torch.nn.Module(), optimizer, target=1)
    best = torch.cat(worth).argmax()
    kept = torch.cat([matrix.gate for matrix in matrices])
    assert kept.nonzero().flatten().tolist() == [int(best)]
    assert kept[best] == torch.cat(before)[best]
