"""`sorakit status`: what became of runs, from their folders alone."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sorakit.config import XiConfig
from sorakit.locks import FileLock
from sorakit.records import LOCK_FILE, LOG_FILE
from sorakit.sweep.driver import Listener
from sorakit.sweep.manifest import Recorded
from sorakit.sweep.plan import Job, Plan, plan_sweep
from sorakit.sweep.status import RunStatus, count_states, run_statuses
from tests.support.fake_runs import write_run


def status_of(root: Path) -> RunStatus:
    [status] = run_statuses(root)
    return status


def say_running(path: Path, *, pid: int, host: str | None = None) -> None:
    status = {"state": "running", "error": None, "host": host or socket.gethostname(), "pid": pid}
    (path / "status.json").write_text(json.dumps(status))


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_completed_run_needs_nothing(tmp_path):
    status = status_of(write_run(tmp_path).parent)
    assert (status.state, status.num_stages, status.params_left) == ("completed", 8, 0)
    assert status.resume is None


def test_run_of_a_living_process_is_running(tmp_path):
    path = write_run(tmp_path, num_stages=2)
    say_running(path, pid=os.getppid())
    status = status_of(tmp_path)
    assert (status.state, status.num_stages, status.resume) == ("running", 2, None)
    assert status.detail == f"process {os.getppid()} on {socket.gethostname()}"


def test_run_whose_process_is_gone_is_stopped_and_says_how_to_go_on(tmp_path, dead_pid):
    path = write_run(tmp_path, num_stages=2)
    say_running(path, pid=dead_pid)
    status = status_of(tmp_path)
    assert status.state == "stopped"
    assert status.detail == f"process {dead_pid} on {socket.gethostname()} is gone"
    assert status.resume == f"sorakit run {path}"


def test_run_of_another_machine_is_known_by_its_lock(tmp_path):
    path = write_run(tmp_path, num_stages=2)
    say_running(path, pid=1, host="elsewhere")
    lock = FileLock(path / LOCK_FILE)
    assert lock.acquire()
    assert status_of(tmp_path).state == "running"
    lock.release()
    assert status_of(tmp_path).state == "stopped"


def test_failed_run_names_error_and_log(tmp_path):
    path = write_run(tmp_path, num_stages=1, state="failed", error="RuntimeError: out of memory")
    (path / LOG_FILE).write_text("...")
    status = status_of(tmp_path)
    assert (status.state, status.detail) == ("failed", "RuntimeError: out of memory")
    assert status.log == path / LOG_FILE
    assert status.resume is not None


def test_interrupted_run_is_stopped(tmp_path):
    write_run(tmp_path, num_stages=1, state="interrupted")
    assert status_of(tmp_path).state == "stopped"


def test_run_being_written_is_read(tmp_path):
    # a killed process: no status yet, no stage, a torn line
    path = write_run(tmp_path, num_stages=1)
    (path / "status.json").unlink()
    with (path / "stages.jsonl").open("a") as stream:
        stream.write('{"stage": 1, "xi"')
    status = status_of(tmp_path)
    assert (status.state, status.num_stages) == ("stopped", 1)


def test_run_of_another_schema_version_does_not_hide_the_others(tmp_path):
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=1, meta={"schema_version": 99})
    statuses = run_statuses(tmp_path)
    assert count_states(statuses) == "1 completed, 1 unreadable"
    [other] = [status for status in statuses if status.state == "unreadable"]
    assert other.detail.startswith("`schema_version` must be 1, got 99")


@pytest.mark.parametrize("name", ["status.json", "meta.json", "config.yaml", "stages.jsonl"])
@pytest.mark.parametrize("content", ["", "{\n", "[]\n", '{"state": "running", "pid": "x"}\n'])
def test_damaged_file_does_not_hide_the_others(name, content, tmp_path):
    write_run(tmp_path, seed=0)
    damaged = write_run(tmp_path, seed=1)
    (damaged / name).write_text(content)
    by_path = {status.path: status for status in run_statuses(tmp_path)}
    assert sorted(status.state for status in by_path.values())[0] == "completed"
    if (name, content) == ("stages.jsonl", ""):
        return  # a run before its first stage
    assert by_path[damaged].state == "unreadable"
    assert by_path[damaged].detail


def test_status_that_a_hand_wrote_is_read(tmp_path):
    path = write_run(tmp_path)
    (path / "status.json").write_text('{"state": "failed", "error": "E"}')
    status = status_of(tmp_path)
    assert (status.state, status.detail) == ("failed", "E")


def test_dense_stages_are_no_runs(tmp_path):
    write_run(tmp_path)
    (tmp_path / "dense_stages" / "0123").mkdir(parents=True)
    (tmp_path / "dense_stages" / "0123" / "dense.json").write_text("{}")
    assert len(run_statuses(tmp_path)) == 1


# Runs without a folder -----------------------------------------------------------------------


def sweep_with_control(folder: Path) -> Plan:
    (folder / "kept").mkdir(exist_ok=True)
    file = folder / "both.yaml"
    content = {"xi.spacing": "target", "controls": ["hold_dense"], "records": "kept"}
    file.write_text(yaml.safe_dump({**content, "grid": {"seed": [0, 1, 2]}}))
    return plan_sweep([file], out=folder / "out", threads_per_run=1)


class Silent(Listener):
    """Says nothing."""

    def changed(self, job: Job) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def refresh(self) -> None:
        pass


def test_runs_of_a_sweep_that_were_never_begun_are_listed(tmp_path):
    write_run(tmp_path / "kept", xi=XiConfig(spacing="target"), seed=2)  # done elsewhere
    plan = sweep_with_control(tmp_path)
    recorded = Recorded(plan, Silent())
    first, first_control, second, second_control, _, third_control = plan.jobs
    write_run(tmp_path / "out" / "pydoc_topic", xi=XiConfig(spacing="target"))
    first.state = "completed"
    second.state, second.error = "failed", "ValueError: `task.data_dir` must be ..."
    second_control.state = "blocked"
    second.path.mkdir(parents=True)
    (second.path / LOG_FILE).write_text("a traceback")
    recorded.changed(second)
    recorded.refresh()
    out = tmp_path / "out"
    assert [
        str(path.relative_to(out)) for path in out.rglob("*.json") if path.parent.name == "sweeps"
    ] == ["sweeps/both.json"]
    unknown = out / "pydoc_topic" / "-"
    found = [(run.path, run.state, run.detail) for run in run_statuses(out)]
    assert found == [
        (first.path, "completed", ""),
        (unknown, "to run", first_control.point.label),
        (second.path, "failed", second.error),
        (unknown, "blocked", second_control.point.label),
        (third_control.path, "to run", third_control.point.label),
    ]
    [failed] = [run for run in run_statuses(out) if run.state == "failed"]
    assert failed.log == second.path / LOG_FILE


def test_folder_of_the_run_says_more_than_the_file_of_the_sweep(tmp_path):
    plan = sweep_with_control(tmp_path)
    Recorded(plan, Silent())
    write_run(tmp_path / "out" / "pydoc_topic", xi=XiConfig(spacing="target"), num_stages=2)
    assert [run.state for run in run_statuses(tmp_path)][:1] == ["completed"]
    assert len(run_statuses(tmp_path)) == 6
