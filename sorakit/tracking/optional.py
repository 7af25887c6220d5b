"""W&B where it is installed, and a sentence where it is not: no run needs it."""

import importlib
import warnings
from abc import abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from sorakit.config import TrackingConfig
from sorakit.options import one_line

_INSTALL = "Install it: pip install -c constraints.txt wandb."


class Tracker(AbstractContextManager["Tracker"]):
    """What follows a run folder while it grows, from entering to leaving the context.

    Attributes:
        loggers: For Lightning's Trainer, once entered.
    """

    loggers: list[Logger]

    @abstractmethod
    def wake(self, *_: Any) -> None:
        """Say that the run folder has grown."""


def tracker_of(path: Path, config: TrackingConfig) -> Tracker | None:
    """Return the tracker of the run in `path`; None if it is not tracked.

    Without the package, a run goes on untracked, with a warning.

    Args:
        path: Run folder.
        config: Where to track.
    """
    if config.mode == "off":
        return None
    try:
        live = importlib.import_module("sorakit.tracking.live")
    except ImportError as error:
        warnings.warn(
            f"`tracking.wandb` is off, not {config.mode}: the package wandb cannot be imported "
            f"({one_line(str(error))}). {_INSTALL} `sorakit sync` then sends this run too.",
            stacklevel=2,
        )
        return None
    return live.live_tracker(path, config)


def require_wandb() -> None:
    """Raise unless the client of W&B can be imported.

    Raises:
        ValueError: If it cannot.
    """
    try:
        importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError(
            "`sorakit sync` needs the package wandb, got none that can be imported "
            f"({one_line(str(error))}). {_INSTALL}"
        ) from error
