"""Which step size and scale should gates have? The sweep behind the defaults of `gates`.

gate_lr {0.1, 0.3, 1, 3} x scale {free, unit} x {pydoc_topic, pydoc_order} x 3 seeds on the embedded
encoder, with the floor of every task and seed; then the two largest steps in unit scale with a
running average of the gate gradient.
Runs that are complete are not repeated; records without weights and examples go to
`experiments/results/default_gates`. `python -m experiments.default_gates_table` makes the table.
"""

import argparse
from itertools import product
from pathlib import Path

from experiments.runner import RESULTS, below, keep_records, run_all
from sorakit.cli import parse_run_config
from sorakit.config import RunConfig

CONFIG = Path(__file__).parent / "default_gates.yaml"
TASKS = ("pydoc_topic", "pydoc_order")
STEP_SIZES = (0.1, 0.3, 1.0, 3.0)
SCALES = ("free", "unit")
SEEDS = (0, 1, 2)
FIRST_LAMBDA = 5e-3
"""Where xi begins to rise, divided by gate_lr; no gate dies below it."""


def point(*, task: str, seed: int, gate_lr: float, scale: str, averaging: float = 0.0) -> RunConfig:
    """Return one run of the sweep."""
    return parse_run_config(
        [
            f"--config={CONFIG}",
            f"--task.name={task}",
            f"--seed={seed}",
            f"--gates.gate_lr={gate_lr}",
            f"--gates.scale={scale}",
            f"--gates.averaging={averaging}",
            f"--xi.first={FIRST_LAMBDA * gate_lr}",
        ]
    )


def floor(*, task: str, seed: int) -> RunConfig:
    """Return the floor of a task and seed: no adapter."""
    options = [f"--config={CONFIG}", f"--task.name={task}", f"--seed={seed}"]
    return parse_run_config([*options, "--method.name=head_only"])


def grid() -> list[RunConfig]:
    """Return the whole sweep, seed by seed, so that an interrupted one can be read."""
    runs = []
    for seed in SEEDS:
        runs += [floor(task=task, seed=seed) for task in TASKS]
        runs += [
            point(task=task, seed=seed, gate_lr=gate_lr, scale=scale)
            for gate_lr, scale, task in product(STEP_SIZES, SCALES, TASKS)
        ]
    runs += [
        point(task=task, seed=seed, gate_lr=gate_lr, scale="unit", averaging=0.9)
        for seed, gate_lr, task in product(SEEDS, (1.0, 3.0), TASKS)
    ]
    return runs


def main() -> None:
    """Run the sweep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/default_gates"))
    args = parser.parse_args()
    paths = run_all([below(args.out, config) for config in grid()], workers=args.workers)
    keep_records(paths, RESULTS / "default_gates", examples=False)


if __name__ == "__main__":
    main()
