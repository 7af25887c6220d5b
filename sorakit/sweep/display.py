"""What a person sees of a sweep: a live table in a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sorakit.records import LOG_FILE, read_last_stage
from sorakit.sweep.cost import CostModel, cost_model, describe_seconds
from sorakit.sweep.plan import Job, Plan

_MOST_ROWS = 12
_REFRESH_SECONDS = 1.0


class SweepDisplay(AbstractContextManager["SweepDisplay"]):
    """Shows a sweep while it runs; a `Listener` of `run_sweep`.

    Args:
        plan: The sweep.
        workers: Runs at a time, for the time left.
        console: Where it is shown.
    """

    def __init__(self, plan: Plan, *, workers: int, console: Console) -> None:
        self._plan = plan
        self._workers = workers
        self._console = console
        self._costs = plan_costs(plan)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._notes: list[str] = []
        self._refreshed = 0.0

    def __enter__(self) -> "SweepDisplay":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.update(self._render(), refresh=True)
            self._live.stop()

    def changed(self, job: Job) -> None:
        """Take note that the state of a job has changed."""
        if job.state == "completed" and not job.was_there:
            self._costs.add(job.path)
        if self._live is None and job.state != "waiting":
            ended = sum(j.state in ("completed", "failed") for j in self._plan.jobs)
            parts = [f"[{ended}/{len(self._plan.jobs)}]", job.state, str(job.path), job.point.label]
            parts += [scores(job)] if job.state == "completed" else []
            parts += [f"({job.error})"] if job.error and job.state == "failed" else []
            self._line(" ".join(part for part in parts if part))
        self._refreshed = 0.0

    def note(self, text: str) -> None:
        """Take note of something out of the ordinary."""
        if self._live is None:
            self._line(text)
        else:
            self._notes = [*self._notes, text][-3:]

    def refresh(self) -> None:
        """Show how far the runs are."""
        now = time.monotonic()
        if self._live is not None and now - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = now
            self._live.update(self._render(), refresh=True)

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        jobs = self._plan.jobs
        table = Table("state", "run", "point", "stage", "scores", box=None)
        shown = [job for job in jobs if job.state == "failed"]
        shown += [job for job in jobs if job.state == "running"]
        done = [job for job in jobs if job.state == "completed" and not job.was_there]
        shown += done[max(0, len(done) - max(0, _MOST_ROWS - len(shown))) :]
        for job in shown[:_MOST_ROWS]:
            last = read_last_stage(job.path)
            stage = "" if last is None else str(last["stage"])
            said = job.error if job.state == "failed" and job.error else scores(job)
            cells = (job.state, str(job.path), job.point.label, stage, said)
            table.add_row(*(Text(cell, overflow="fold") for cell in cells))
        lines = [Text(text, style="dim") for text in self._notes]
        return Group(Text(count_line(jobs, self._time_left())), table, *lines)

    def _time_left(self) -> float | None:
        return estimate(self._plan, self._costs).seconds(self._workers)


class Estimate:
    """What the rest of a sweep will take.

    Args:
        known: Seconds of the runs whose like has been finished before.
        num_unknown: Runs without.
    """

    def __init__(self, known: Sequence[float], *, num_unknown: int) -> None:
        self.known = list(known)
        self.num_unknown = num_unknown

    def seconds(self, workers: int) -> float | None:
        """Return the time with some workers, unknown runs taken as the mean of the known ones."""
        if not self.known:
            return None
        mean = sum(self.known) / len(self.known)
        work = sum(self.known) + self.num_unknown * mean
        return max(work / workers, max(self.known))


def estimate(plan: Plan, costs: CostModel) -> Estimate:
    """Return what the jobs that have not ended will take; a shared dense stage counts once."""
    trained = {job.dense for job in plan.jobs if job.state in ("completed", "running")}
    known: list[float] = []
    num_unknown = 0
    for job in plan.jobs:
        if job.state not in ("waiting", "running"):
            continue
        with_dense = job.dense is None or job.dense not in trained or job.state == "running"
        trained.add(job.dense)
        seconds = costs.seconds(job.config, run_id=job.point.run_id, with_dense=with_dense)
        if seconds is None:
            num_unknown += 1
        else:
            known.append(seconds)
    return Estimate(known, num_unknown=num_unknown)


def plan_costs(plan: Plan) -> CostModel:
    """Return the cost model of the runs that were finished before."""
    tasks = sorted({job.config.task.name for job in plan.jobs})
    return cost_model(plan.records, tasks=tasks)


def describe_plan(plan: Plan, *, workers: int) -> str:
    """Return the points of a sweep, a line each, and what they will cost."""
    jobs = plan.jobs
    lines = [
        f"{job.point.run_id}  {'done' if job.state == 'completed' else 'to run':6}  "
        f"{job.point.label}".rstrip()
        for job in jobs
    ]
    lines.append(count_line(jobs, None))
    if plan.num_duplicates:
        lines.append(f"{plan.num_duplicates} points are the same as others and run once.")
    waiting = [job for job in jobs if job.state == "waiting"]
    if not waiting:
        return "\n".join([*lines, "Nothing to do."])
    shared = [job.dense for job in waiting if job.dense is not None]
    alone = len(waiting) - len(shared)
    lines.append(f"{len(set(shared)) + alone} dense stages are trained for {len(waiting)} runs.")
    costs = plan_costs(plan)
    cost = estimate(plan, costs)
    seconds = cost.seconds(workers)
    if seconds is None:
        lines.append("No estimate of the time: no finished run of this kind is at hand.")
    else:
        rest = f"; {cost.num_unknown} runs are of other kinds" if cost.num_unknown else ""
        lines.append(
            f"About {describe_seconds(sum(cost.known))} of computing, {describe_seconds(seconds)} "
            f"with {workers} workers, going by {costs.num_runs} finished runs{rest}."
        )
    return "\n".join(lines)


def describe_failures(failed: Sequence[Job]) -> str:
    """Return the last lines of a sweep: what failed, and where its log is."""
    lines = [f"{len(failed)} of the runs failed; the same command tries them again:"]
    for job in failed:
        lines.append(f"  {job.path} {job.point.label}: {job.error}")
        lines.append(f"    log: {job.path / LOG_FILE}")
    return "\n".join(lines)


def count_line(jobs: Sequence[Job], seconds_left: float | None) -> str:
    """Return how many runs are in which state."""
    states = ("completed", "running", "failed", "waiting")
    words = {"completed": "done", "waiting": "to run"}
    counts = {state: sum(job.state == state for job in jobs) for state in states}
    text = ", ".join(f"{counts[state]} {words.get(state, state)}" for state in states)
    left = "" if seconds_left is None else f", about {describe_seconds(seconds_left)} left"
    return f"{len(jobs)} runs: {text}{left}"


def scores(job: Job) -> str:
    """Return the last scores of a run, or nothing before the first."""
    return describe_stage(job.path)


def describe_stage(path: Path) -> str:
    """Return parameters and scores of the last complete stage of a run folder."""
    last: dict[str, Any] | None = read_last_stage(path)
    if last is None:
        return ""
    return (
        f"{last['num_nonzero_params']:,} parameters, memorization {last['memorization']:.3f}, "
        f"generalization {last['generalization']:.3f}"
    )
