"""How far a model's gates are from optimal at fixed A and B, measured on training examples."""

import lightning.pytorch as pl
import torch
from torch import Tensor

from sorakit.method.kkt import kkt_residual
from sorakit.method.tuner import AdaptedMatrix, adapted_matrices
from sorakit.metric_names import MEMORIZATION_SPLIT
from sorakit.tasks.base import LABEL
from sorakit.training.data import AdaptationData, Batch
from sorakit.training.module import AdaptationModule


class Stationarity:
    """The KKT residual over memorization examples, in evaluation mode and float32.

    Args:
        data: Tokenised splits.
        num_examples: Memorization examples to use; 0 measures nothing.
        batch_size: Examples per batch.
    """

    def __init__(self, data: AdaptationData, *, num_examples: int, batch_size: int) -> None:
        self._data = data
        self._num_examples = num_examples
        self._batch_size = batch_size

    def __call__(
        self, module: pl.LightningModule, lambda_: float
    ) -> tuple[float | None, float | None]:
        """Return the residual and its split-half standard error, both in units of lambda.

        Both are None without gates, examples or penalty (lambda 0: a step that may prune nothing),
        the error also where one batch holds all examples.
        """
        assert isinstance(module, AdaptationModule)
        matrices = adapted_matrices(module.model)
        if self._num_examples == 0 or not matrices or lambda_ == 0:
            return None, None
        batches = self._data.batches_of(
            MEMORIZATION_SPLIT, max_examples=self._num_examples, batch_size=self._batch_size
        )
        halves = [_gate_gradient(module, matrices, half) for half in (batches[::2], batches[1::2])]
        gate = torch.cat([m.gate.detach() for m in matrices])
        total = sum(weight for _, weight in halves)
        mean = sum((gradient * weight for gradient, weight in halves), torch.zeros_like(gate))
        residual = kkt_residual(gate, mean / total, lambda_=lambda_)
        if any(weight == 0 for _, weight in halves):  # a single batch has no second half
            return residual, None
        first, second = (kkt_residual(gate, gradient, lambda_=lambda_) for gradient, _ in halves)
        return residual, abs(first - second) / 2


def _gate_gradient(
    module: AdaptationModule, matrices: list[AdaptedMatrix], batches: list[Batch]
) -> tuple[Tensor, int]:
    """Return the gradient of the mean loss in all gates, and the number of examples."""
    was_training = module.training
    module.eval()
    gates = [m.gate for m in matrices]
    total = gates[0].new_zeros(sum(g.numel() for g in gates))
    count = 0
    with torch.enable_grad(), torch.autocast(module.device.type, enabled=False):
        for batch in batches:
            moved = {name: value.to(module.device) for name, value in batch.items()}
            size = len(moved[LABEL])
            gradients = torch.autograd.grad(module.loss(moved), gates)
            total += torch.cat([g.flatten() for g in gradients]) * size
            count += size
    module.train(was_training)
    return total / max(count, 1), count
