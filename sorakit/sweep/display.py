"""What a person sees of a sweep: a live table in a terminal, plain lines elsewhere."""

import importlib.util
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sorakit.records import LOG_FILE, dataset_label, read_last_stage, read_timings
from sorakit.sweep.cost import CostModel, cost_model
from sorakit.sweep.plan import Job, Plan
from sorakit.sweep.status import RunStatus
from sorakit.training.time_left import describe_seconds

_MOST_ROWS = 12
_MOST_FAILED = 3
_MOST_NOTES = 2
_WIDE = 100
"""Columns of a terminal from which run ids and numbers of parameters are shown."""
_HEADS = ("stages", "share", "mem.", "gen.", "left")
_WIDE_HEADS = ("stages", "parameters", "share", "mem.", "gen.", "left")
_BAR = 76
_REFRESH_SECONDS = 1.0
_LINE_SECONDS = 120.0
"""Between two lines that say how far a sweep is, where there is no terminal to show a table."""
_ROUGH = (
    "A time left with `perhaps` is a guess from the first stages of runs, until a run of every "
    "kind is done."
)
_WORDS = {"completed": "done", "waiting": "to run"}
_ENDED = ("completed", "failed", "blocked")


class SweepDisplay(AbstractContextManager["SweepDisplay"]):
    """Shows a sweep while it runs; a `Listener` of `run_sweep`.

    Args:
        plan: The sweep.
        workers: Runs at a time, for the time left.
        console: Where it is shown: a terminal, a notebook, or a file, which gets plain lines.
        costs: What the time left rests on; null makes `plan_costs` of the plan.
    """

    def __init__(
        self, plan: Plan, *, workers: int, console: Console, costs: CostModel | None = None
    ) -> None:
        self._plan = plan
        self._workers = workers
        self._console = console
        self._costs = plan_costs(plan) if costs is None else costs
        self._live = Live(console=console, auto_refresh=False) if _can_redraw(console) else None
        self._notes: list[str] = []
        self._refreshed = time.monotonic() if self._live is None else 0.0

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
            self._live.update(self._render(final=True), refresh=True)
            self._live.stop()

    def changed(self, job: Job) -> None:
        """Take note that the state of a job has changed."""
        if job.state == "completed" and not job.was_there:
            self._costs.add(job.path)
        if self._live is None and job.state != "waiting":
            ended = sum(j.state in _ENDED for j in self._plan.jobs)
            parts = [f"[{ended}/{len(self._plan.jobs)}]", job.state, str(job.path), job.point.label]
            parts += [_describe_last_stage(job)] if job.state == "completed" else []
            parts += [f"({job.error})"] if job.error and job.state == "failed" else []
            line = " ".join(part for part in parts if part)
            left = self._time_left() if job.state == "completed" else None
            self._line(line if left is None else f"{line}, {left}")
        if self._live is not None:
            self._refreshed = 0.0

    def note(self, text: str) -> None:
        """Take note of something out of the ordinary."""
        if self._live is None:
            self._line(text)
        else:
            self._notes = [*self._notes, text][-_MOST_NOTES:]

    def refresh(self) -> None:
        """Show how far the runs are."""
        now = time.monotonic()
        pause = _LINE_SECONDS if self._live is None else _REFRESH_SECONDS
        if now - self._refreshed < pause:
            return
        self._refreshed = now
        if self._live is None:
            self._line(self._head().plain)
        else:
            self._live.update(self._render(), refresh=True)

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self, *, final: bool = False) -> Group:
        jobs = self._plan.jobs
        failed = [job for job in jobs if job.state == "failed"]
        ended = sum(job.state in _ENDED for job in jobs)
        bar = ProgressBar(total=len(jobs), completed=ended, width=_BAR)
        parts: list[RenderableType] = [self._head(), Padding(bar, 0)]  # padding ends the line
        # What must not be cut off at the lower edge stands above the table.
        if not final:  # after the last time, the failures are printed in full
            parts += [_failure_line(job) for job in failed[-_MOST_FAILED:]]
            if len(failed) > _MOST_FAILED:
                parts.append(Text(f"... and {len(failed) - _MOST_FAILED} more failed", "red"))
        parts += [_one_line(note, style="dim") for note in self._notes]
        room = self._console.height - len(parts) - 3  # an empty line, the table's head, the cursor
        table = self._table(max(1, min(_MOST_ROWS, room)))
        return Group(*parts, *((Text(), table) if table.row_count else ()))

    def _head(self) -> Text:
        jobs = self._plan.jobs
        left = self._time_left()
        head = Text(count_line(jobs, left))
        if left is None and any(job.state in ("waiting", "running") for job in jobs):
            head.append(", time left not known yet")
        head.highlight_regex(r"[1-9][0-9]* failed", "bold red")
        head.highlight_regex(r"[1-9][0-9]* running", "bold")
        head.highlight_regex(r"[1-9][0-9]* done", "green")
        return head

    def _table(self, most: int) -> Table:
        jobs = self._plan.jobs
        wide = self._console.width >= _WIDE
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("state", no_wrap=True)
        if wide:
            table.add_column("run", no_wrap=True)
        table.add_column("point")
        for name in _WIDE_HEADS if wide else _HEADS:
            table.add_column(name, justify="right", no_wrap=True)
        shown = [job for job in jobs if job.state == "running"]
        done = [job for job in jobs if job.state == "completed" and not job.was_there]
        shown += reversed(done[len(done) - max(0, most - len(shown)) :])
        for job in shown[:most]:
            style = "" if job.state == "running" else "dim"
            run = [job.point.run_id] if wide else []
            stages, count, *rest = _numbers(job)
            numbers = [stages, *([count] if wide else []), *rest, self._run_left(job)]
            cells = [_WORDS.get(job.state, job.state), *run, _short_label(job), *numbers]
            # The column of the labels gives way to the others, and a row stays a line.
            row = (Text(cell, no_wrap=True, overflow="ellipsis") for cell in cells)
            table.add_row(*row, style=style)
        return table

    def _run_left(self, job: Job) -> str:
        """Return what a running run will still take, or nothing."""
        if job.state != "running":
            return ""
        seconds = self._costs.seconds(job.config, run_id=job.point.run_id, with_dense=True)
        if seconds is None:
            return ""
        return describe_seconds(max(0.0, seconds - _seconds_spent(job.path)))

    def _time_left(self) -> str | None:
        """Return the time left as a person says it, or None while nothing is known."""
        rest = estimate(self._plan, self._costs)
        seconds = rest.seconds(self._workers)
        if seconds is None:
            return None
        return f"{'perhaps' if rest.is_rough else 'about'} {describe_seconds(seconds)} left"


class Estimate:
    """What the rest of a sweep will take.

    Args:
        known: Seconds of the runs of which something is known.
        num_unknown: Runs without.
        num_rough: Runs among the known ones whose like has never been finished.
    """

    def __init__(self, known: Sequence[float], *, num_unknown: int, num_rough: int = 0) -> None:
        self.known = list(known)
        self.num_unknown = num_unknown
        self.num_rough = num_rough

    @property
    def is_rough(self) -> bool:
        """Whether it rests on the first stages of runs, or on runs of other kinds."""
        return self.num_unknown > 0 or self.num_rough > 0

    def work(self) -> float | None:
        """Return the seconds of computing, unknown runs taken as the mean of the known ones."""
        if not self.known:
            return None
        return sum(self.known) * (1 + self.num_unknown / len(self.known))

    def seconds(self, workers: int) -> float | None:
        """Return the time with some workers."""
        work = self.work()
        return None if work is None else max(work / workers, max(self.known))


def estimate(plan: Plan, costs: CostModel) -> Estimate:
    """Return what the jobs that have not ended will take; a shared dense stage counts once."""
    trained: set[str | None] = {*plan.trained_dense_stages()}
    trained |= {job.dense for job in plan.jobs if job.state == "running"}
    known: list[float] = []
    num_unknown = num_rough = 0
    for job in plan.jobs:
        if job.state == "running":
            costs.look_at_running(job.path, num_stages=job.config.xi.num_stages)
    for job in plan.jobs:
        if job.state not in ("waiting", "running"):
            continue
        with_dense = job.dense is None or job.dense not in trained or job.state == "running"
        trained.add(job.dense)
        seconds = costs.seconds(job.config, run_id=job.point.run_id, with_dense=with_dense)
        if seconds is None:
            num_unknown += 1
        elif job.state == "running":
            known.append(max(0.0, seconds - _seconds_spent(job.path)))
        else:
            known.append(seconds)
        if seconds is not None and not costs.has_finished(job.point.run_id):
            num_rough += 1
    return Estimate(known, num_unknown=num_unknown, num_rough=num_rough)


def plan_costs(plan: Plan) -> CostModel:
    """Return the cost model of the runs that were finished before."""
    tasks = sorted({name for j in plan.jobs for name in (j.config.task.name, j.path.parent.name)})
    return cost_model([plan.out, *plan.records], tasks=tasks)


def describe_plan(plan: Plan, *, workers: int) -> str:
    """Return the points of a sweep, a line each, and what they will cost."""
    lines = [
        f"{_run_id(job):12}  {'done' if job.state == 'completed' else 'to run':6}  "
        f"{job.point.label}".rstrip()
        for job in plan.jobs
    ]
    return "\n".join([*lines, describe_work(plan, workers=workers)])


def describe_work(plan: Plan, *, workers: int) -> str:
    """Return how many runs there are to do, and what they will cost."""
    lines = describe_runs(plan)
    if any(job.state == "waiting" for job in plan.jobs):
        lines.append(_describe_cost(plan, workers=workers))
    return "\n".join(lines)


def describe_runs(plan: Plan) -> list[str]:
    """Return how many runs there are to do, and how they hang together; a line a fact."""
    jobs = plan.jobs
    lines = [count_line(jobs, None)]
    num_after = sum(job.steps_of is not None for job in jobs)
    if num_after:
        verb = "control takes its" if num_after == 1 else "controls take their"
        lines.append(
            f"{num_after} {verb} steps or ranks from the path, and begin{'s' * (num_after == 1)} "
            "when that is done."
        )
    if plan.num_duplicates:
        same = (
            "point is the same as another and runs"
            if plan.num_duplicates == 1
            else ("points are the same as others and run")
        )
        lines.append(f"{plan.num_duplicates} {same} once.")
    waiting = [job for job in jobs if job.state == "waiting"]
    if not waiting:
        return [*lines, "Nothing to do."]
    shared = [job.dense for job in waiting if job.dense is not None]
    num_dense = len(set(shared) - plan.trained_dense_stages()) + len(waiting) - len(shared)
    if num_dense:
        lines.append(
            f"{_several(num_dense, 'dense stage')} {'is' if num_dense == 1 else 'are'} trained for "
            f"{_several(len(waiting), 'run')}."
        )
    return lines


def _describe_cost(plan: Plan, *, workers: int) -> str:
    """Return what the runs will cost, going by finished ones."""
    costs = plan_costs(plan)
    cost = estimate(plan, costs)
    work, seconds = cost.work(), cost.seconds(workers)
    if work is None or seconds is None:
        return f"No estimate of the time: no finished run of this kind is at hand. {_ROUGH}"
    about = (
        f"About {describe_seconds(work)} of computing, {describe_seconds(seconds)} with "
        f"{_several(workers, 'worker')}, going by {_several(costs.num_runs, 'finished run')}"
    )
    if cost.num_unknown:
        verb = "is of another kind" if cost.num_unknown == 1 else "are of other kinds"
        about += f"; {_several(cost.num_unknown, 'run')} {verb} and taken for the mean of the rest"
    return f"{about}."


def describe_failures(failed: Sequence[Job], *, blocked: Sequence[Job]) -> str:
    """Return the last lines of a sweep: what failed, where its log is, and what waits for it."""
    lines = [f"{_several(len(failed), 'run')} failed; rerun the same command to try again:"]
    for job in failed:
        lines.append(f"  {job.path} {job.point.label}: {job.error}")
        lines.append(f"    log: {job.path / LOG_FILE}")
    if blocked:
        lines.insert(0, f"{_several(len(blocked), 'control')} not run: the path has failed.")
    return "\n".join(lines)


def count_line(jobs: Sequence[Job], left: str | None) -> str:
    """Return how many runs are in which state."""
    states = ("completed", "running", "failed", "waiting")
    counts = {state: sum(job.state == state for job in jobs) for state in states}
    text = ", ".join(f"{counts[state]} {_WORDS.get(state, state)}" for state in states)
    num_blocked = sum(job.state == "blocked" for job in jobs)
    text += f", {num_blocked} blocked" if num_blocked else ""
    return f"{len(jobs)} runs: {text}{'' if left is None else f', {left}'}"


def status_table(statuses: Sequence[RunStatus], root: Path) -> Table:
    """Return a row a run, named by its folder below `root`."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", no_wrap=True)
    table.add_column("state")
    table.add_column("stages", justify="right")
    table.add_column("params left", justify="right", no_wrap=True)
    table.add_column("")
    for run in statuses:
        name = str(run.path) if run.path == root else str(run.path.relative_to(root))
        left = "" if run.params_left is None else f"{run.params_left:,}"
        cells = (name, run.state, str(run.num_stages), left, run.detail)
        table.add_row(*(Text(cell) for cell in cells))  # a file name may look like markup
    return table


def _describe_last_stage(job: Job) -> str:
    """Return parameters and scores of the last complete stage, or nothing before the first."""
    last = read_last_stage(job.path)
    if last is None:
        return ""
    return (
        f"{last['num_nonzero_params']:,} parameters, memorization {last['memorization']:.3f}, "
        f"generalization {last['generalization']:.3f}"
    )


def _numbers(job: Job) -> list[str]:
    """Return stages, parameters, their share and scores of the last complete stage, as cells."""
    last = read_last_stage(job.path)
    if last is None:
        return ["0", "", "", "", ""]
    scores = (last["memorization"], last["generalization"])
    left, full = last["num_nonzero_params"], last["num_adapter_params"]
    return [
        str(int(last["stage"]) + 1),
        f"{left:,}",
        f"{left / full:.1%}" if full else "",
        *(f"{score:.3f}" for score in scores),
    ]


def _run_id(job: Job) -> str:
    """Return the run id, or a dash while the path that decides it is not done."""
    return "-" if job.steps_of is not None else job.point.run_id


def _short_label(job: Job) -> str:
    """Return the label of a point without what its values say by themselves."""
    choice = dict(job.point.choice)
    parts: list[str] = []
    if sum(option.startswith("task.") for option in choice) > 1:  # they name one dataset together
        choice = {name: value for name, value in choice.items() if not name.startswith("task.")}
        parts.append(dataset_label(vars(job.config.task)))
    parts += [
        value if isinstance(value, str) else f"{option.rpartition('.')[2]}={value}"
        for option, value in choice.items()
    ]
    return " ".join(parts) or dataset_label(vars(job.config.task))


def _can_redraw(console: Console) -> bool:
    """Return whether a table can be redrawn in place; in a notebook that takes ipywidgets."""
    return console.is_terminal or (
        console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    )


def _failure_line(job: Job) -> Text:
    return _one_line(f"failed {_short_label(job)}: {job.error}", style="red")


def _one_line(text: str, *, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _seconds_spent(path: Path) -> float:
    return math.fsum(float(row.get("seconds", 0.0)) for row in read_timings(path))


def _several(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
