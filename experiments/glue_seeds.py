"""Algorithm 1 and the floor on CoLA and RTE with all-MiniLM-L6-v2, three seeds.

Configured as on MRPC (`experiments.mrpc_minilm`). Runs that are complete are not repeated; records
without weights go to `experiments/results/glue_seeds`.
"""

import argparse
from pathlib import Path

from experiments.mrpc_minilm import path_config
from experiments.runner import RESULTS, below, floor_of, keep_records, run_all

TASKS = ("rte", "cola")


def main() -> None:
    """Run everything, seed by seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/glue_seeds"))
    args = parser.parse_args()
    for seed in range(args.seeds):
        paths = [path_config(seed, task=task) for task in TASKS]
        configs = [*paths, *(floor_of(path) for path in paths)]
        done = run_all([below(args.out, config) for config in configs], workers=args.workers)
        keep_records(done, RESULTS / "glue_seeds")


if __name__ == "__main__":
    main()
