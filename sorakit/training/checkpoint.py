"""Checkpoints for resuming: written after every evaluation, replaced atomically, the last two
kept."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

_KEEP = 2
_SUFFIX = ".ckpt"


class ResumePoint(pl.Callback):
    """Writes a checkpoint after every evaluation. It must come after `XiScheduler` among the
    callbacks.

    Args:
        folder: Where checkpoints go; made when the first one is written.
        step: Returns the optimizer steps taken in the run, which name the file.
    """

    def __init__(self, folder: Path, *, step: Any) -> None:
        self._folder = folder
        self._step = step

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        target = self._folder / f"step_{self._step():09d}{_SUFFIX}"
        part = target.with_suffix(".part")
        trainer.save_checkpoint(part)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
        for old in checkpoints(self._folder)[:-_KEEP]:
            old.unlink()


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in `folder`, oldest first."""
    return sorted(folder.glob(f"step_*{_SUFFIX}"))
