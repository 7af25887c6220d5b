"""Algorithm 1 beside its controls and null models, on the three embedded tasks.

For every task and seed: the path by target; the floor; and, forked from the path's dense stage (bit
for bit their own), `hold_dense` and `random_mask`. For `pydoc_order` and the first seeds also the
other controls, `shrink_only`, `hard_mask_no_retrain`, `hard_mask_retrain` and `from_scratch`, and
the null models `random_gradient` and `shuffled_labels`. The stages of the controls are as long as
those of the path on average, so that both train as many steps. Runs that are complete are not
repeated; records without weights (of controls, without examples) go to
`experiments/results/controls`.
`python -m experiments.controls_table` makes the tables.
"""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from experiments.runner import RESULTS, below, floor_of, fork_all, keep_records, run_all
from sorakit.cli import parse_run_config
from sorakit.config import NULL_MODELS, RunConfig, StageControl, XiConfig
from sorakit.records import load_run, run_path

CONFIG = Path(__file__).parent / "embedded.yaml"
TASKS = ("pydoc_order", "pydoc_topic", "pydoc_pair")
ALL_CONTROLS = "pydoc_order"
FORKS: tuple[StageControl, ...] = ("hold_dense", "random_mask")
"""Of every task."""
OTHER_FORKS: tuple[StageControl, ...] = (
    "hard_mask_retrain",
    "hard_mask_no_retrain",
    "shrink_only",
    "from_scratch",
)
SCRATCH_LEVELS = [5e-4, 1e-3, 2e-3, 5e-3]
"""xi of `from_scratch`: every level costs a whole dense stage, so there are four. At 0.02 no gate
ever leaves zero: untrained directions see a gradient below lambda."""


def path_config(task: str, seed: int) -> RunConfig:
    """Return the path of Algorithm 1 with the default gates."""
    options = [f"--task.name={task}", f"--seed={seed}", "--trainer.num_threads=1"]
    return parse_run_config([f"--config={CONFIG}", *options])


def control_config(path: RunConfig, control: StageControl, *, epochs: float) -> RunConfig:
    """Return `path` under a control whose stages are `epochs` long."""
    xi = path.xi
    if control == "from_scratch":
        xi = XiConfig(start=xi.start, spacing="list", levels=SCRATCH_LEVELS, num_stages=4)
    return replace(path, xi=xi, stage=replace(path.stage, control=control, epochs=epochs))


def control_forks(
    paths: Iterable[RunConfig], controls: Iterable[StageControl], *, out: Path
) -> list[tuple[Path, RunConfig]]:
    """Return the controls of finished paths, to be forked from their dense stages.

    Their stages are as long as those of the path on average.

    Args:
        paths: Configurations of finished paths, in their run folders.
        controls: Their controls, in the order in which they are begun.
        out: Folder of the controls' run folders.

    Returns:
        (run folder of the path, configuration of the control), control by control.
    """
    lengths = []
    for path in paths:
        stages = load_run(run_path(path)).stages
        lengths.append((path, round(float(stages["epochs"][1:].mean()), 3)))
    return [
        (run_path(path), below(out, control_config(path, control, epochs=epochs)))
        for control in controls
        for path, epochs in lengths
    ]


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--other-seeds", type=int, default=3, help="of the other controls")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/controls"))
    args = parser.parse_args()
    paths = [
        below(args.out, path_config(task, seed))
        for seed in range(args.seeds)
        for task in args.tasks
    ]
    others = [path for path in paths if path.task.name == ALL_CONTROLS][: args.other_seeds]
    floors = [below(args.out, floor_of(path)) for path in paths]
    null = [
        below(args.out, replace(path, stage=replace(path.stage, control=control)))
        for control in NULL_MODELS
        for path in others
    ]
    keep_records(run_all([*paths, *floors], workers=args.workers), RESULTS / "controls")
    done = fork_all(control_forks(paths, FORKS, out=args.out), workers=args.workers)
    keep_records(done, RESULTS / "controls", examples=False)
    done = run_all(null, workers=args.workers)
    done += fork_all(control_forks(others, OTHER_FORKS, out=args.out), workers=args.workers)
    keep_records(done, RESULTS / "controls", examples=False)


if __name__ == "__main__":
    main()
