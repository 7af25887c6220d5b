"""What a sweep has to do: its points, their run folders, and what is there already."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sorakit.config import METHOD_VERSION, RunConfig
from sorakit.records import (
    DENSE_STAGES_DIR,
    FLOOR,
    check_run_content,
    config_to_dict,
    dense_key,
    find_runs,
    grouped_path,
    is_complete,
    is_packed,
    is_run_folder,
    load_run,
    read_meta,
    role_of,
    run_id,
    short_hash,
)
from sorakit.records.matching import matching_ids
from sorakit.sweep.controls import ControlRule, control_of, is_path, with_ranks_of, with_steps_of
from sorakit.sweep.grid import Point, Sweep, load_sweep
from sorakit.training.inputs import require_same_inputs

State = Literal["waiting", "running", "completed", "failed", "blocked"]


@dataclass(kw_only=True)
class Job:
    """One run of a sweep, and how far it is.

    Attributes:
        point: The point.
        config: Its configuration, with run folder and number of threads.
        path: Run folder.
        dense: Key of the dense stage that it may share, or null: no other stage
            follows its own.
        steps_of: The path whose steps or ranks it is to take and which is not done yet, or null.
            Until then length of stages, run id and run folder are not known, and those here stand
            in for them.
        ranks_of_stage: Stage of that path whose ranks it takes, and not its steps, or null.
        state: waiting, running, completed, failed or blocked (the path that it needs has failed).
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
    steps_of: "Job | None" = None
    ranks_of_stage: int | None = None
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
        name: Name of the sweep file.
        jobs: One a point, each path followed by its controls.
        out: Folder of the run folders.
        records: Folders with records of finished runs that the sweep names.
        kept: Run id -> records of a run below `records`, packed or not.
        num_duplicates: Points that were there twice.
    """

    name: str
    jobs: list[Job]
    out: Path
    records: list[Path]
    kept: dict[str, Path]
    num_duplicates: int

    @property
    def store(self) -> Path:
        """Folder of the dense stages that the runs share."""
        return self.out / DENSE_STAGES_DIR

    def trained_dense_stages(self) -> set[str]:
        """Return the keys of the dense stages that are there to start from."""
        if not self.store.is_dir():
            return set()
        paths = (path for path in self.store.iterdir() if path.suffix not in {".lock", ".part"})
        return {path.name.partition("-")[0] for path in paths}

    def look_at_path(self, job: Job) -> None:
        """Give a control steps or ranks of its path if that is done; block it if that has failed.

        Args:
            job: A control with `steps_of`.

        Raises:
            ValueError: If the run folder cannot be used, or the path has no such ranks.
        """
        assert job.steps_of is not None
        if job.steps_of.state == "failed":
            job.state = "blocked"
        if job.steps_of.state != "completed":
            return
        path_run = load_run(self._done(job.steps_of))
        if job.ranks_of_stage is None:
            config = with_steps_of(job.point.config, path_run.stages)
        else:
            ranks = path_run.ranks
            config = with_ranks_of(job.point.config, ranks, stage=job.ranks_of_stage)
        job.point = replace(job.point, config=config, run_id=run_id(config))
        path = grouped_path(self.out, config, job.point.run_id)
        job.config = replace(config, out_dir=str(path), trainer=job.config.trainer)
        job.path, job.steps_of = path, None
        self.look_whether_done(job)

    def look_whether_done(self, job: Job) -> None:
        """Mark a job as completed if its run is there.

        Raises:
            ValueError: If its run folder cannot be used, a record cannot be read, or either is of
                other data or another base model than there are now.
        """
        check_run_content(job.path, job.config)
        cures = {job.path: "choose another `--out`"}
        cures |= dict.fromkeys(self._kept(job), "take its folder out of `records`")
        for path, cure in cures.items():
            if is_run_folder(path) or is_packed(path):
                require_same_inputs(path, job.config, read_meta(path), cure=cure)
        if self._record_of(job) is not None:
            job.state, job.was_there = "completed", True

    def _done(self, job: Job) -> Path:
        """Return where the records of a job are that is done."""
        path = self._record_of(job)
        assert path is not None
        return path

    def _record_of(self, job: Job) -> Path | None:
        """Return where the records of a finished job are, or None if it is not done."""
        return next(filter(is_complete, (job.path, *self._kept(job))), None)

    def _kept(self, job: Job) -> list[Path]:
        return [self.kept[job.point.run_id]] if job.point.run_id in self.kept else []


def plan_sweep(
    files: Sequence[Path], *, out: Path, threads_per_run: int, records: Sequence[Path] = ()
) -> Plan:
    """Return what has to be done for a sweep; nothing is written.

    Args:
        files: Sweep files, as for `load_sweep`.
        out: Folder of the run folders: <out>/<group>/<run_id>.
        threads_per_run: CPU threads of the runs that leave `trainer.num_threads` open.
        records: Folders with records of finished runs, beside those that the files name.

    Raises:
        ValueError: If a file, an option or a point is wrong, or a run folder cannot be used.
    """
    sweep = load_sweep(files)
    sweep.records.extend(records)
    return plan_points(sweep, out=out, threads_per_run=threads_per_run)


def plan_points(sweep: Sweep, *, out: Path, threads_per_run: int | None) -> Plan:
    """Return what has to be done for the points of a sweep and their controls.

    Args:
        sweep: The points.
        out: As for `plan_sweep`.
        threads_per_run: As for `plan_sweep`; null leaves it to torch.

    Raises:
        ValueError: If a control or a run folder cannot be used.
    """
    jobs: dict[str, Job] = {}
    shared: set[str] = set()
    for point in sweep.points:
        for job in _with_controls(point, sweep.controls, out=out, threads=threads_per_run):
            if job.point is not point and _shared_name(job) in shared:
                continue
            shared.add(_shared_name(job))
            jobs.setdefault(_name(job), job)
    plan = Plan(
        name=sweep.name,
        jobs=list(jobs.values()),
        out=out,
        records=sweep.records,
        kept=_kept_runs(sweep.records),
        num_duplicates=sweep.num_duplicates,
    )
    for job in plan.jobs:  # paths stand before their controls
        if job.steps_of is None:
            plan.look_whether_done(job)
        else:
            plan.look_at_path(job)
    return plan


def _kept_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Return run id -> records of every run at or below some folders, packed or not."""
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"`records` must be existing folders, got {str(folder)!r}.")
    paths = (path for folder in folders for path in find_runs(folder))
    return {path.name: path for path in paths}


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


def _with_controls(
    point: Point, rules: Sequence[ControlRule], *, out: Path, threads: int | None
) -> Iterator[Job]:
    """Yield the job of a point and, if it is a path, those of its controls."""
    path = _job(point, out=out, threads=threads)
    yield path
    for rule in rules if is_path(point.config) else ():
        config = control_of(point.config, rule)
        control = Point(
            config=config, run_id=run_id(config), choice={**point.choice, **rule.choice}
        )
        job = _job(control, out=out, threads=threads)
        job.steps_of = path if rule.waits_for_path else None
        job.ranks_of_stage = rule.stage
        yield job


def _name(job: Job) -> str:
    """Return what makes a job another than all others."""
    return job.point.run_id if job.steps_of is None else f"after {job.point.run_id}"


def _shared_name(job: Job) -> str:
    """Return what tells apart controls that several paths may have in common.

    A floor, and another method of one rank, are the same run beside paths that differ in gates or
    levels only.
    """
    config = job.config
    if is_path(config) or config.stage.control != "none":
        return job.point.run_id
    role = role_of(config.method.name, config.stage.control)
    content = config_to_dict(config)
    floor = matching_ids(content, method_version=METHOD_VERSION)["floor_id"]
    method = None if role == FLOOR else content["method"]
    return short_hash({"floor": floor, "role": role, "method": method})


def _job(point: Point, *, out: Path, threads: int | None) -> Job:
    config = point.config
    path = grouped_path(out, config, point.run_id)
    trainer = config.trainer
    if trainer.num_nodes > 1:
        raise ValueError(
            f"`trainer.num_nodes` must be 1 in a sweep, got {trainer.num_nodes}. Start "
            "such a run by itself (docs/cluster.md)."
        )
    if trainer.num_threads is None:
        trainer = replace(trainer, num_threads=threads)
    config = replace(config, out_dir=str(path), trainer=trainer)
    method = config.method.adapter
    has_stages = method.has_gates or method.has_stages
    return Job(
        point=point, config=config, path=path, dense=dense_key(config) if has_stages else None
    )
