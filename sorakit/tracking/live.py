"""Tracks a run while it trains; whatever goes wrong in W&B, the run goes on."""

import shutil
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from typing_extensions import override

from sorakit.config import TrackingConfig
from sorakit.records import TRACKING_DIR, load_run
from sorakit.tracking.client import (
    FAILURES,
    ClientMode,
    Target,
    check_server,
    client_mode,
    open_run,
    path_without_home,
    read_target,
    reason_of,
    write_target,
)
from sorakit.tracking.mirror import Mirror
from sorakit.tracking.optional import Tracker
from sorakit.tracking.rows import find_floor, load_floors

_ANSWER_TIMEOUT = 10
_INIT_TIMEOUT = 20.0
_FINISH_TIMEOUT = 30.0
"""Seconds that a server may keep a run waiting: for any answer, at its start and at its end."""
_INTERVAL = 0.5
"""Seconds between two looks at the run folder; with `FLUSH_INTERVAL`, a SIGKILL loses the rows of
the last second."""


class LiveTracker(Tracker):
    """Mirrors the run in a folder from entering to leaving the context.

    Entering begins the W&B run anew and logs what the folder holds already, so that a resumed run
    is complete and nothing is there twice. A failure of W&B is a warning: the folder holds
    everything, and `sorakit sync` sends it.

    Args:
        path: Run folder.
        config: Where to track; not off.

    Attributes:
        loggers: For Lightning's Trainer, once entered.
    """

    def __init__(self, path: Path, config: TrackingConfig, mode: ClientMode) -> None:
        self._path = path
        self._config = config
        self._mode: ClientMode = mode
        self._tracked: wandb.Run | None = None
        self._elsewhere: tempfile.TemporaryDirectory[str] | None = None
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._ends = threading.Event()
        self._exit_code = 0
        self._failure: BaseException | None = None
        self.loggers: list[Logger] = []

    @override
    def __enter__(self) -> "LiveTracker":
        try:
            if self._mode == "online":
                # First: wandb's own process goes on with a run that it could not begin.
                check_server(timeout=_ANSWER_TIMEOUT)
        except FAILURES as error:
            self._failed(error)
            self._mode = "offline"
        try:
            mirror = self._open()
        except FAILURES as error:
            self._failed(error)
            return self
        self._thread = threading.Thread(
            target=self._run, args=(mirror,), name="sorakit-wandb", daemon=True
        )
        self._thread.start()
        self.wake()
        return self

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._exit_code = 0 if kind is None else 1
            self._ends.set()
            self._news.set()
            self._thread.join(_FINISH_TIMEOUT)
            if self._thread.is_alive():
                self._failed(TimeoutError(f"No answer within {_FINISH_TIMEOUT:g} seconds."))
            elif self._failure is not None:
                self._failed(self._failure)
        if self._elsewhere is not None:
            self._elsewhere.cleanup()

    @property
    def url(self) -> str | None:
        """Page of the run, while it is tracked online."""
        return None if self._tracked is None else self._tracked.url

    @override
    def wake(self, *_: Any) -> None:
        """Say that the run folder has grown; a listener of `StepRecorder` and `XiScheduler`."""
        self._news.set()

    def _run(self, mirror: Mirror) -> None:
        try:
            self._follow(mirror)
        except FAILURES as error:
            self._failure = error

    def _follow(self, mirror: Mirror) -> None:
        """Mirror the folder until the run ends: the thread of this tracker.

        Online, wandb asks the server about every table that is logged and waits for the answer;
        training must not.
        """
        while not self._ends.is_set():
            self._news.wait()
            self._news.clear()
            mirror.update()
            self._ends.wait(_INTERVAL)
        mirror.finish(exit_code=self._exit_code)

    def _open(self) -> Mirror:
        run = load_run(self._path)
        target = read_target(run)
        shutil.rmtree(self._path / TRACKING_DIR, ignore_errors=True)
        tracked = open_run(
            run,
            target,
            mode=self._mode,
            folder=self._path,
            init_timeout=_INIT_TIMEOUT,
            finish_timeout=_FINISH_TIMEOUT,
        )
        # `wandb agent` decides where its runs go, and `sorakit sync` finds them there.
        write_target(
            self._path,
            Target(run_id=tracked.id, project=tracked.project, entity=tracked.entity or None),
        )
        siblings = sorted(self._path.absolute().parent.iterdir())
        mirror = Mirror(
            self._path,
            tracked,
            folder=self._staging(),
            floor=find_floor(run, load_floors(siblings)),
            log_adapters=self._config.log_adapters,
        )
        self._tracked = tracked
        self.loggers = [RunFolderLogger(experiment=tracked)]
        return mirror

    def _staging(self) -> Path:
        """Return where wandb stages files: in the run folder, from which `wandb sync` takes them.

        Elsewhere, until the run ends, if a server would be told the path, or if it cannot be told
        without that of the home folder.
        """
        folder = self._path / TRACKING_DIR
        if self._mode == "offline" and path_without_home(folder) is not None:
            return folder
        self._elsewhere = tempfile.TemporaryDirectory(prefix="sorakit-wandb-")
        return Path(self._elsewhere.name)

    def _failed(self, error: BaseException) -> None:
        warnings.warn(
            f"W&B ({self._mode}) failed: {reason_of(error)} The run folder {str(self._path)!r} "
            "holds everything; `sorakit sync` sends it.",
            stacklevel=3,
        )


class RunFolderLogger(WandbLogger):
    """Lightning's logger of the open W&B run, `experiment`, without Lightning's own rows.

    Its rows would count steps anew after a resume; those of the run come from the run folder.
    """

    @override
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        pass


def live_tracker(path: Path, config: TrackingConfig) -> LiveTracker | None:
    """Return the tracker of the run in `path`; None if it is not tracked."""
    if config.mode == "off":
        return None
    mode, reason = client_mode(config.mode)
    if reason is not None:
        warnings.warn(f"`tracking.wandb` is offline, not {config.mode}: {reason}.", stacklevel=2)
    return None if mode == "off" else LiveTracker(path, config, mode)
