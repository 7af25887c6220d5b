"""What a sweep does when a run ends, dies or cannot be begun, without real processes."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import yaml
from typing_extensions import override

from sorakit.records import LOG_FILE, RunWriter
from sorakit.sweep.display import describe_failures
from sorakit.sweep.driver import run_sweep
from sorakit.sweep.engines import LOST, Ended, Engine
from sorakit.sweep.plan import Job, Plan, plan_sweep
from sorakit.sweep.worker import DONE, Request
from tests.support.fake_runs import append_fake_stage, fake_meta


@final
class ScriptedEngine(Engine):
    """Ends every run with the next of its codes; an error stands for one that cannot begin.

    Args:
        codes: What happens to the runs, in the order in which they are started.
        write: Called with a run that ends well, to leave what it would.
    """

    most_deaths = 2

    def __init__(
        self, *codes: int | OSError, write: Callable[[Job], None] = lambda job: None
    ) -> None:
        self._codes: Iterator[int | OSError] = iter(codes)
        self._write = write
        self.started: list[str] = []
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
        self.started.append(job.point.label)
        if code == DONE:
            self._write(job)
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


def write_stages(job: Job) -> None:
    """Write the folder of a finished run of three stages."""
    job.path.mkdir(parents=True)
    writer = RunWriter(job.path)
    writer.write_config(job.config)
    writer.write_meta(fake_meta(job.config))
    for stage in range(3):
        append_fake_stage(writer, job.config, stage)
    writer.write_status("completed")


def sweep_with_controls(folder: Path) -> Plan:
    file = folder / "sweep.yaml"
    content = {"xi.spacing": "target", "stage.epochs": 0.25}
    content |= {"controls": ["hold_dense", "floor"], "grid": {"seed": [0, 1]}}
    file.write_text(yaml.safe_dump(content))
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
    assert notes.notes == [f"{job.path} was killed by signal 9; starting it again."]
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
        f"{job.path} was lost with its worker; resuming from its last checkpoint."
    )


def test_failed_run_says_the_last_line_of_its_log(tmp_path):
    plan = sweep_of(tmp_path, num_runs=1)
    [job] = plan.jobs
    job.path.mkdir(parents=True)
    (job.path / LOG_FILE).write_text("Traceback ...\nOSError: [Errno 28] No space left\n\n")
    run_sweep(plan, ScriptedEngine(1), Notes())
    assert (job.state, job.error) == ("failed", "OSError: [Errno 28] No space left")


def test_control_follows_its_path_with_its_steps(tmp_path):
    plan = sweep_with_controls(tmp_path)
    engine = ScriptedEngine(*[DONE] * 6, write=write_stages)
    assert run_sweep(plan, engine, Notes()).blocked == []
    assert states(plan) == ["completed"] * 6
    assert engine.started == [job.point.label for job in plan.jobs]
    control = plan.jobs[1]
    assert (control.config.stage.epochs, control.config.xi.num_stages) == (1.0, 2)
    assert control.path == tmp_path / "out" / "pydoc_topic" / control.point.run_id

    # The same command finds everything done.
    again = sweep_with_controls(tmp_path)
    assert [job.path for job in again.jobs] == [job.path for job in plan.jobs]
    assert states(again) == ["completed"] * 6


def test_control_of_a_path_that_failed_is_not_run_and_all_else_is(tmp_path):
    plan = sweep_with_controls(tmp_path)
    engine = ScriptedEngine(1, DONE, DONE, DONE, DONE, write=write_stages)
    outcome = run_sweep(plan, engine, Notes())
    assert states(plan) == ["failed", "blocked", *["completed"] * 4]
    assert outcome.blocked == [plan.jobs[1]]
    assert "seed=0 stage.control=hold_dense" not in engine.started
    assert describe_failures(outcome.failed, blocked=outcome.blocked).startswith(
        "1 control not run: the path has failed.\n"
        "1 run failed; rerun the same command to try again:"
    )


def test_control_whose_folder_holds_something_else_fails_alone(tmp_path):
    plan = sweep_with_controls(tmp_path)

    def write(job: Job) -> None:
        write_stages(job)
        if job is plan.jobs[0]:
            sweep = sweep_with_controls(tmp_path)
            foreign = sweep.jobs[1].path / "thesis.tex"
            foreign.parent.mkdir()
            foreign.touch()

    run_sweep(plan, ScriptedEngine(*[DONE] * 5, write=write), Notes())
    assert states(plan) == ["completed", "failed", *["completed"] * 4]
    assert str(plan.jobs[1].error).startswith("`out_dir` must be empty, new or a run folder, got ")
