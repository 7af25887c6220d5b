"""Runs at one fixed xi for Fig. 3: the same lambda for every dataset, trained from the start.

One `from_scratch` level at `LEVEL` for each finished path of `experiments.controls`,
`experiments.mrpc_minilm` and `experiments.glue_seeds`, forked from the path's dense stage, which is
bit for bit its own. `pydoc_order` has this level among those of `experiments.controls`. Runs that
are complete are not repeated; records without weights go to `experiments/results/fixed_xi`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from experiments import controls, mrpc_minilm
from experiments.runner import RESULTS, below, fork_all, keep_records
from sorakit.config import RunConfig, XiConfig
from sorakit.records import run_path

LEVEL = 1e-3
"""xi, and lambda where gate_lr is 1. It leaves 57 to 72 % on `pydoc_order`."""

FOLDERS = {"mrpc": "mrpc_minilm", "rte": "glue_seeds", "cola": "glue_seeds"}
TASKS = ("pydoc_topic", "pydoc_pair", *FOLDERS)


def path_config(task: str, seed: int, *, runs: Path, embedded: Path) -> RunConfig:
    """Return the finished path of a task, in its run folder."""
    if task in FOLDERS:
        return below(runs / FOLDERS[task], mrpc_minilm.path_config(seed, task=task))
    return below(embedded, controls.path_config(task, seed))


def fixed_config(path: RunConfig) -> RunConfig:
    """Return `path` trained from the start at `LEVEL`."""
    xi = XiConfig(start=path.xi.start, spacing="list", levels=[LEVEL], num_stages=1)
    return replace(path, xi=xi, stage=replace(path.stage, control="from_scratch"))


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the paths")
    parser.add_argument(
        "--controls", type=Path, default=Path("runs/controls"), help="that of the embedded paths"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/fixed_xi"))
    args = parser.parse_args()
    paths = [
        path_config(task, seed, runs=args.runs, embedded=args.controls)
        for seed in args.seeds
        for task in args.tasks
    ]
    forks = [(run_path(path), below(args.out, fixed_config(path))) for path in paths]
    keep_records(fork_all(forks, workers=args.workers), RESULTS / "fixed_xi", examples=False)


if __name__ == "__main__":
    main()
