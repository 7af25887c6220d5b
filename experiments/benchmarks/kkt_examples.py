"""How many examples, and which arithmetic, does the KKT residual of a record need?

Trains one path and measures the residual at the end of every stage on up to 1,000 memorization
examples in float32, and on 256 of them, in float32 and in bf16. What is cheaper says the same where
it differs by no more than the split-half standard error of the first.

    python -m experiments.benchmarks.kkt_examples [--task pydoc_order] [--stages 8]
        [--dense-epochs 6] [--out FILE.json]
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from sorakit.options import run_config
from sorakit.training.build import build
from sorakit.training.module import AdaptationModule
from sorakit.training.stationarity import Stationarity
from sorakit.training.xi_scheduler import prox_optimizer

WAYS = {
    "1000 float32": (1000, True),
    "1000 bf16": (1000, False),
    "256 float32": (256, True),
    "256 bf16": (256, False),
}


def main() -> None:
    """Print one line a stage, and write all numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="pydoc_order")
    parser.add_argument("--stages", type=int, default=8)
    parser.add_argument("--dense-epochs", type=int, default=6)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        config = run_config(
            {
                "task": {"name": args.task},
                "dense": {"max_epochs": args.dense_epochs, "patience": args.dense_epochs},
                "xi": {"spacing": "target", "num_stages": args.stages},
                "stage": {"kkt_examples": 0},
                "trainer": {"num_threads": 1, "accelerator": "cpu"},
                "tracking": {"wandb": "off"},
                "out_dir": folder,
            }
        )
        fit = build(config, Path(folder), rank=0, show_progress=False)
        measured = {
            name: Stationarity(
                fit.data,
                num_examples=count,
                batch_size=config.optim.batch_size,
                in_float32=in_float32,
            )
            for name, (count, in_float32) in WAYS.items()
        }
        rows: list[dict[str, Any]] = []

        def measure(trainer: pl.Trainer, module: AdaptationModule, _end: Any) -> None:
            optimizer = prox_optimizer(trainer)
            group = optimizer.gate_groups[0]
            row: dict[str, Any] = {}
            for name, residuals in measured.items():
                began = time.process_time()
                found = residuals(module, optimizer, group["xi"] / group["lr"])
                seconds = time.process_time() - began
                row[name] = {"kkt": found.kkt, "se": found.kkt_se, "cpu_s": seconds}
            rows.append(row)
            print(
                len(rows) - 1,
                *(
                    f"{n}: {r['kkt']:.3f} +- {r['se']:.3f} ({r['cpu_s']:.1f} s)"
                    for n, r in row.items()
                ),
                sep="  ",
                flush=True,
            )

        listeners: list[Any] = fit.scheduler.on_stage_end
        listeners[:] = [measure]
        fit.train(None)
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
