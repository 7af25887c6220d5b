"""The adapted model as a LightningModule."""

import zlib
from typing import Any

import lightning.pytorch as pl
import torch
from peft import PeftModel
from torch import Tensor
from typing_extensions import override

from sorakit.config import GatesConfig, OptimConfig, TaskMetric
from sorakit.method.optimizer import ProxAdamW
from sorakit.method.tuner import adapted_matrices
from sorakit.metric_names import INDEX, LABEL, TRAIN_LOSS
from sorakit.objectives import Objective
from sorakit.training.data import WEIGHT, Batch, model_inputs
from sorakit.training.devices import from_all_processes
from sorakit.training.evaluation import SplitResult, split_result

GATES_GROUP = "gates"


class AdaptationModule(pl.LightningModule):
    """Trains an adapted model and evaluates it split by split.

    After every validation `results` holds one `SplitResult` a split, all from the same weights.

    Args:
        model: An adapted model.
        split_names: Evaluation splits in the order of the validation loaders.
        metric: Score of the task.
        extra_metrics: Further scores.
        objective: What the model is trained to do.
        optim: AdamW for everything but the gates.
        gates: Gate update; None where gates are set and not learnt, so that no step moves them.
        xi: Threshold at the start, gate units per optimizer step.
    """

    def __init__(
        self,
        model: PeftModel,
        *,
        split_names: tuple[str, ...],
        metric: TaskMetric,
        extra_metrics: tuple[TaskMetric, ...] = (),
        objective: Objective,
        optim: OptimConfig,
        gates: GatesConfig | None,
        xi: float,
    ) -> None:
        super().__init__()
        # A checkpoint leaves out frozen weights: they are the backbone's.
        self.strict_loading = False
        # from_pretrained leaves evaluation mode, and Lightning keeps the mode it finds: without
        # this, no dropout.
        self.model = model.train()
        self.results: dict[str, SplitResult] = {}
        self._split_names = split_names
        self._metric: TaskMetric = metric
        self._extra_metrics = extra_metrics
        self._objective = objective
        self._optim = optim
        self._gates = gates
        self._xi = xi
        self._outputs: list[list[tuple[Tensor, Tensor, Tensor]]] = []

    @override
    def forward(self, batch: Batch) -> Tensor:
        """Return logits, float32: (b, classes), or (b, t, tokens) of a text."""
        return self.model(**model_inputs(batch)).logits.float()

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch; with several processes, this one's share of it."""
        losses = self._objective.losses(self(batch), batch[LABEL])
        return losses.mean() * batch[WEIGHT] if WEIGHT in batch else losses.mean()

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log(TRAIN_LOSS, loss.detach(), batch_size=len(batch[LABEL]))
        return loss

    @override
    def on_validation_epoch_start(self) -> None:
        self._outputs = [[] for _ in self._split_names]

    @override
    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        outputs, labels = self._objective.outputs(self(batch), batch[LABEL])
        self._outputs[dataloader_idx].append((outputs, labels, batch[INDEX]))

    @override
    def on_validation_epoch_end(self) -> None:
        self.results = {}
        for name, parts in zip(self._split_names, self._outputs, strict=True):
            own = [tuple(tensor.cpu() for tensor in part) for part in parts]
            everywhere = from_all_processes(own)
            outputs, labels, indices = (torch.cat(parts) for parts in zip(*everywhere, strict=True))
            self.results[name] = split_result(
                outputs,
                labels,
                indices,
                metric=self._metric,
                extra_metrics=self._extra_metrics,
                objective=self._objective,
            )
        self._outputs = []

    @override
    def configure_optimizers(self) -> ProxAdamW:
        # Collected here, not in __init__: PEFT and Lightning make new parameters when they cast or
        # move a model.
        matrices = adapted_matrices(self.model)
        named = {id(p): name for name, p in self.model.named_parameters()}
        gate_ids = {id(matrix.gate) for matrix in matrices}
        factors = [p for matrix in matrices for p in (matrix.lora_A, matrix.lora_B)]
        taken = gate_ids | {id(p) for p in factors}
        head = [p for p in self.model.parameters() if p.requires_grad and id(p) not in taken]
        optim = self._optim
        groups: list[dict[str, Any]] = []
        if head:
            groups.append(
                {
                    "name": "head",
                    "params": [(named[id(p)], p) for p in head],
                    "weight_decay": optim.weight_decay,
                }
            )
        if matrices:
            groups.append({"name": "factors", "params": [(named[id(p)], p) for p in factors]})
            groups.append(
                {
                    "name": GATES_GROUP,
                    "params": [(named[id(matrix.gate)], matrix.gate) for matrix in matrices],
                    **self._gate_options(),
                }
            )
        return ProxAdamW(
            groups,
            matrices=matrices,
            lr=optim.lr,
            rank_weight_decay=optim.weight_decay,
            unit_scale=self._gates is not None and self._gates.scale == "unit",
        )

    def _gate_options(self) -> dict[str, Any]:
        gates = self._gates
        if gates is None:
            return {"lr": 0.0, "xi": 0.0, "gate_update": "sgd", "averaging": 0.0}
        return {
            "lr": gates.gate_lr,
            "xi": self._xi,
            "gate_update": gates.update,
            "averaging": gates.gradient_averaging,
        }

    @override
    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Clipped gate gradients would change lambda, so only the others are clipped, whatever the
        # Trainer's setting.
        if self._optim.max_grad_norm > 0:
            clipped = [
                p
                for group in optimizer.param_groups
                if "xi" not in group
                for p in group["params"]
                if p.grad is not None
            ]
            torch.nn.utils.clip_grad_norm_(clipped, self._optim.max_grad_norm)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if name in trainable}
        # The position in the run is XiScheduler's, counted in optimizer steps. Lightning's own loop
        # counters cannot restart in the middle of an epoch exactly (Lightning #18780, #21938), so a
        # resumed fit begins a new loop.
        checkpoint.pop("loops", None)


def step_seed(seed: int, step: int, *, rank: int = 0) -> int:
    """Return the seed of dropout at a step: derived, so that resuming needs no generator state.

    Args:
        seed: Seed of the run.
        step: Optimizer steps taken before.
        rank: Process of the run: each has examples of its own, and masks of its own.
    """
    process = f" {rank}" if rank else ""
    return zlib.crc32(f"sorakit {seed} {step}{process}".encode())
