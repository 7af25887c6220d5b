"""Sends run folders to a W&B server: each one that the server does not hold as it is."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import CommError

from sorakit.metric_names import RECORDS_DIGEST
from sorakit.records import Run, find_runs, is_alive, is_packed, load_run, packed_in
from sorakit.tracking.client import (
    FAILURES,
    Target,
    check_server,
    open_run,
    read_target,
    reason_of,
    require_key,
)
from sorakit.tracking.mirror import Mirror
from sorakit.tracking.rows import Scores, find_floor, load_floors, num_rows, records_digest

_ANSWER_TIMEOUT = 30
_INIT_TIMEOUT = 60.0
_FINISH_TIMEOUT = 300.0


@dataclass(frozen=True, kw_only=True)
class SyncReport:
    """What became of the runs.

    Attributes:
        sent: Run folders that were sent.
        unchanged: Run folders that the server held already.
        running: Run folders that a process is writing; they are left out.
        failed: Run folder and reason of each that could not be sent.
        projects: (entity, project) of every run that is on the server now.
    """

    sent: list[Path] = field(default_factory=list)
    unchanged: list[Path] = field(default_factory=list)
    running: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    projects: set[tuple[str, str]] = field(default_factory=set)


def sync(
    root: Path,
    *,
    project: str | None = None,
    entity: str | None = None,
    say: Callable[[str], None],
) -> SyncReport:
    """Send every run at or below `root`, from its folder alone, whether it was tracked or not.

    Args:
        root: Folder of runs.
        project: Project; null is that of each run's configuration.
        entity: User or team; null is that of the configuration, or the key's own.
        say: Called with one line a run.

    Raises:
        ValueError: If there is no run, or no key.
    """
    paths = find_runs(root)
    if not paths:
        raise ValueError(f"`RUNS` must hold runs, got {str(root)!r}, which holds none.")
    require_key()
    report = SyncReport()
    try:
        api = check_server(timeout=_ANSWER_TIMEOUT)
    except FAILURES as error:
        reason = reason_of(error)
        say(f"The server does not answer: {reason}")
        report.failed.extend((path, reason) for path in paths)
        return report
    siblings = (sibling for path in paths for sibling in _siblings(path.absolute()))
    floors = load_floors(dict.fromkeys([*(path.absolute() for path in paths), *siblings]))
    for path in paths:
        run = load_run(path)
        if is_alive(run.status):
            report.running.append(path)
            say(f"{path} is running; left out.")
            continue
        floor = find_floor(run, floors)
        target = read_target(run, project=project, entity=entity)
        try:
            remote = _remote(api, target)
            if remote is not None and _is_current(remote, run, floor):
                report.unchanged.append(path)
                report.projects.add((remote.entity, remote.project))
                say(f"{path} is there already.")
                continue
            report.projects.add(_send(run, target, floor))
        except FAILURES as error:
            report.failed.append((path, reason_of(error)))
            say(f"{path} could not be sent: {reason_of(error)}")
        else:
            report.sent.append(path)
            say(f"{path} sent.")
    return report


def _siblings(path: Path) -> list[Path]:
    """Return what lies beside a run: the runs of its pack, or the folders beside its own."""
    return packed_in(path.parent) if is_packed(path) else sorted(path.parent.iterdir())


def _remote(api: wandb.Api, target: Target) -> Any:
    """Return the run as the server has it; None if it has none."""
    entity = target.entity or api.default_entity
    try:
        return api.run(f"{entity}/{target.project}/{target.run_id}")
    except CommError as error:
        if isinstance(error.exc, ValueError):  # no such run or project
            return None
        raise


def _is_current(remote: Any, run: Run, floor: Scores | None) -> bool:
    digest = records_digest(run, floor)
    rows = num_rows(run)
    return remote.summary.get(RECORDS_DIGEST) == digest and remote.lastHistoryStep == rows - 1


def _send(run: Run, target: Target, floor: Scores | None) -> tuple[str, str]:
    """Send a run and return (entity, project)."""
    with tempfile.TemporaryDirectory(prefix="sorakit-sync-") as folder:
        tracked = open_run(
            run,
            target,
            mode="online",
            folder=Path(folder),
            init_timeout=_INIT_TIMEOUT,
            finish_timeout=_FINISH_TIMEOUT,
        )
        mirror = Mirror(
            run.path,
            tracked,
            folder=Path(folder),
            floor=floor,
            log_adapters=bool((run.config.get("tracking") or {}).get("log_adapters")),
        )
        mirror.finish(exit_code=0 if run.state == "completed" else 1)
        return tracked.entity, tracked.project
