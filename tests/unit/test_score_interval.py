import math

import pytest
import torch

from sorakit.training.score_interval import score_interval


def accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float((outputs.argmax(dim=1) == labels).double().mean())


def logits_of(predictions: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(predictions, 2).double()


def test_interval_of_an_accuracy_is_that_of_a_share():
    labels = torch.zeros(400, dtype=torch.long)
    wrong = torch.arange(400) < 100
    found = score_interval(accuracy, logits_of(wrong.long()), labels)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert found.low == pytest.approx(0.75 - half, abs=0.006)
    assert found.high == pytest.approx(0.75 + half, abs=0.006)
    assert found.examples == 400


def test_interval_is_the_same_every_time_and_leaves_the_global_generator_alone():
    labels = torch.arange(50) % 2
    outputs = logits_of((torch.arange(50) % 3 > 0).long())
    before = torch.get_rng_state()
    first, second = (score_interval(accuracy, outputs, labels) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


def test_score_that_is_right_everywhere_has_no_spread():
    labels = torch.arange(20) % 2
    found = score_interval(accuracy, logits_of(labels), labels)
    assert (found.low, found.high) == (1.0, 1.0)
