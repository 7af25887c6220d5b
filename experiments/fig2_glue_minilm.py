"""Fig. 2 and Fig. 3 in small: all-MiniLM-L6-v2 on MRPC, RTE and CoLA, with floor and control.

For every task: Algorithm 1; the floor (`head_only`); and `hold_dense`, as many stages with xi held
at its start, forked from the dense stage of the first run, which is bit for bit its own. A run that
is complete is not repeated; records without weights go to `experiments/results/glue_minilm`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from experiments.runner import RESULTS, below, keep_records, run_after_dense
from sorakit.cli import parse_run_config
from sorakit.config import RunConfig
from sorakit.records import load_run
from sorakit.training.run import run

CONFIG = Path(__file__).parent / "glue_minilm.yaml"
LEVELS = {
    "mrpc": [],
    "rte": [
        "--xi.spacing=list",
        "--xi.levels=[.018,.024,.029,.0315,.0335,.0355,.0375,.0395,.042,.046,.051,.06,.08,.3,1]",
        "--xi.num_stages=15",
    ],
    "cola": ["--xi.first=1.2e-2", "--xi.ratio=1.22"],
}
"""What each task sets beside `glue_minilm.yaml`: most ranks of RTE die within a
factor 3 of xi, where the file has too few levels."""


def main() -> None:
    """Run the tasks named on the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(LEVELS)} (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of a run.")
    parser.add_argument("--out", type=Path, default=Path("runs/glue_minilm"))
    args = parser.parse_args()
    for task in args.tasks or LEVELS:
        options = [f"--task.name={task}", f"--seed={args.seed}"]
        options = ["--config", str(CONFIG), *options, f"--trainer.num_threads={args.threads}"]
        config = parse_run_config([*options, *LEVELS[task]])
        path = run(below(args.out, config)).path
        floor = parse_run_config([*options, "--method.name=head_only"])
        control = _hold_dense(config, num_stages=len(load_run(path).stages) - 1)
        paths = [
            path,
            run(below(args.out, floor)).path,
            run_after_dense(path, below(args.out, control)),
        ]
        keep_records(paths, RESULTS / "glue_minilm")


def _hold_dense(config: RunConfig, *, num_stages: int) -> RunConfig:
    levels = config.xi.levels and config.xi.levels[:num_stages]
    return replace(
        config,
        stage=replace(config.stage, control="hold_dense"),
        xi=replace(config.xi, num_stages=num_stages, levels=levels),
    )


if __name__ == "__main__":
    main()
