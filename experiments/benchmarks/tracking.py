"""What does tracking cost? The same small run with `tracking.wandb` off and offline, in turn.

Every run is a process of its own. CPU time is that of the process and of wandb's, which it starts
and waits for: imports, training, and the end.

    python -m experiments.benchmarks.tracking [--rounds 3] [--task pydoc_order] [--stages 4]
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sorakit.records import TRACKING_DIR

MODES = ("off", "offline")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--task", default="pydoc_order")
    parser.add_argument("--dense-epochs", type=int, default=1)
    parser.add_argument("--stages", type=int, default=4)
    args = parser.parse_args()
    options = [
        f"--config={Path(__file__).parents[1] / 'embedded.yaml'}",
        f"--task.name={args.task}",
        f"--dense.max_epochs={args.dense_epochs}",
        f"--xi.num_stages={args.stages}",
        "--trainer.num_threads=1",
    ]
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(args.rounds):
        for mode in MODES if number % 2 else reversed(MODES):
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                cpu, wall = _time([*options, f"--tracking.wandb={mode}", f"--out_dir={run}"])
                seconds[mode].append(cpu)
                files = [file for file in (run / TRACKING_DIR).rglob("*") if file.is_file()]
                size = sum(file.stat().st_size for file in files)
                whole = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
                print(
                    f"round {number}, {mode:7}: {cpu:.1f} s of CPU, {wall:.1f} s, {len(files)} "
                    f"files of {size / 1e6:.2f} MB in a folder of {whole / 1e6:.2f} MB",
                    flush=True,
                )
    off, offline = (statistics.median(seconds[mode]) for mode in MODES)
    print(f"median: {offline - off:+.1f} s of CPU, {100 * (offline / off - 1):+.1f} %")


def _time(options: list[str]) -> tuple[float, float]:
    """Return seconds of CPU and of wall clock of `sorakit run`, its processes included."""
    command = [sys.executable, "-c", "from sorakit.cli import main; main()", "run", *options]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    main()
