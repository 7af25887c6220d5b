"""Does a sweep survive? Kills its processes at random moments and compares with an undisturbed one.

Runs the sweep once undisturbed and then, in a new folder each time, with SIGKILL to one of the
victims at random moments, until there have been enough kills; what ends a sweep is followed by the
same command. Every run is then compared bit for bit: `stages.jsonl`, `ranks.jsonl`,
`examples.parquet` and every adapter. A process that any of the commands leaves behind is counted as
a difference.

    python -m experiments.fault_harness --config experiments/sweeps/faults.yaml --kills 50
    python -m experiments.fault_harness --config experiments/sweeps/faults.yaml --engine ray \
      --victims worker ray_worker --kills 4
    python -m experiments.fault_harness --config experiments/sweeps/faults.yaml --engine ray \
      --victims sweep --kills 1
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

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
_POLL_SECONDS = 0.05
_LONGEST_LEAVING = 120.0
_MARK = "SORAKIT_FAULTS"
"""Environment variable by which the processes of a sweep are found again."""

Victim = Literal["worker", "ray_worker", "sweep"]
"""The process of a run; the process of Ray that started it; the command itself, Ray's driver."""


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What was done to a sweep.

    Attributes:
        kills: Processes that were killed, by kind.
        starts: Times that the command was started.
        left_behind: Command lines of processes that outlived the sweep.
    """

    kills: Counter[Victim]
    starts: int
    left_behind: list[str]


def sweep_command(
    files: Sequence[Path], out: Path, *, workers: int, engine: str = "local"
) -> list[str]:
    """Return the command of a sweep."""
    program = [sys.executable, "-c", "from sorakit.cli import main; main()", "sweep"]
    options = [f"--out={out}", f"--workers={workers}", f"--engine={engine}"]
    return [*program, *(f"--config={file}" for file in files), *options]


def disturb(
    command: list[str],
    out: Path,
    *,
    kills: int,
    victims: Sequence[Victim],
    seed: int,
    longest: float,
) -> Disturbance:
    """Run a sweep to its end while its processes are killed at random moments.

    Args:
        command: The sweep.
        out: Its folder.
        kills: Kills at most; fewer, if it ends before.
        victims: Who is killed, drawn anew for every kill.
        seed: Seed of the moments and of the choice.
        longest: Longest time between two kills, in seconds of a worker being at work.
    """
    chance = random.Random(seed)
    killed: Counter[Victim] = Counter()
    starts = 0
    mark = uuid.uuid4().hex
    while True:
        sweep = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            env={**os.environ, _MARK: mark},
        )
        starts += 1
        while killed.total() < kills and sweep.poll() is None:
            _wait_for_worker(out, sweep)
            time.sleep(chance.uniform(0, longest))
            victim = chance.choice(victims)
            pid = _choose(victim, sweep, out, chance=chance)
            if sweep.poll() is not None or pid is None:
                continue
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # it came to its own end
                continue
            killed[victim] += 1
        if sweep.wait() == 0:
            return Disturbance(kills=killed, starts=starts, left_behind=_left_behind(mark))
        if starts > killed.total() + _MOST_FAILURES:
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


def _choose(
    victim: Victim, sweep: subprocess.Popen[bytes], out: Path, *, chance: random.Random
) -> int | None:
    """Return a process of this kind, or None if there is none at the moment."""
    workers = _workers(out)
    if not workers:
        return None
    if victim == "sweep":
        return sweep.pid
    worker = chance.choice(workers)
    if victim == "worker":
        return worker
    parent = _parent(worker)
    return parent if parent is not None and _command_line(parent).startswith("ray::") else None


def _workers(out: Path) -> list[int]:
    """Return the processes of the runs that are going."""
    if not out.is_dir():
        return []
    statuses = [read_status(path) for path in find_runs(out)]
    return [int(status["pid"]) for status in statuses if is_alive(status)]


def _wait_for_worker(out: Path, sweep: subprocess.Popen[bytes]) -> None:
    while not _workers(out) and sweep.poll() is None:
        time.sleep(_POLL_SECONDS)


def _left_behind(mark: str) -> list[str]:
    """Return the processes with a mark that do not end by themselves within two minutes."""
    last = time.monotonic() + _LONGEST_LEAVING
    while (pids := _marked(mark)) and time.monotonic() < last:
        time.sleep(_POLL_SECONDS)
    return [f"{pid} {_command_line(pid)}" for pid in pids]


def _marked(mark: str) -> list[int]:
    variable = f"{_MARK}={mark}".encode()
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if variable in _read(folder / "environ").split(b"\0")
    ]


def _parent(pid: int) -> int | None:
    # The name of the process, in parentheses, may hold anything.
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(fields[1]) if fields else None


def _command_line(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace(b"\0", b" ").decode(errors="replace").strip()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # the process has ended, or is somebody else's
        return b""


def main() -> None:
    """Run the harness; exit code 1 if a run differs or a process is left behind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, action="append", required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument(
        "--victims", nargs="+", choices=get_args(Victim), default=["worker", "sweep"]
    )
    parser.add_argument("--engine", choices=["local", "ray"], default="local")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds between kills")
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    args = parser.parse_args()
    if "ray_worker" in args.victims and args.engine != "ray":
        parser.error("`--victims ray_worker` needs `--engine ray`")
    undisturbed = args.out / "undisturbed"
    options = {"workers": args.workers, "engine": args.engine}
    began = time.perf_counter()
    subprocess.run(sweep_command(args.config, undisturbed, **options), check=True)
    print(f"Undisturbed: {time.perf_counter() - began:.0f} s")
    killed: Counter[Victim] = Counter()
    rounds, number, different = 0, 0, 0
    while killed.total() < args.kills:
        number += 1
        out = args.out / f"disturbed_{number}"
        if out.exists():  # of an earlier call
            continue
        rounds += 1
        began = time.perf_counter()
        report = disturb(
            sweep_command(args.config, out, **options),
            out,
            kills=args.kills - killed.total(),
            victims=args.victims,
            seed=number,
            longest=args.longest,
        )
        killed += report.kills
        found = differences(out, undisturbed)
        found += [f"left behind: {process}" for process in report.left_behind]
        different += len(found)
        print(
            f"Round {rounds}, {out.name}: killed {_count(report.kills)}; {report.starts} starts, "
            f"{len(find_runs(out))} runs, {time.perf_counter() - began:.0f} s; "
            f"{'; '.join(found) or 'all equal'}",
            flush=True,
        )
    print(f"Killed {_count(killed)} in {rounds} rounds; {different} differences")
    sys.exit(1 if different else 0)


def _count(kills: Counter[Victim]) -> str:
    return ", ".join(f"{number} {victim}" for victim, number in sorted(kills.items())) or "nothing"


if __name__ == "__main__":
    main()
