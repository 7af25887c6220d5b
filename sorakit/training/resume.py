"""Where a run goes on: the newest readable checkpoint, and the position in it."""

import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from sorakit.records import CHECKPOINTS_DIR
from sorakit.schedule.position import Position
from sorakit.training.checkpoint import checkpoints
from sorakit.training.xi_scheduler import XiScheduler


@dataclass(frozen=True, kw_only=True)
class Resume:
    """The start of a process: a checkpoint, or nothing.

    Attributes:
        checkpoint: Newest readable checkpoint; None to begin.
        position: Where it stands; None to begin.
    """

    checkpoint: Path | None = None
    position: Position | None = None

    @property
    def stage(self) -> int:
        """Stage that is trained next."""
        return 0 if self.position is None else self.position.stage

    @property
    def step(self) -> int:
        """Optimizer steps taken before."""
        return 0 if self.position is None else self.position.step

    @property
    def completed_stages(self) -> int:
        """Stages that have ended."""
        return 0 if self.position is None else self.position.completed_stages

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.position is not None and self.position.is_finished


def find_resume(path: Path) -> Resume:
    """Return where the run of a folder goes on; unreadable checkpoints are passed over, and named.

    Args:
        path: The run folder.
    """
    for file in reversed(checkpoints(path / CHECKPOINTS_DIR)):
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            warnings.warn(f"Skipped the unreadable checkpoint {str(file)!r}: {error}", stacklevel=2)
            continue
        state = content["callbacks"][XiScheduler.__qualname__]
        return Resume(checkpoint=file, position=Position(**state["position"]))
    return Resume()
