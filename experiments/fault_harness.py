"""Does a sweep survive? Kills its processes at random moments and compares with an undisturbed one.

Runs the sweep once undisturbed and then, in a new folder each time, with SIGKILL to a random worker
or to the sweep itself, until there have been enough kills; whatever dies with the sweep is started
again by the same command. Every run is then compared bit for bit: `stages.jsonl`, `ranks.jsonl`,
`examples.parquet` and every adapter.

    python -m experiments.fault_harness --config experiments/sweeps/faults.yaml --kills 50
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from sorakit.records import (
    ADAPTERS_DIR,
    EXAMPLES_FILE,
    RANKS_FILE,
    STAGES_FILE,
    find_runs,
    is_alive,
    read_status,
)

_MOST_FAILURES = 3
Victims = Literal["worker", "sweep", "both"]


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What was done to a sweep.

    Attributes:
        kills: Processes that were killed.
        starts: Times that the command was started.
    """

    kills: int
    starts: int


def sweep_command(
    files: Sequence[Path], out: Path, *, workers: int, engine: str = "local"
) -> list[str]:
    """Return the command of a sweep."""
    program = [sys.executable, "-c", "from sorakit.cli import main; main()", "sweep"]
    options = [f"--out={out}", f"--workers={workers}", f"--engine={engine}"]
    return [*program, *(f"--config={file}" for file in files), *options]


def disturb(
    command: list[str], out: Path, *, kills: int, victims: Victims, seed: int, longest: float
) -> Disturbance:
    """Run a sweep to its end while its processes are killed at random moments.

    Args:
        command: The sweep.
        out: Its folder.
        kills: Kills at most; fewer, if it ends before.
        victims: Who is killed: a worker, the sweep, or one of both.
        seed: Seed of the moments and of the choice.
        longest: Longest time between two kills, in seconds of a worker being at work.
    """
    chance = random.Random(seed)
    killed, starts = 0, 0
    while True:
        sweep = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        starts += 1
        while killed < kills and sweep.poll() is None:
            _wait_for_worker(out, sweep)
            time.sleep(chance.uniform(0, longest))
            workers = _workers(out)
            if sweep.poll() is not None or not workers:
                continue
            target = victims if victims != "both" else chance.choice(("worker", "sweep"))
            os.kill(chance.choice(workers) if target == "worker" else sweep.pid, signal.SIGKILL)
            killed += 1
        if sweep.wait() == 0:
            return Disturbance(kills=killed, starts=starts)
        if starts > killed + _MOST_FAILURES:
            raise RuntimeError(f"The sweep fails by itself: {' '.join(command)}")


def differences(actual: Path, expected: Path) -> list[str]:
    """Return what is not the same, bit for bit, in two folders with the runs of one sweep."""
    ours = {path.relative_to(actual) for path in find_runs(actual)}
    theirs = {path.relative_to(expected) for path in find_runs(expected)}
    found = [f"{path}: only in one" for path in sorted(ours ^ theirs)]
    for path in sorted(ours & theirs):
        found += [f"{path}: {name}" for name in _run_differences(actual / path, expected / path)]
    return found


def _run_differences(actual: Path, expected: Path) -> list[str]:
    names = [STAGES_FILE, RANKS_FILE]
    adapters = (expected / ADAPTERS_DIR).rglob("*")
    names += [str(file.relative_to(expected)) for file in adapters if file.is_file()]
    found = [
        name
        for name in names
        if not (actual / name).is_file()
        or (actual / name).read_bytes() != (expected / name).read_bytes()
    ]
    ours, theirs = (pd.read_parquet(path / EXAMPLES_FILE) for path in (actual, expected))
    return found if ours.equals(theirs) else [*found, EXAMPLES_FILE]


def _workers(out: Path) -> list[int]:
    """Return the processes of the runs that are going."""
    if not out.is_dir():
        return []
    statuses = [read_status(path) for path in find_runs(out)]
    return [int(status["pid"]) for status in statuses if is_alive(status)]


def _wait_for_worker(out: Path, sweep: subprocess.Popen[bytes]) -> None:
    while not _workers(out) and sweep.poll() is None:
        time.sleep(0.01)


def main() -> None:
    """Run the harness; exit code 1 if a run differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, action="append", required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--victims", choices=["worker", "sweep", "both"], default="both")
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds between kills")
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    args = parser.parse_args()
    undisturbed = args.out / "undisturbed"
    options = {"workers": args.workers, "engine": args.engine}
    began = time.perf_counter()
    subprocess.run(sweep_command(args.config, undisturbed, **options), check=True)
    print(f"Undisturbed: {time.perf_counter() - began:.0f} s")
    killed, number, different = 0, 0, 0
    while killed < args.kills:
        number += 1
        out = args.out / f"disturbed_{number}"
        report = disturb(
            sweep_command(args.config, out, **options),
            out,
            kills=args.kills - killed,
            victims=args.victims,
            seed=number,
            longest=args.longest,
        )
        killed += report.kills
        found = differences(out, undisturbed)
        different += len(found)
        print(
            f"Round {number}: {report.kills} kills, {report.starts} starts, "
            f"{len(find_runs(out))} runs; {'; '.join(found) or 'all equal'}"
        )
    print(f"{killed} kills in {number} rounds; {different} differences")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
