"""How far a model's gates are from optimal at fixed A and B, measured on training examples."""

from contextlib import AbstractContextManager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from sorakit.method.gates import gate_rule
from sorakit.method.kkt import Residuals, kkt_residual, unit_scale_relief
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.metric_names import LABEL, MEMORIZATION_SPLIT
from sorakit.training.data import AdaptationData, Batch
from sorakit.training.devices import sum_over_processes
from sorakit.training.module import AdaptationModule


class Stationarity:
    """Residuals over memorization examples, in evaluation mode.

    Args:
        data: Tokenised splits.
        num_examples: Memorization examples to use; 0 measures nothing.
        batch_size: Examples per batch.
        in_float32: Compute in float32 rather than in the arithmetic of training.
    """

    def __init__(
        self, data: AdaptationData, *, num_examples: int, batch_size: int, in_float32: bool = False
    ) -> None:
        self._data = data
        self._num_examples = num_examples
        self._batch_size = batch_size
        self._in_float32 = in_float32
        self._last: tuple[tuple[int, float], Residuals] | None = None

    def __call__(
        self, module: pl.LightningModule, optimizer: ProxAdamW, lambda_: float
    ) -> Residuals:
        """Return the residuals of a module's gates at `lambda_`.

        Nothing is measured without gates, examples or penalty (lambda 0: a step that may prune
        nothing). A second call at the same step returns the first one's answer.
        """
        assert isinstance(module, AdaptationModule)
        key = (module.global_step, lambda_)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._measure(module, optimizer, lambda_))
        return self._last[1]

    def _measure(self, module: AdaptationModule, optimizer: ProxAdamW, lambda_: float) -> Residuals:
        matrices = adapted_matrices(module.model)
        if self._num_examples == 0 or not matrices or lambda_ == 0:
            return Residuals()
        batches = self._data.batches_of(
            MEMORIZATION_SPLIT, max_examples=self._num_examples, batch_size=self._batch_size
        )
        with self._arithmetic(module):
            halves = [
                _gate_gradient(module, matrices, half) for half in (batches[::2], batches[1::2])
            ]
        gate = torch.cat([m.gate.detach() for m in matrices])
        total = sum(weight for _, weight in halves)
        mean = sum((gradient * weight for gradient, weight in halves), torch.zeros_like(gate))
        mean /= total
        error = None
        if all(weight > 0 for _, weight in halves):  # a single batch has no second half
            first, second = (kkt_residual(gate, half, lambda_=lambda_) for half, _ in halves)
            error = abs(first - second) / 2
        return Residuals(
            kkt=kkt_residual(gate, mean, lambda_=lambda_),
            kkt_se=error,
            stationarity=kkt_residual(
                gate, mean, lambda_=lambda_, relief=_relief(optimizer, matrices)
            ),
        )

    def _arithmetic(self, module: AdaptationModule) -> AbstractContextManager[Any]:
        # Without the loss scale of training, small gradients are 0 in float16.
        if self._in_float32 or module.trainer.precision == "16-mixed":
            return torch.autocast(module.device.type, enabled=False)
        return module.trainer.precision_plugin.forward_context()


def _relief(optimizer: ProxAdamW, matrices: list[AdaptedMatrix]) -> Tensor | None:
    """Return what unit scale takes off the penalty of each gate, where the update knows it."""
    group = optimizer.gate_groups[0]
    if not gate_rule(group["gate_update"]).yields_to_growth or group["lr"] == 0:  # `shrink_only`
        return None
    gate = torch.cat([m.gate.detach() for m in matrices])
    growth = torch.cat([optimizer.growth(m) for m in matrices])
    return unit_scale_relief(gate, growth, gate_lr=group["lr"])


def _gate_gradient(
    module: AdaptationModule, matrices: list[AdaptedMatrix], batches: list[Batch]
) -> tuple[Tensor, int]:
    """Return the gradient of the mean loss in all gates, and the number of examples.

    With several processes each has batches of its own; the answer is that over all of them.
    """
    was_training = module.training
    module.eval()
    gates = [m.gate for m in matrices]
    total = gates[0].new_zeros(sum(g.numel() for g in gates))
    count = 0
    with torch.enable_grad():
        for batch in batches:
            moved = {name: value.to(module.device) for name, value in batch.items()}
            size = len(moved[LABEL])
            gradients = torch.autograd.grad(module.loss(moved), gates)
            total += torch.cat([g.flatten() for g in gradients]) * size
            count += size
    module.train(was_training)
    counted = sum_over_processes(torch.tensor([count], device=total.device))
    total, count = sum_over_processes(total), int(counted)
    return total / max(count, 1), count
