"""Is the embedded encoder really pre-trained? `pydoc_topic`, against the same model drawn anew.

Three seeds each, equal settings, dense training only; prints the accuracies and keeps the records.
"""

import argparse
from pathlib import Path
from statistics import mean

from experiments.runner import RESULTS, below, keep_records
from sorakit.cli import parse_run_config
from sorakit.records import load_run
from sorakit.training.run import run

CONFIG = Path(__file__).parent / "embedded.yaml"
SEEDS = (0, 1, 2)
GATES = ["--gates.scale=free", "--gates.averaging=0", "--gates.gate_lr=8", "--xi.first=4e-2"]
"""The gates of `embedded.yaml` when the committed records were made."""


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of a run.")
    parser.add_argument("--out", type=Path, default=Path("runs/encoder_check"))
    args = parser.parse_args()
    print("validation accuracy on pydoc_topic, dense stage")
    means = []
    for random_init in (False, True):
        scores = []
        for seed in SEEDS:
            options = [f"--backbone.random_init={random_init}", f"--seed={seed}"]
            options += ["--xi.spacing=geometric", "--xi.num_stages=1", "--stage.kkt_examples=0"]
            options += GATES
            options.append(f"--trainer.num_threads={args.threads}")
            config = parse_run_config(["--config", str(CONFIG), *options])
            path = run(below(args.out, config)).path
            keep_records([path], RESULTS / "encoder_check")
            scores.append(float(load_run(path).stages["generalization"].iloc[0]))
        means.append(mean(scores))
        name = "drawn anew " if random_init else "pre-trained"
        print(f"{name}  {'  '.join(f'{score:.3f}' for score in scores)}  mean {means[-1]:.3f}")
    print(f"difference of the means: {100 * (means[0] - means[1]):.1f} points")


if __name__ == "__main__":
    main()
