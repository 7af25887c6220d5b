"""One run from its configuration to a completed run folder."""

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import datasets

from sorakit.config import RunConfig
from sorakit.locks import FileLock
from sorakit.records import (
    CHECKPOINTS_DIR,
    DENSE_CHECKPOINT,
    LOCK_FILE,
    FolderInUseError,
    RunWriter,
    check_run_folder,
    is_complete,
    is_run_folder,
    read_meta,
    run_path,
)
from sorakit.tracking.optional import Tracker, tracker_of
from sorakit.training.build import Fit, build
from sorakit.training.dense import SharedDenseStage, dense_name
from sorakit.training.devices import end_with_parent, global_rank, join
from sorakit.training.inputs import require_same_inputs
from sorakit.training.kept_status import kept_status
from sorakit.training.resume import Resume, find_resume

_LOCK_PATIENCE = 2.0
"""Seconds: somebody who looks who holds the lock of a run folder takes it for a moment."""


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What `run` did.

    Attributes:
        path: The run folder.
        action: completed (it ran to its end), skipped (it was complete already) or followed (as
            one of the other processes of a run on several devices).
    """

    path: Path
    action: Literal["completed", "skipped", "followed"]


def run(
    config: RunConfig,
    *,
    show_progress: bool = True,
    dense_store: Path | None = None,
    cost: str | None = None,
) -> RunOutcome:
    """Run Algorithm 1, or go on with it where a killed process left it, and record every stage.

    The steps are: resolve the folder, build, restore, fit, close. With several devices, every
    process of the run calls this; that of rank 0 writes.

    Args:
        config: Resolved configuration.
        show_progress: Show the progress bar and one line a stage on stderr.
        dense_store: Folder of dense stages that runs share: this run starts from its own if it is
            there, or makes it; null trains it for this run alone.
        cost: What it will take, if that is known; shown when training begins.

    Raises:
        FolderInUseError: If another process is writing into the run folder.
        KeyboardInterrupt: After Ctrl-C; after SIGTERM, with that signal as its argument.
        ValueError: If the configuration cannot be run; nothing has been written then.
    """
    path = run_path(config)
    quiet_libraries()
    rank = global_rank(config.trainer)
    if rank > 0:
        return _follow(config, path, rank=rank)
    check_run_folder(path, config)
    if is_complete(path):
        require_same_inputs(path, config, read_meta(path))
        return RunOutcome(path=path, action="skipped")
    fit = build(config, path, rank=rank, show_progress=show_progress, cost=cost)
    lock = _lock(path)
    try:
        if is_run_folder(path):
            require_same_inputs(path, config, read_meta(path), loaded=fit.meta)
        if is_complete(path):  # since this process looked
            return RunOutcome(path=path, action="skipped")
        _lead(fit, config, path, dense_store=dense_store)
    finally:
        lock.release()
    return RunOutcome(path=path, action="completed")


def _follow(config: RunConfig, path: Path, *, rank: int) -> RunOutcome:
    """Train as a process of rank > 0, which writes nothing."""
    end_with_parent()
    if not is_complete(path):
        try:
            fit = build(config, path, rank=rank, show_progress=False)
            join(fit.trainer)  # by then rank 0 has prepared the run folder
            resume = find_resume(path)
            if not resume.is_finished:
                fit.train(resume.checkpoint)
        except KeyboardInterrupt as error:  # rank 0 tells the user
            raise SystemExit(128 + signal.SIGINT) from error
    return RunOutcome(path=path, action="followed")


def _lead(fit: Fit, config: RunConfig, path: Path, *, dense_store: Path | None) -> None:
    """Train in the run folder, whose lock this process holds."""
    writer = RunWriter(path)
    if not is_run_folder(path):
        writer.write_config(config)
        writer.write_meta(fit.meta)
    tracker = tracker_of(path, config.tracking)
    with kept_status(writer), _dense_stage(fit, config, dense_store) as dense:
        resume = _restore(fit, path, dense=dense)
        writer.keep_stages(resume.completed_stages)
        writer.keep_steps(resume.step)
        join(fit.trainer)
        with contextlib.nullcontext() if tracker is None else tracker:
            _show(fit, tracker)
            if not resume.is_finished:
                fit.train(resume.checkpoint)
            writer.write_status("completed")  # before the tracker closes, which shows it


def _show(fit: Fit, tracker: Tracker | None) -> None:
    """Let a tracker that runs follow the run folder."""
    fit.trainer.loggers = [] if tracker is None else tracker.loggers
    if tracker is not None:
        fit.steps.on_step.append(tracker.wake)
        fit.scheduler.on_stage_end.append(tracker.wake)


@contextlib.contextmanager
def _dense_stage(
    fit: Fit, config: RunConfig, store: Path | None
) -> Iterator[SharedDenseStage | None]:
    """Give the shared dense stage of a run, and let another process train it afterwards."""
    if store is None or not fit.has_adapter:
        yield None
        return
    dense = SharedDenseStage(store, name=dense_name(config, fit.meta))
    try:
        yield dense
    finally:
        dense.release()


def _restore(fit: Fit, path: Path, *, dense: SharedDenseStage | None) -> Resume:
    """Return where the run goes on: from its own checkpoints, or from the shared dense stage.

    A dense stage that this run trains is shared as soon as it ends.
    """
    resume = find_resume(path)
    if dense is None:
        return resume
    name = str(read_meta(path)["run_id"])
    if resume.stage == 0 and not dense.claim():
        dense.start_run(path)
        return find_resume(path)
    if (path / CHECKPOINTS_DIR / DENSE_CHECKPOINT).exists() and resume.stage > 0:
        dense.publish(path, run_id=name)  # in case its maker died before it could
    else:
        fit.resume_point.on_dense_end.append(lambda: dense.publish(path, run_id=name))
    return resume


def _lock(path: Path) -> FileLock:
    """Return the lock of a run folder, taken; the folder is made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK_FILE)
        is_mine = lock.acquire(patience=_LOCK_PATIENCE)
    except OSError as error:
        raise ValueError(
            f"`out_dir` must be a folder that can be written, got {str(path)!r}: {error}."
        ) from error
    if not is_mine:
        raise FolderInUseError(
            f"`out_dir` must not be in use, got {str(path)!r}, which another process is writing."
        )
    return lock


def quiet_libraries() -> None:
    """Keep the libraries' banners and hints that do not apply here out of the terminal."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    # One batch is collated in microseconds from tokens in memory; workers would only cost.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    warnings.filterwarnings("ignore", message="The number of training batches")
    # peft 0.21 with transformers 5.23, in every get_peft_model
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    # lightning 2.6.6 with torch 2.13
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
