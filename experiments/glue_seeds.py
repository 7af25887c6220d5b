"""Algorithm 1, the floor and the controls on CoLA and RTE with all-MiniLM-L6-v2, three seeds.

Configured as on MRPC (`experiments.mrpc_minilm`): `hold_dense` and `random_mask` are forked from
the path's dense stage (bit for bit their own), with stages as long as those of the path on average.
Runs that are complete are not repeated; records without weights go to
`experiments/results/glue_seeds`.
The tables: `python -m experiments.controls_table experiments/results/glue_seeds`.
"""

import argparse
from pathlib import Path

from experiments.controls import FORKS, control_forks
from experiments.mrpc_minilm import path_config
from experiments.runner import RESULTS, below, floor_of, fork_all, keep_records, run_all

TASKS = ("rte", "cola")


def main() -> None:
    """Run everything, seed by seed, and then the controls."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--control-seeds", type=int, default=3, help="of the controls")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/glue_seeds"))
    args = parser.parse_args()
    kept = RESULTS / "glue_seeds"
    seeds = [
        [below(args.out, path_config(seed, task=task)) for task in TASKS]
        for seed in range(args.seeds)
    ]
    for paths in seeds:
        floors = [below(args.out, floor_of(path)) for path in paths]
        keep_records(run_all([*paths, *floors], workers=args.workers), kept)
    for paths in seeds[: args.control_seeds]:
        forks = control_forks(paths, FORKS, out=args.out)
        keep_records(fork_all(forks, workers=args.workers), kept, examples=False)


if __name__ == "__main__":
    main()
