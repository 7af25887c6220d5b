"""Runs the jobs of a sweep: what comes next, what is tried again, what has failed."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from sorakit.records import (
    CHECKPOINTS_DIR,
    DENSE_CHECKPOINT,
    LOG_FILE,
    find_writer,
    is_complete,
    read_status,
)
from sorakit.sweep.engines import Ended, Engine, request_of
from sorakit.sweep.plan import Job, Plan, State
from sorakit.sweep.worker import DONE, IN_USE, INTERRUPTED, last_line

_POLL_SECONDS = 0.5
_BUSY_SECONDS = 5.0
"""Until it is looked again at a run that another process is making."""


@runtime_checkable
class Listener(Protocol):
    """What is told how a sweep goes on."""

    def changed(self, job: Job) -> None:
        """Take note that the state of a job has changed."""
        ...

    def note(self, text: str) -> None:
        """Take note of something out of the ordinary."""
        ...

    def refresh(self) -> None:
        """Show how far the runs are; called a few times a second at most."""
        ...


@dataclass(frozen=True, kw_only=True)
class SweepOutcome:
    """How a sweep ended.

    Attributes:
        failed: Runs that have failed.
        blocked: Controls of paths that have failed.
    """

    failed: list[Job]
    blocked: list[Job]


def run_sweep(plan: Plan, engine: Engine, listener: Listener) -> SweepOutcome:
    """Run every job that is not completed; one that fails does not stop the others.

    Of the runs that share a dense stage, one begins; the others follow when it is trained. A
    control that is to take as many steps as its path begins when that is done.

    Args:
        plan: The jobs, whose states are kept up to date.
        engine: What runs them. It is stopped in the end.
        listener: What is told.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when every run has stopped and can be resumed.
    """
    jobs = plan.jobs
    try:
        _look_at_paths(plan, listener)
        while any(job.state in ("waiting", "running") for job in jobs):
            _start(plan, engine, listener)
            for ended in engine.wait(_POLL_SECONDS):
                _settle(ended, engine, listener)
            _look_at_paths(plan, listener)
            listener.refresh()
    finally:
        engine.stop()
    listener.refresh()
    return SweepOutcome(
        failed=[job for job in jobs if job.state == "failed"],
        blocked=[job for job in jobs if job.state == "blocked"],
    )


def _look_at_paths(plan: Plan, listener: Listener) -> None:
    """Let the controls follow whose paths are done, and block those whose paths have failed."""
    for job in plan.jobs:
        if job.state != "waiting" or job.steps_of is None:
            continue
        try:
            plan.look_at_path(job)
        except ValueError as error:  # its run folder, known only now, cannot be used
            job.steps_of = None
            job.error = str(error)
            job.state = "failed"
        if job.state != "waiting":
            listener.changed(job)


def _start(plan: Plan, engine: Engine, listener: Listener) -> None:
    jobs = plan.jobs
    free = engine.num_slots - sum(job.state == "running" for job in jobs)
    trained = plan.trained_dense_stages()
    now = time.monotonic()
    # Here, or by another sweep; two that wait for one would only take the place of others.
    in_making = {
        job.dense
        for job in jobs
        if (job.state == "running" or job.not_before > now) and not _has_dense_stage(job)
    }
    for job in jobs:
        if free <= 0:
            return
        if job.state != "waiting" or job.steps_of is not None or job.not_before > now:
            continue
        needs_dense = job.dense not in trained and not _has_dense_stage(job)
        if job.dense is not None and job.dense in in_making and needs_dense:
            continue
        if is_complete(job.path):  # by another sweep
            _change(job, "completed", listener)
            continue
        free -= _begin(job, engine, listener, store=plan.store)
        if needs_dense:
            in_making.add(job.dense)


def _begin(job: Job, engine: Engine, listener: Listener, *, store: Path) -> bool:
    """Start a job, unless another process is making it; return whether it runs."""
    writer = find_writer(job.path)
    if writer is not None:
        _wait_for(job, writer, listener)
        return False
    try:
        engine.start(job, request_of(job, dense_store=str(store)))
    except OSError as error:
        job.error = f"{type(error).__name__}: {error}"
        _change(job, "failed", listener)
        return False
    _change(job, "running", listener)
    return True


def _settle(ended: Ended, engine: Engine, listener: Listener) -> None:
    job = ended.job
    if ended.code == DONE:
        _change(job, "completed", listener)
    elif ended.code == IN_USE:
        _wait_for(job, find_writer(job.path) or "another process", listener)
        _change(job, "waiting", listener)
    elif ended.code < 0 or ended.code == INTERRUPTED:
        _try_again(job, engine, listener, reason=_death(ended.code))
    else:
        status = read_status(job.path)
        job.error = ended.error or last_line(job.path / LOG_FILE) or f"exit code {ended.code}"
        if status["state"] == "failed" and status["error"]:
            job.error = str(status["error"])
        _change(job, "failed", listener)


def _try_again(job: Job, engine: Engine, listener: Listener, *, reason: str) -> None:
    progress = _newest_checkpoint(job)
    job.deaths = job.deaths + 1 if progress == job.progress else 1
    job.progress = progress
    if job.deaths >= engine.most_deaths:
        job.error = f"{reason} {job.deaths} times without getting further"
        _change(job, "failed", listener)
    else:
        how = "resuming from its last checkpoint" if progress else "starting it again"
        listener.note(f"{job.path} {reason}; {how}.")
        _change(job, "waiting", listener)


def _wait_for(job: Job, writer: str, listener: Listener) -> None:
    if job.not_before == 0.0:
        listener.note(f"{job.path} is being made by {writer}; waiting for that.")
    job.not_before = time.monotonic() + _BUSY_SECONDS


def _change(job: Job, state: State, listener: Listener) -> None:
    job.state = state
    listener.changed(job)


def _has_dense_stage(job: Job) -> bool:
    return (job.path / CHECKPOINTS_DIR / DENSE_CHECKPOINT).is_file()


def _newest_checkpoint(job: Job) -> str | None:
    names = sorted(file.name for file in (job.path / CHECKPOINTS_DIR).glob("step_*.ckpt"))
    return names[-1] if names else None


def _death(code: int) -> str:
    if code == INTERRUPTED:
        return "was interrupted"
    if code == -1:
        return "was lost with its worker"
    return f"was killed by signal {-code}"
