"""What does it save to train the dense stage once? Four schedules on one dataset, both ways.

Every round runs the four schedules as a sweep that shares their dense stage and, interleaved, each
of them in an `--out` of its own, where there is nothing to share. Both ways pay for a process a
run. Prints the times of every round and the median of their ratio.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="pydoc_order")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--dense-epochs", type=int, default=10)
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
            shared = [{**base, "seed": seed, "points": SCHEDULES}]
            together = _seconds(shared, Path(folder), workers=args.workers)
        with tempfile.TemporaryDirectory() as folder:
            separate = [{**base, "seed": seed, "points": [schedule]} for schedule in SCHEDULES]
            alone = _seconds(separate, Path(folder), workers=args.workers)
        ratios.append(together / alone)
        print(f"round {seed}: shared {together:.1f} s, separate {alone:.1f} s: {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")


def _seconds(sweeps: list[dict[str, object]], folder: Path, *, workers: int) -> float:
    """Return the wall time of some sweeps, one after the other, each in an `--out` of its own."""
    began = time.perf_counter()
    for number, content in enumerate(sweeps):
        file = folder / f"sweep_{number}.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        command = sweep_command([file], folder / "out" / str(number), workers=workers)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
