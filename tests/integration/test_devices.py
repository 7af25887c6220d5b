"""Runs on two devices, through the command line, with the processes that it really starts."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from sorakit.records import config_to_dict, load_run, read_status
from sorakit.training.run import run
from tests.support.broken_runs import assert_same_run
from tests.support.tiny_hub import tiny_run, write_model, write_task

ROOT = Path(__file__).parents[2]
TWO = {"devices": 2}
LEVELS = (0.02, 0.03, 0.05)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model without dropout, which differs between one device and two.

    57 training examples in batches of 8: the last batch has one example for two processes. 33
    validation examples in batches of 16: one process evaluates two batches, the other one.
    """
    root = tmp_path_factory.mktemp("devices")
    write_model(root / "model", dropout=0.0)
    write_task(root / "task", num_train=57, num_validation=33)
    return root


def config_file(hub: Path, name: str, trainer: dict[str, Any], **sections: Any) -> Path:
    """Write the configuration of a run whose folder is `hub/name`."""
    given = {"optim": {"eval_batch_size": 16}, "trainer": trainer, **sections}
    config = tiny_run(hub, out_dir=name, levels=LEVELS, sections=given)
    file = hub / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config_to_dict(config)))
    return file


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    return {**own, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}


def start(file: Path, *launcher: str) -> subprocess.Popen[str]:
    command = [*(launcher or (sys.executable, "-m")), "sorakit", "run", f"--config={file}"]
    return subprocess.Popen(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # The background of a shell, where tests may run, ignores it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a process that must succeed has printed."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


@pytest.fixture(scope="module")
def one(hub: Path) -> Path:
    config = tiny_run(
        hub, out_dir="one", levels=LEVELS, sections={"optim": {"eval_batch_size": 16}}
    )
    return run(config, show_progress=False).path


@pytest.fixture(scope="module")
def two(hub: Path) -> Path:
    output = finish(start(config_file(hub, "two", TWO)))
    assert output.splitlines() == [f"Completed {hub / 'two'}"], "once, by rank 0"
    return hub / "two"


def test_two_devices_give_the_curve_of_one(one, two):
    expected, actual = load_run(one).stages, load_run(two).stages
    exact = ["stage", "xi", "num_nonzero_params", "optimizer_steps", "stopped_by"]
    assert actual[exact].equals(expected[exact])
    close = ["memorization", "generalization", "train_loss", "memorization_loss", "kkt_residual"]
    np.testing.assert_allclose(actual[close], expected[close], rtol=1e-3)


def test_ranks_of_two_devices_are_those_of_one(one, two):
    columns = ["stage", "module", "nonzero_rank"]
    assert load_run(two).ranks[columns].equals(load_run(one).ranks[columns])


def test_every_example_is_recorded_once(one, two):
    columns = ["stage", "split", "index"]
    expected, actual = load_run(one).examples(), load_run(two).examples()
    assert actual[columns].equals(expected[columns])
    np.testing.assert_allclose(actual["loss"], expected["loss"], rtol=1e-3, atol=1e-5)


def test_steps_are_recorded_once_and_are_those_of_one(one, two):
    expected, actual = (pd.DataFrame(load_run(path).steps()) for path in (one, two))
    assert actual[["step", "stage"]].equals(expected[["step", "stage"]])
    np.testing.assert_allclose(actual["train_loss"], expected["train_loss"], rtol=1e-3)


def test_complete_run_on_two_devices_is_skipped(hub, two):
    assert "nothing to do" in finish(start(hub / "two.yaml"))


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str], *, count: int = 1) -> None:
    last = time.monotonic() + 200
    while len(list((folder / "checkpoints").glob("step_*.ckpt"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < last, "no checkpoint"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8")
    return [int(child) for child in text.split()]


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank 0", "rank 1"])
def test_killed_process_ends_the_others_and_the_run_goes_on(victim, hub, two):
    file = config_file(hub, f"killed {victim[-1]}", TWO)
    path = hub / file.stem
    process = start(file)
    wait_for_checkpoint(path, process)
    [follower] = children(process.pid)
    os.kill(process.pid if victim == "rank 0" else follower, signal.SIGKILL)
    process.communicate(timeout=60)
    last = time.monotonic() + 30
    while is_alive(follower):
        assert time.monotonic() < last, "the process of rank 1 is still there"
        time.sleep(0.1)
    # failed, where rank 0 noticed that it talks to nobody before Lightning ended it
    assert read_status(path)["state"] in {"running", "failed"}
    finish(start(file))
    assert_same_run(path, two)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_says_so_and_goes_on(signum, hub, two):
    file = config_file(hub, f"stopped {signum}", TWO)
    process = start(file)
    wait_for_checkpoint(hub / file.stem, process)
    os.kill(process.pid, signum)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signum, errors
    assert errors.splitlines()[-1].endswith(
        " Rerun the same command to resume from the last checkpoint."
    )
    assert read_status(hub / file.stem)["state"] == "interrupted"
    finish(start(file))
    assert_same_run(hub / file.stem, two)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.slow
def test_torchrun_on_two_nodes_gives_the_same_run(hub, two):
    # Two agents on one machine: to the run they are two machines with one device each.
    file = config_file(hub, "nodes", {"devices": 1, "num_nodes": 2})
    address = ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    agents = [
        start(
            file,
            *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
            *(f"--node-rank={rank}", *address, "-m"),
        )
        for rank in range(2)
    ]
    try:
        for agent in agents:
            finish(agent)
    finally:
        for agent in agents:
            agent.kill()
    assert_same_run(hub / "nodes", two)


def test_sweep_gives_a_run_its_devices(hub, two):
    options = yaml.safe_load((hub / "two.yaml").read_text("utf-8"))
    del options["out_dir"]
    file = hub / "sweep.yaml"
    file.write_text(yaml.safe_dump({**options, "points": [{}, {"trainer.devices": 1}]}))
    out = hub / "sweep"
    command = [sys.executable, "-m", "sorakit", "sweep", f"--config={file}", f"--out={out}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run_id = load_run(two).run_id
    (out / "task" / run_id / "log.txt").unlink()
    assert_same_run(out / "task" / run_id, two)


def test_several_nodes_in_a_sweep_are_refused(hub):
    file = config_file(hub, "refused", {"devices": 1, "num_nodes": 2})
    options = yaml.safe_load(file.read_text("utf-8"))
    del options["out_dir"]
    file.write_text(yaml.safe_dump({**options, "points": [{}]}))
    command = [sys.executable, "-m", "sorakit", "sweep", f"--config={file}", "--dry-run"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("sorakit: error: `trainer.num_nodes` must be 1 in a sweep, got 2")
