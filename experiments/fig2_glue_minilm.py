"""Fig. 2 and Fig. 3 in small: all-MiniLM-L6-v2 on MRPC, RTE and CoLA, with floor and control.

For every task: Algorithm 1; the floor (`head_only`); and `hold_dense`, as many stages with xi held
at its start, forked from the dense stage of the first run, which is bit for bit its own. A run that
is complete is not repeated; records without weights go to `experiments/results/glue_minilm`.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from experiments.runner import RESULTS, keep_records, run_after_dense
from sorakit.cli import parse_run_config
from sorakit.config import RunConfig
from sorakit.records import load_run, run_id
from sorakit.training.run import run

CONFIG = Path(__file__).parent / "glue_minilm.yaml"
TASKS = ("mrpc", "rte", "cola")


def main() -> None:
    """Run the tasks named on the command line, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)} (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of a run.")
    parser.add_argument("--out", type=Path, default=Path("runs/glue_minilm"))
    args = parser.parse_args()
    for task in args.tasks or TASKS:
        options = [f"--task.name={task}", f"--seed={args.seed}"]
        options.append(f"--trainer.num_threads={args.threads}")
        config = parse_run_config(["--config", str(CONFIG), *options])
        path = run(_in(args.out, config)).path
        floor = replace(config, method=replace(config.method, name="head_only"))
        num_stages = len(load_run(path).stages) - 1
        control = replace(
            config,
            stage=replace(config.stage, control="hold_dense"),
            xi=replace(config.xi, num_stages=num_stages),
        )
        paths = [
            path,
            run(_in(args.out, floor)).path,
            run_after_dense(path, _in(args.out, control)),
        ]
        keep_records(paths, RESULTS / "glue_minilm")


def _in(out: Path, config: RunConfig) -> RunConfig:
    return replace(config, out_dir=str(out / config.task.name / run_id(config)))


if __name__ == "__main__":
    main()
