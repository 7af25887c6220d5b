"""`sorakit status`: what became of runs, from their folders alone."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sorakit.locks import FileLock
from sorakit.records import LOCK_FILE, LOG_FILE
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
    assert status.resume == f"sorakit run --config {path}/config.yaml --out_dir {path}"


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


def test_dense_stages_are_no_runs(tmp_path):
    write_run(tmp_path)
    (tmp_path / "dense_stages" / "0123").mkdir(parents=True)
    (tmp_path / "dense_stages" / "0123" / "dense.json").write_text("{}")
    assert len(run_statuses(tmp_path)) == 1
