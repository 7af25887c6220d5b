"""What does it save to train the dense stage once? Four schedules on one dataset, both ways.

Every round runs the four schedules as a sweep that shares their dense stage, and each of them alone
with `sorakit run`; every other round begins with the latter. Both ways pay for a process a run, the
sweep for itself beside. Prints CPU and wall times of every round, and the median ratio of CPU
times, which other work on the machine changes least.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from experiments.fault_harness import sweep_command

SCHEDULES: list[dict[str, object]] = [
    {},
    {"stage.control": "hold_dense"},
    {"xi.num_stages": 3},
    {"stage.control": "random_mask"},
]
"""Algorithm 1, a control, coarser levels, and another control: as one compares them."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Seconds that some commands took, one after the other.

    Attributes:
        cpu: CPU time of their processes.
        wall: Time that went by.
    """

    cpu: float
    wall: float


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="pydoc_order")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dense-epochs", type=int, default=15)
    parser.add_argument("--stages", type=int, default=6)
    args = parser.parse_args()
    base = {
        "config": str((Path(__file__).parents[1] / "default_gates.yaml").resolve()),
        "task.name": args.task,
        "xi.first": 5e-3,
        "xi.num_stages": args.stages,
        "dense.max_epochs": args.dense_epochs,
        "dense.patience": args.dense_epochs,  # a dense stage of a known length
    }
    ratios: list[float] = []
    for seed in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            commands = {
                "shared": _shared({**base, "seed": seed}, Path(folder)),
                "separate": _separate({**base, "seed": seed}, Path(folder)),
            }
            order = sorted(commands, reverse=seed % 2 == 0)
            costs = {name: _cost(commands[name]) for name in order}
        ratios.append(costs["shared"].cpu / costs["separate"].cpu)
        times = ", ".join(f"{name} {c.cpu:.1f} s ({c.wall:.1f} s)" for name, c in costs.items())
        print(f"round {seed}, CPU (wall): {times}: ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio of CPU times {statistics.median(ratios):.3f}")


def _shared(options: dict[str, object], folder: Path) -> list[list[str]]:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**options, "points": SCHEDULES}), encoding="utf-8")
    return [sweep_command([file], folder / "shared", workers=1)]


def _separate(options: dict[str, object], folder: Path) -> list[list[str]]:
    config = f"--config={options['config']}"
    program = [sys.executable, "-c", "from sorakit.cli import main; main()", "run", config]
    commands: list[list[str]] = []
    for number, schedule in enumerate(SCHEDULES):
        chosen = {**options, **schedule, "out_dir": folder / "separate" / str(number)}
        del chosen["config"]
        commands.append([*program, *(f"--{name}={value}" for name, value in chosen.items())])
    return commands


def _cost(commands: Sequence[list[str]]) -> Cost:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        subprocess.run(
            command, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(
        cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        wall=time.perf_counter() - began,
    )


if __name__ == "__main__":
    main()
