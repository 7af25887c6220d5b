"""Mean loss of the model as it is, on a fixed sample of training examples."""

import torch

from sorakit.metric_names import LABEL, MEMORIZATION_SPLIT
from sorakit.training.data import AdaptationData, Batch
from sorakit.training.devices import sum_over_processes
from sorakit.training.module import AdaptationModule

SAMPLE_EXAMPLES = 256


class SampleLoss:
    """Loss over the first memorization examples, evaluation mode, the arithmetic of training.

    Args:
        module: The model.
        data: Tokenised splits.
        batch_size: Examples a batch.
    """

    def __init__(self, module: AdaptationModule, data: AdaptationData, *, batch_size: int) -> None:
        self._module = module
        self._data = data
        self._batch_size = batch_size
        self._batches: list[Batch] | None = None

    @torch.no_grad()
    def __call__(self) -> float:
        """Return the mean loss, nats; over several processes, that of all their examples."""
        module = self._module
        if self._batches is None:
            batches = self._data.batches_of(
                MEMORIZATION_SPLIT, max_examples=SAMPLE_EXAMPLES, batch_size=self._batch_size
            )
            self._batches = [{k: v.to(module.device) for k, v in b.items()} for b in batches]
        was_training = module.training
        module.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=module.device)  # of losses, of examples
        with module.trainer.precision_plugin.forward_context():
            for batch in self._batches:
                count = len(batch[LABEL])
                sums += torch.stack([module.loss(batch).double() * count, sums.new_tensor(count)])
        module.train(was_training)
        loss, count = sum_over_processes(sums).tolist()
        return loss / count
