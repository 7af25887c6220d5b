"""Sweeps under Ray, on this machine: the records of the local engine, whoever is killed."""

import importlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sorakit.cli import main
from sorakit.records import LOG_FILE, is_alive, read_status
from tests.support.tiny_sweep import assert_runs_equal_those_made_alone, jobs_of, write_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> None:
    if os.environ.get("SORAKIT_REQUIRE_ALL") == "1":
        importlib.import_module("ray")
    else:
        pytest.importorskip("ray", reason="needs the extra: pip install 'sorakit[ray]'")


def parent_of(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])


def kill_once(path: Path, *, parent: bool, killed: list[int]) -> None:
    """Kill the process of a run, or the Ray worker above it, when it has a checkpoint."""
    last = time.monotonic() + 240
    while time.monotonic() < last:
        if any((path / "checkpoints").glob("step_*.ckpt")):
            status = read_status(path)
            if is_alive(status):
                pid = parent_of(status["pid"]) if parent else status["pid"]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            return
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the Ray worker in /proc")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")  # Ray's own
def test_killed_workers_of_ray_change_nothing(hub, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # by default 15: nothing on a busy machine
    out = tmp_path / "out"
    file = write_sweep(hub, tmp_path / "sweep.yaml", grid={"seed": [4, 5]}, controls=["hold_dense"])
    first, _, second, _ = jobs_of(file, out)
    killed: list[int] = []
    killers = [
        threading.Thread(
            target=kill_once, args=(job.path,), kwargs={"parent": parent, "killed": killed}
        )
        for job, parent in ((first, False), (second, True))
    ]
    for killer in killers:
        killer.start()
    code: Any = None
    try:
        main(["sweep", f"--config={file}", f"--out={out}", "--engine=ray", "--workers=2"])
    except SystemExit as stop:
        code = stop.code
    for killer in killers:
        killer.join()
    printed = capfd.readouterr().out
    assert code == 0, printed
    assert len(killed) == 2, "a run ended before it could be killed"
    assert "was killed by signal 9; resuming from its last checkpoint." in printed
    assert "was lost with its worker; resuming from its last checkpoint." in printed
    log = (second.path / LOG_FILE).read_text()
    assert "\nInterrupted.\n== " in log, "it went on without the worker that had started it"
    jobs = jobs_of(file, out)
    assert [job.state for job in jobs] == ["completed"] * 4, "controls did not follow their paths"
    assert_runs_equal_those_made_alone(jobs, tmp_path / "alone")
