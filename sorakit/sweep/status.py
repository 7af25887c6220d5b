"""What became of the runs below a folder, read from run folders and the files of sweeps."""

import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sorakit.records import (
    LOG_FILE,
    Run,
    find_runs,
    find_writer,
    load_run,
    read_status,
)
from sorakit.sweep.manifest import Entry, read_entries


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One run.

    Attributes:
        path: Run folder.
        task: Its task; empty if the folder cannot be read.
        state: completed, running, failed, stopped (its process is gone, or was interrupted), to
            run (of a sweep, never begun), blocked (its path has failed) or unreadable.
        num_stages: Complete stages.
        params_left: Non-zero adapter parameters of the last one; null before the first.
        detail: The error, or the process that is running.
        log: Its log, if it has one.
        resume: Command that goes on with it; null where nothing is to be done.
    """

    path: Path
    task: str = ""
    state: str
    num_stages: int = 0
    params_left: int | None = None
    detail: str = ""
    log: Path | None = None
    resume: str | None = None


def run_statuses(root: Path) -> list[RunStatus]:
    """Return the status of every run at or below `root`, and of those that sweeps have not begun.

    Runs may be going meanwhile.

    Raises:
        ValueError: If `root` does not exist.
    """
    found = {path: _status_of(path) for path in find_runs(root)}
    others = (entry for entry in read_entries(root) if entry.path not in found)
    # Those that are completed elsewhere are records that the sweep names.
    return [*found.values(), *(_status_in(e) for e in others if e.state != "completed")]


def count_states(statuses: list[RunStatus]) -> str:
    """Return how many runs are in which state."""
    counts = Counter(status.state for status in statuses)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {state}" for state, count in ordered)


def _status_of(path: Path) -> RunStatus:
    try:
        run = load_run(path)
        state, detail = _state(run)
        task = str(run.config["task"]["name"])
        left = None if run.stages.empty else int(run.stages["num_nonzero_params"].iloc[-1])
    except (ValueError, OSError) as error:
        return RunStatus(path=path, state="unreadable", detail=str(error))
    except (KeyError, TypeError) as error:
        return RunStatus(path=path, state="unreadable", detail=f"damaged files: {error}")
    command = f"sorakit run {shlex.quote(str(path))}"
    log = path / LOG_FILE
    return RunStatus(
        path=path,
        task=task,
        state=state,
        num_stages=len(run.stages),
        params_left=left,
        detail=detail,
        log=log if log.is_file() else None,
        resume=command if state in ("stopped", "failed") else None,
    )


def _status_in(entry: Entry) -> RunStatus:
    """Return the status of a run without a folder, which a sweep has told of."""
    log = entry.path / LOG_FILE
    states = {"failed": "failed", "blocked": "blocked"}
    return RunStatus(
        path=entry.path,
        task=entry.task,
        state=states.get(entry.state, "to run"),
        detail=entry.error or entry.label,
        log=log if log.is_file() else None,
    )


def _state(run: Run) -> tuple[str, str]:
    """Return the state as it is, and what there is to say of it."""
    if run.state == "completed":
        return run.state, ""
    writer = find_writer(run.path)
    if writer is None and run.state == "running":
        # It may have come to its end since the folder was read.
        if read_status(run.path)["state"] == "completed":
            return "completed", ""
        if run.status["pid"] is None:
            return "stopped", "its process is gone"
        return "stopped", f"process {run.status['pid']} on {run.status['host']} is gone"
    if writer is not None:
        return "running", writer
    if run.state == "interrupted":
        return "stopped", "interrupted"
    return run.state, str(run.status["error"] or "")
