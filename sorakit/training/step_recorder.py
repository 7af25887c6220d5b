"""Writes `steps.jsonl`: the training loss between evaluations, every few steps."""

import math
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from sorakit.records import RunWriter, StepRecord
from sorakit.training.devices import mean_over_processes
from sorakit.training.xi_scheduler import XiScheduler, prox_optimizer

INTERVAL = 10
"""Optimizer steps between two lines; fixed, so that equal runs have equal files."""


class StepRecorder(pl.Callback):
    """Appends every `INTERVAL`th step to the run folder; comes after `XiScheduler`.

    With several processes that of rank 0 writes.

    Args:
        writer: Run folder.
        scheduler: The run's schedule, which counts its steps.

    Attributes:
        on_step: Called after every line.
    """

    def __init__(self, writer: RunWriter, *, scheduler: XiScheduler) -> None:
        self._writer = writer
        self._scheduler = scheduler
        self.on_step: list[Callable[[], None]] = []

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._scheduler.step % INTERVAL:
            return
        loss = float(mean_over_processes(outputs["loss"].detach()))
        if not trainer.is_global_zero:
            return
        groups = prox_optimizer(trainer).param_groups
        record = StepRecord(
            step=self._scheduler.step,
            stage=self._scheduler.stage,
            train_loss=loss if math.isfinite(loss) else None,
            lr=next((group["lr"] for group in groups if "xi" not in group), 0.0),
            xi=next((group["applied_xi"] for group in groups if "xi" in group), 0.0),
        )
        self._writer.append_step(record)
        for listener in self.on_step:
            listener()
