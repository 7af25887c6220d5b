"""Sweeps through the command line, with the processes that they really start."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.fault_harness import disturb, sweep_command
from sorakit.cli import main
from sorakit.records import LOG_FILE, find_writer, is_complete, load_run, read_status
from tests.support.tiny_sweep import assert_runs_equal_those_made_alone, jobs_of, write_sweep

ROOT = Path(__file__).parents[2]
CONTROLS = [{}, {"stage.control": "hold_dense"}]


@pytest.fixture(autouse=True)
def _workers_find_sorakit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def call(*arguments: str) -> Any:
    """Run the command line in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def start(file: Path, out: Path) -> subprocess.Popen[str]:
    """Start a sweep as a process of its own."""
    return subprocess.Popen(
        sweep_command([file], out, workers=1),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_until(holds: Callable[[], bool], *, seconds: float = 120) -> None:
    last = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < last, "it did not happen"
        time.sleep(0.01)


def has_checkpoint(path: Path) -> bool:
    return any((path / "checkpoints").glob("step_*.ckpt"))


def test_failed_run_does_not_stop_the_others(hub, tmp_path, capsys):
    out = tmp_path / "out"
    bad = {"task.max_length": 64}  # more than the model takes
    file = write_sweep(hub, tmp_path / "sweep.yaml", points=[bad, *CONTROLS])
    command = ["sweep", f"--config={file}", f"--out={out}", "--workers=2"]
    assert call(*command) == 1
    failed, *others = jobs_of(file, out)
    printed = capsys.readouterr().out.splitlines()
    log = failed.path / LOG_FILE
    assert printed[-1] == f"    log: {log}"
    assert printed[-2].startswith(f"  {failed.path} task.max_length=64: `task.max_length` ")
    assert "`task.max_length` must be <= 32" in log.read_text()
    assert [load_run(job.path).state for job in others] == ["completed", "completed"]
    origins = [load_run(job.path).meta.get("dense_stage_of") for job in others]
    assert origins == [None, others[0].point.run_id], "the dense stage was not shared"
    assert_runs_equal_those_made_alone(others, tmp_path / "alone")

    # Without the one that fails there is nothing left to do.
    before = {job.path: (job.path / "status.json").stat().st_mtime_ns for job in others}
    file = write_sweep(hub, tmp_path / "sweep.yaml", points=CONTROLS)
    assert call(*command) == 0
    assert before == {path: (path / "status.json").stat().st_mtime_ns for path in before}


def test_interrupted_and_killed_sweep_goes_on(hub, tmp_path):
    out = tmp_path / "out"
    # Long enough that it is still training when it is killed, on a fast machine too.
    dense = {"max_epochs": 80, "patience": 80}
    file = write_sweep(hub, tmp_path / "sweep.yaml", seed=1, dense=dense)
    [job] = jobs_of(file, out)

    sweep = start(file, out)
    wait_until(lambda: has_checkpoint(job.path))
    sweep.send_signal(signal.SIGINT)
    printed, _ = sweep.communicate()
    assert sweep.returncode == 130, printed
    assert "Rerun the same command to resume from the last checkpoint." in printed
    assert read_status(job.path)["state"] == "interrupted"
    assert find_writer(job.path) is None, "its worker is left behind"

    reached = set((job.path / "checkpoints").glob("step_*.ckpt"))
    sweep = start(file, out)
    wait_until(
        lambda: (
            set((job.path / "checkpoints").glob("step_*.ckpt")) > reached
            or is_complete(job.path)
            or not reached <= set((job.path / "checkpoints").iterdir())
        )
    )
    sweep.kill()
    sweep.communicate()
    assert not is_complete(job.path), "it was killed too late to show anything"
    wait_until(lambda: find_writer(job.path) is None)  # a worker stops without its sweep

    assert call("sweep", f"--config={file}", f"--out={out}") == 0
    assert_runs_equal_those_made_alone([job], tmp_path / "alone")


def test_two_sweeps_at_once_make_every_run_once(hub, tmp_path, capsys):
    out = tmp_path / "out"
    file = write_sweep(hub, tmp_path / "sweep.yaml", seed=2)
    [job] = jobs_of(file, out)
    other = start(file, out)
    wait_until(lambda: has_checkpoint(job.path))
    assert call("sweep", f"--config={file}", f"--out={out}") == 0
    assert f"{job.path} is being made by process " in capsys.readouterr().out
    printed, _ = other.communicate()
    assert other.returncode == 0, printed
    assert (job.path / LOG_FILE).read_text().count("== ") == 1, "it was started twice"
    assert_runs_equal_those_made_alone([job], tmp_path / "alone")


def test_randomly_killed_workers_change_nothing(hub, tmp_path):
    file = write_sweep(hub, tmp_path / "sweep.yaml", seed=3, controls=["hold_dense", "floor"])
    out = tmp_path / "out"
    report = disturb(
        sweep_command([file], out, workers=1),
        out,
        kills=2,
        victims=["worker"],
        seed=0,
        longest=1.0,
    )
    assert report.kills == {"worker": 2}
    assert report.left_behind == []
    path, hold_dense, floor = jobs_of(file, out)
    assert {job.state for job in (path, hold_dense, floor)} == {"completed"}
    assert load_run(hold_dense.path).meta["dense_stage_of"] == path.point.run_id
    steps = [load_run(job.path).stages["optimizer_steps"].sum() for job in (path, hold_dense)]
    assert steps[0] == steps[1], "the control has not trained as many steps as its path"
    assert_runs_equal_those_made_alone([path, hold_dense, floor], tmp_path / "alone")


def test_sweep_that_is_wrong_writes_nothing(hub, tmp_path, capsys):
    file = write_sweep(hub, tmp_path / "sweep.yaml", grid={"method.r": [4, 0]})
    assert call("sweep", f"--config={file}", f"--out={tmp_path / 'out'}") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can write")
def test_folder_that_cannot_be_written_is_refused(hub, tmp_path, capsys):
    file = write_sweep(hub, tmp_path / "sweep.yaml")
    assert call("sweep", f"--config={file}", "--out=/proc/sorakit") == 2
    printed = capsys.readouterr()
    assert "must be a folder that can be written, got '/proc/sorakit" in printed.err
    assert (printed.out, printed.err.count("\n")) == ("", 1)


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
def test_data_of_every_point_are_looked_at_before_anything_runs(hub, tmp_path, capsys, arguments):
    points = [*CONTROLS, {"task.label_column": "gold"}]
    file = write_sweep(hub, tmp_path / "sweep.yaml", points=points)
    assert call("sweep", f"--config={file}", f"--out={tmp_path / 'out'}", *arguments) == 2
    assert capsys.readouterr().err == (
        "sorakit: error: Point task.label_column=gold: `task.label_column` must be a column of "
        "train.csv (text, label), got 'gold'. Name one of them.\n"
    )
    assert not (tmp_path / "out").exists()


def test_dry_run_imports_no_torch(hub, tmp_path):
    file = write_sweep(hub, tmp_path / "sweep.yaml", grid={"seed": [0, 1]})
    program = (
        "import sys; from sorakit.cli import main\n"
        "try: main(['sweep', '--config', sys.argv[1], '--out', sys.argv[2], '--dry-run'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file), str(tmp_path / "out")],
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 runs: 0 done, 0 running, 0 failed, 2 to run" in done.stdout
    assert not (tmp_path / "out").exists()


def test_ten_thousand_points_are_shown_in_seconds(tmp_path):
    grid = {
        "seed": list(range(100)),
        "method.r": list(range(1, 11)),
        "optim.lr": [number * 1e-4 for number in range(1, 11)],
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"grid": grid}))
    command = [*sweep_command([file], tmp_path / "out", workers=1), "--dry-run"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert printed.count("  to run  ") == 10_000
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 10, "CPU time; 3.7 on one thread of a busy core"
