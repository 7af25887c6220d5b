"""What a sweep does when a run ends, dies or cannot be begun, without real processes."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import final

import yaml
from typing_extensions import override

from sorakit.records import LOG_FILE
from sorakit.sweep.driver import run_sweep
from sorakit.sweep.engines import LOST, Ended, Engine
from sorakit.sweep.plan import Job, Plan, plan_sweep
from sorakit.sweep.worker import DONE, Request


@final
class ScriptedEngine(Engine):
    """Ends every run with the next of its codes; an error stands for one that cannot begin.

    Args:
        codes: What happens to the runs, in the order in which they are started.
    """

    most_deaths = 2

    def __init__(self, *codes: int | OSError) -> None:
        self._codes: Iterator[int | OSError] = iter(codes)
        self._ended: list[Ended] = []
        self.is_stopped = False

    @property
    @override
    def num_slots(self) -> int:
        return 1

    @override
    def start(self, job: Job, request: Request) -> None:
        code = next(self._codes)
        if isinstance(code, OSError):
            raise code
        self._ended.append(Ended(job=job, code=code))

    @override
    def wait(self, seconds: float) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    @override
    def stop(self) -> None:
        self.is_stopped = True


class Notes:
    """Remembers what a listener is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def changed(self, job: Job) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def refresh(self) -> None:
        pass


def sweep_of(folder: Path, *, num_runs: int) -> Plan:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({"grid": {"seed": list(range(num_runs))}}))
    return plan_sweep([file], out=folder / "out", threads_per_run=1)


def states(plan: Plan) -> list[str]:
    return [job.state for job in plan.jobs]


def test_run_that_cannot_be_begun_fails_alone(tmp_path):
    plan, engine = sweep_of(tmp_path, num_runs=2), ScriptedEngine(OSError(28, "No space"), DONE)
    outcome = run_sweep(plan, engine, Notes())
    assert states(plan) == ["failed", "completed"]
    assert [job.error for job in outcome.failed] == ["OSError: [Errno 28] No space"]
    assert engine.is_stopped


def test_killed_run_goes_on_until_it_dies_again_where_it_was(tmp_path):
    plan, notes = sweep_of(tmp_path, num_runs=1), Notes()
    run_sweep(plan, ScriptedEngine(-signal.SIGKILL, -signal.SIGKILL), notes)
    [job] = plan.jobs
    assert notes.notes == [f"{job.path} was killed by signal 9; it goes on from the start."]
    assert (job.state, job.error) == (
        "failed",
        "was killed by signal 9 2 times without getting further",
    )


def test_lost_run_that_got_further_goes_on(tmp_path):
    plan, notes = sweep_of(tmp_path, num_runs=1), Notes()
    [job] = plan.jobs
    checkpoints = job.path / "checkpoints"

    class Advancing(Notes):
        def note(self, text: str) -> None:
            super().note(text)
            checkpoints.mkdir(parents=True, exist_ok=True)
            (checkpoints / f"step_{len(self.notes):09d}.ckpt").touch()

    notes = Advancing()
    run_sweep(plan, ScriptedEngine(LOST, LOST, LOST, DONE), notes)
    assert states(plan) == ["completed"]
    assert notes.notes[-1] == (
        f"{job.path} was lost with its worker; it goes on from its last checkpoint."
    )


def test_failed_run_says_the_last_line_of_its_log(tmp_path):
    plan = sweep_of(tmp_path, num_runs=1)
    [job] = plan.jobs
    job.path.mkdir(parents=True)
    (job.path / LOG_FILE).write_text("Traceback ...\nOSError: [Errno 28] No space left\n\n")
    run_sweep(plan, ScriptedEngine(1), Notes())
    assert (job.state, job.error) == ("failed", "OSError: [Errno 28] No space left")
