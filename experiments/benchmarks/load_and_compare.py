"""Time of loading and comparing many runs: 200 of 30 stages, 2,000 tracked examples each.

Writes synthetic run folders (20 datasets of 5 paths and 5 floors, 12 layers of 6 matrices) to a
temporary folder, then loads and compares them once.

    python -m experiments.benchmarks.load_and_compare [--runs 200] [--stages 30] [--examples 2000]
"""

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.compare import compare
from analysis.load import load_runs
from sorakit.config import (
    METHOD_VERSION,
    BackboneConfig,
    MethodConfig,
    RunConfig,
    TaskConfig,
)
from sorakit.records import (
    EXAMPLES_FILE,
    RANKS_FILE,
    SCHEMA_VERSION,
    STAGES_FILE,
    RankRecord,
    RunWriter,
    StageRecord,
    measure_columns,
    run_id,
)

SEEDS = 5
LAYERS, MATRICES, R, WIDTH = 12, 6, 8, 768
DENSE = LAYERS * MATRICES * R * 2 * WIDTH


def write_runs(root: Path, *, runs: int, stages: int, examples: int) -> None:
    """Write `runs` run folders below `root`, half of them paths and half their floors."""
    for number in range(runs):
        rng = np.random.default_rng(number)
        pair, is_floor = divmod(number, 2)
        dataset, seed = divmod(pair, SEEDS)
        config = RunConfig(
            task=TaskConfig(name=f"task_{dataset:02d}"),
            backbone=BackboneConfig(),
            method=MethodConfig(name="head_only" if is_floor else "sora"),
            seed=seed,
        )
        path = root / run_id(config)
        path.mkdir(parents=True)
        writer = RunWriter(path)
        writer.write_config(config)
        writer.write_meta(
            {
                "schema_version": SCHEMA_VERSION,
                "method_version": METHOD_VERSION,
                "run_id": run_id(config),
                "data_fingerprint": config.task.name,
            }
        )
        _write_stages(path, rng, stages=stages, examples=examples, is_floor=bool(is_floor))
        writer.write_status("completed")


def _write_stages(
    path: Path, rng: np.random.Generator, *, stages: int, examples: int, is_floor: bool
) -> None:
    """Write whole tables at once: the writer appends a stage by rewriting all examples."""
    lines: dict[str, list[str]] = {STAGES_FILE: [], RANKS_FILE: []}
    tables: list[pd.DataFrame] = []
    for stage in range(stages):
        share = 0.0 if is_floor else 10 ** (-2.2 * stage / stages)
        frames = [
            pd.DataFrame(
                {
                    "stage": stage,
                    "split": split,
                    "index": np.arange(examples // 2),
                    "loss": rng.random(examples // 2).astype(np.float32),
                    "correct": pd.array(rng.random(examples // 2) < accuracy, dtype="boolean"),
                    "margin": rng.random(examples // 2).astype(np.float32),
                    "is_noisy": False,
                }
            )
            for split, accuracy in (
                ("memorization", 0.55 + 0.40 * share**0.3),
                ("generalization", 0.53 + 0.25 * share**0.15),
            )
        ]
        tables += frames
        scores = [float(frame["correct"].mean()) for frame in frames]
        record = StageRecord(
            stage=stage,
            xi=1e-4 * 1.3**stage,
            lambda_=1e-4 * 1.3**stage,
            num_nonzero_params=round(share * DENSE),
            num_adapter_params=DENSE,
            num_nonzero_gates=round(share * LAYERS * MATRICES * R),
            metric="accuracy",
            memorization=scores[0],
            generalization=scores[1],
            test=None,
            memorization_percent=None,
            generalization_percent=None,
            extra_metrics={},
            train_loss=0.5,
            memorization_loss=1 - scores[0],
            generalization_loss=1 - scores[1],
            epochs=1.0,
            optimizer_steps=100,
            stopped_by="length",
        )
        line = asdict(record)
        line["lambda"] = line.pop("lambda_")
        line |= dict.fromkeys(measure_columns(), 0.0)
        lines[STAGES_FILE].append(json.dumps(line))
        if not is_floor:
            lines[RANKS_FILE] += [json.dumps(asdict(rank)) for rank in _ranks(stage, share, rng)]
    for name, rows in lines.items():
        (path / name).write_text("".join(f"{row}\n" for row in rows), "utf-8")
    pd.concat(tables, ignore_index=True).to_parquet(path / EXAMPLES_FILE, index=False)


def _ranks(stage: int, share: float, rng: np.random.Generator) -> list[RankRecord]:
    return [
        RankRecord(
            stage=stage,
            module=f"layer.{layer}.{matrix}",
            layer=layer,
            matrix=f"matrix_{matrix}",
            in_features=WIDTH,
            out_features=WIDTH,
            r=R,
            nonzero_rank=int((rng.random(R) < share).sum()),
            strengths=rng.random(R).tolist(),
        )
        for layer in range(LAYERS)
        for matrix in range(MATRICES)
    ]


def main() -> None:
    """Print seconds of wall clock and CPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--stages", type=int, default=30)
    parser.add_argument("--examples", type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder), runs=args.runs, stages=args.stages, examples=args.examples)
        for step, with_ranks in (("load and compare", False), ("load with ranks", True)):
            wall, cpu = time.perf_counter(), time.process_time()
            runs = load_runs([Path(folder)], with_ranks=with_ranks)
            loaded = time.process_time() - cpu
            if not with_ranks:
                compare(runs)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            print(f"{step}: {wall:.1f} s, {cpu:.1f} s of CPU ({loaded:.1f} s loading)", flush=True)


if __name__ == "__main__":
    main()
