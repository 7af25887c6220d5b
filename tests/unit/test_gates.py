"""What every gate update promises, whichever file it stands in."""

import pytest
import torch

from sorakit.config import GatesConfig
from sorakit.method.gates import gate_rule
from sorakit.method.gates.released import VARIANT as RELEASED
from sorakit.variants import GATES

updates = pytest.mark.parametrize("update", GATES.names)


@updates
def test_gate_survives_every_threshold_below_its_reach_and_dies_above_it(update, generator):
    rule = gate_rule(update)
    gate = torch.randn(50, generator=generator, dtype=torch.float64)
    metric = torch.rand(50, generator=generator, dtype=torch.float64) + 0.1
    reach = rule.reach(gate, metric)
    for index in range(len(gate)):
        at = float(reach[index])
        one, its_metric = gate[index : index + 1], metric[index : index + 1]
        assert rule.threshold(one, at * (1 - 1e-9), its_metric) != 0
        assert rule.threshold(one, at * (1 + 1e-9), its_metric) == 0


@updates
def test_threshold_of_0_changes_nothing(update, generator):
    gate = torch.randn(50, generator=generator)
    assert torch.equal(gate_rule(update).threshold(gate, 0.0, torch.ones(50)), gate)


@updates
def test_defaults_of_an_update_go_with_it(update):
    rule = gate_rule(update)
    gates = GatesConfig(update=update, scale=rule.scales[0])
    assert gates.gradient_averaging == rule.averaging


def test_release_has_its_own_start_and_epsilon():
    assert (RELEASED.gate_init, RELEASED.eps, RELEASED.scales) == ("normal", 1e-6, ("free",))
