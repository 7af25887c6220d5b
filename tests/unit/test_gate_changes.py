import pytest
import torch
from torch import nn

from sorakit.method.optimizer import ProxAdamW
from sorakit.training.gate_changes import GateChanges, zero_gates


@pytest.fixture
def optimizer() -> ProxAdamW:
    gates = [nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))]
    weight = nn.Parameter(torch.ones(3))
    return ProxAdamW([{"params": [weight]}, {"params": gates, "xi": 0.0, "lr": 1.0}], lr=1e-3)


def set_gates(optimizer: ProxAdamW, values: tuple[int, int]) -> None:
    for gate, value in zip(optimizer.gate_groups[0]["params"], values, strict=True):
        gate.data.fill_(value)


def watch(optimizer: ProxAdamW, history: list[tuple[int, int]], *, step: int = 0) -> GateChanges:
    set_gates(optimizer, history[0])
    changes = GateChanges(optimizer, step=step)
    for values in history[1:]:
        step += 1
        set_gates(optimizer, values)
        changes.look(step)
    return changes


@pytest.mark.parametrize(
    ("history", "flickering", "revived"),
    [
        ([(1, 1), (1, 1), (1, 1)], 0, 0),
        ([(1, 1), (0, 1), (0, 1)], 1, 0),
        ([(1, 1), (0, 1), (1, 1)], 1, 1),
        ([(0, 0), (1, 0), (0, 0)], 1, 1),
        ([(0, 1), (1, 0), (1, 0)], 2, 1),
    ],
)
def test_changes_count_gates_whose_zero_status_changed(history, flickering, revived, optimizer):
    changes = watch(optimizer, history)
    assert (changes.flickering(0), changes.revived(0)) == (flickering, revived)


def test_only_changes_after_a_step_count(optimizer):
    changes = watch(optimizer, [(1, 1), (0, 1), (0, 1), (0, 0)], step=7)
    assert [changes.flickering(since) for since in (7, 8, 9, 10)] == [2, 1, 1, 0]


def test_what_was_before_the_watch_does_not_count(optimizer):
    changes = watch(optimizer, [(1, 1), (0, 1)], step=7)
    assert changes.flickering(0) == 1


def test_zero_gates_of_an_optimizer_without_gates_are_none():
    optimizer = ProxAdamW([{"params": [nn.Parameter(torch.ones(1))]}], lr=1e-3)
    assert zero_gates(optimizer).tolist() == []
