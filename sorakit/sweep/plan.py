"""What a sweep has to do: its points, their run folders, and what is there already."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sorakit.config import RunConfig
from sorakit.records import (
    check_run_content,
    dense_key,
    is_complete,
    is_run_folder,
    read_meta,
)
from sorakit.sweep.grid import Point, load_sweep

DENSE_STAGES_DIR = "dense_stages"

State = Literal["waiting", "running", "completed", "failed"]


@dataclass(kw_only=True)
class Job:
    """One run of a sweep, and how far it is.

    Attributes:
        point: The point.
        config: Its configuration, with run folder and number of threads.
        path: Run folder.
        dense: Key of the dense stage that it may share, or null: it has no adapter.
        state: waiting, running, completed or failed.
        was_there: Completed before this sweep began.
        error: Why it failed.
        deaths: Times that its process died since it last got further.
        progress: Checkpoint that it had reached when its process last died.
        not_before: Time (of `time.monotonic`) before which it is not tried again.
    """

    point: Point
    config: RunConfig
    path: Path
    dense: str | None
    state: State = "waiting"
    was_there: bool = False
    error: str | None = None
    deaths: int = 0
    progress: str | None = None
    not_before: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep, ready to run.

    Attributes:
        jobs: One a point.
        store: Folder of the dense stages that its runs share.
        records: Folders with finished runs: the sweep's own, and those that it names.
        num_duplicates: Points that were there twice.
    """

    jobs: list[Job]
    store: Path
    records: list[Path]
    num_duplicates: int


def plan_sweep(files: Sequence[Path], *, out: Path, threads_per_run: int) -> Plan:
    """Return what has to be done for a sweep; nothing is written.

    Args:
        files: Sweep files, as for `load_sweep`.
        out: Folder of the run folders: <out>/<task>/<run_id>.
        threads_per_run: CPU threads of the runs that leave `trainer.num_threads` open.

    Raises:
        ValueError: If a file, an option or a point is wrong, or a run folder cannot be used.
    """
    sweep = load_sweep(files)
    jobs = [_job(point, out=out, threads=threads_per_run) for point in sweep.points]
    for job in jobs:
        check_run_content(job.path, job.config)
        kept = [folder / job.point.run_id for folder in sweep.results]
        for path in filter(is_run_folder, kept):
            read_meta(path)  # of a schema version that can be read
        if any(is_complete(path) for path in (job.path, *kept)):
            job.state, job.was_there = "completed", True
    return Plan(
        jobs=jobs,
        store=out / DENSE_STAGES_DIR,
        records=[out, *sweep.results],
        num_duplicates=sweep.num_duplicates,
    )


def require_writable(folder: Path) -> None:
    """Make sure that runs can be written below a folder, which is made.

    Raises:
        ValueError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise ValueError(
            f"`--out` must be a folder that can be written, got {str(folder)!r}: {error}."
        ) from error


def _job(point: Point, *, out: Path, threads: int) -> Job:
    config = point.config
    path = out / config.task.name / point.run_id
    trainer = config.trainer
    if trainer.num_nodes > 1:
        raise ValueError(
            f"`trainer.num_nodes` must be 1 in a sweep, got {trainer.num_nodes}. Start "
            "such a run by itself (docs/cluster.md)."
        )
    if trainer.num_threads is None:
        trainer = replace(trainer, num_threads=threads)
    config = replace(config, out_dir=str(path), trainer=trainer)
    has_adapter = config.method.name != "head_only"
    return Job(
        point=point, config=config, path=path, dense=dense_key(config) if has_adapter else None
    )
