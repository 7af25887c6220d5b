"""Checkpoints for resuming: written after every segment and replaced atomically.

The last two are kept, and the one at the end of the dense stage.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
from typing_extensions import override

from sorakit.records import DENSE_CHECKPOINT
from sorakit.training.xi_scheduler import XiScheduler

_KEEP = 2
_SUFFIX = ".ckpt"


class ResumePoint(pl.Callback):
    """Writes a checkpoint after every segment; it comes after `XiScheduler` in the callbacks.

    Args:
        folder: Where checkpoints go; made when the first one is written.
        scheduler: The run's schedule, whose step names the file.

    Attributes:
        on_dense_end: Called when the checkpoint of the dense stage is written.
    """

    def __init__(self, folder: Path, *, scheduler: XiScheduler) -> None:
        self._folder = folder
        self._scheduler = scheduler
        self.on_dense_end: list[Callable[[], None]] = []

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        target = self._folder / checkpoint_name(self._scheduler.step)
        part = target.with_suffix(".part")
        trainer.save_checkpoint(part)  # every process must call it, and rank 0 writes
        if not trainer.is_global_zero:
            return
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        position = self._scheduler.schedule.position
        if position.stage == 1 and position.steps_in_stage == 0:
            # Before `target` exists, or a run killed in between would go on without it.
            dense = self._folder / DENSE_CHECKPOINT
            shutil.copyfile(part, dense.with_suffix(".part"))
            dense.with_suffix(".part").replace(dense)
            for listener in self.on_dense_end:
                listener()
        part.replace(target)
        for old in checkpoints(self._folder)[:-_KEEP]:
            old.unlink()


def checkpoint_name(step: int) -> str:
    """Return the file name of the checkpoint after `step` optimizer steps."""
    return f"step_{step:09d}{_SUFFIX}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in `folder`, oldest first."""
    return sorted(folder.glob(f"step_*{_SUFFIX}"))
