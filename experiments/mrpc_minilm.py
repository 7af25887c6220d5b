"""The two finalists of `default_gates` and the controls of Algorithm 1, on a real task.

all-MiniLM-L6-v2 on MRPC, 3 seeds: gate_lr 1 and 3 in unit scale with averaged gradients; the floor;
then, with the default gates, `hold_dense` and `random_mask`, forked from the path's dense stage
(bit for bit their own), with stages as long as those of the path on average; the null model
`random_gradient`. Runs that are complete are not repeated; records without weights go to
`experiments/results/mrpc_minilm`. The tables: `python -m experiments.default_gates_table` and
`python -m experiments.controls_table`, each with that folder as argument.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from experiments.controls import control_forks
from experiments.default_gates import FIRST_LAMBDA
from experiments.runner import RESULTS, below, floor_of, fork_all, keep_records, run_all
from sorakit.cli import parse_run_config
from sorakit.config import RunConfig

CONFIG = Path(__file__).parent / "glue_minilm.yaml"
FINALISTS = (1.0, 3.0)
DEFAULT = 1.0
NULL_KKT = 256
"""Examples of the null model's KKT residual, which says little where gates follow no gradient."""


def path_config(seed: int, *, task: str = "mrpc", gate_lr: float = DEFAULT) -> RunConfig:
    """Return the path of Algorithm 1 with unit scale and averaged gradients."""
    options = [f"--task.name={task}", f"--seed={seed}", f"--gates.gate_lr={gate_lr}"]
    options.append(f"--xi.first={FIRST_LAMBDA * gate_lr}")
    return parse_run_config([f"--config={CONFIG}", *options])


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/mrpc_minilm"))
    args = parser.parse_args()
    seeds = range(args.seeds)
    finalists = [path_config(seed, gate_lr=gate_lr) for seed in seeds for gate_lr in FINALISTS]
    paths = [path_config(seed) for seed in seeds]
    alone = [*finalists, *(floor_of(path) for path in paths)]
    done = run_all([below(args.out, config) for config in alone], workers=args.workers)
    sources = [below(args.out, path) for path in paths]
    forks = control_forks(sources, ["hold_dense", "random_mask"], out=args.out)
    done += fork_all(forks, workers=args.workers)
    null = [
        replace(path, stage=replace(path.stage, control="random_gradient", kkt_examples=NULL_KKT))
        for path in paths
    ]
    done += run_all([below(args.out, config) for config in null], workers=args.workers)
    keep_records(done, RESULTS / "mrpc_minilm")


if __name__ == "__main__":
    main()
