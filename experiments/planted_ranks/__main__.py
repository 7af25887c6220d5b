"""Does a method find the rank that is there? Planted ranks, found without the truth.

The student is the teacher without its planted updates; every method adapts it with r = 16 and draws
a path from dense to sparse. The point on the path is the sparsest within one standard error of the
best held-out loss. A gate count is compared with the planted rank, and so is the numerical rank of
the update (singular values above 1 % of the largest of the model), which does not count a
direction twice.

    python -m experiments.planted_ranks                      # everything that is missing, the table
    python -m experiments.planted_ranks --methods sgd_unit --seeds 5 6
    python -m experiments.planted_ranks --update sgd --scale unit
    python -m experiments.planted_ranks --table              # only the table

Teachers: mixed (ranks 0, 1, 2, 4, 8, twice), null (no planted update: the right answer is 0) and
transformer (a 2-layer BERT; only the total rank can be scored). Finished runs are kept, one line
each with the whole path, in `experiments/results/planted_ranks/paths.jsonl` and skipped next time;
`matrices.csv` (one line a matrix, at the chosen point) and `table.md` are made from it.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from experiments.planted_ranks.points import (
    FOLDER,
    append,
    chosen,
    load,
    matrix_rows,
)
from experiments.planted_ranks.runs import METHODS, TEACHERS, TRANSFORMER_METHODS, make, run
from experiments.planted_ranks.sora import SORA
from experiments.planted_ranks.table import table


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield (method, teacher, seed), seed by seed so that an early table compares all methods."""
    for teacher in options.teachers:
        methods = TRANSFORMER_METHODS if teacher == "transformer" else METHODS
        for seed in options.seeds:
            for method in methods:
                variant = SORA.get(method)
                if options.update and (variant is None or variant.update not in options.update):
                    continue
                if options.scale and (variant is None or variant.scale not in options.scale):
                    continue
                if method in options.methods:
                    yield method, teacher, seed


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=METHODS,
        metavar="METHOD",
        help=f"Any of {', '.join(METHODS)}.",
    )
    parser.add_argument(
        "--update",
        nargs="+",
        choices=("sgd", "adamw", "adamw_metric", "released"),
        help="Only SoRA variants with these gate updates.",
    )
    parser.add_argument(
        "--scale",
        nargs="+",
        choices=("free", "unit"),
        help="Only SoRA variants with these gate scales.",
    )
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=TEACHERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=FOLDER, help="Folder of rows and table.")
    parser.add_argument("--table", action="store_true", help="Run nothing, make the table.")
    return parser.parse_args()


def main() -> None:
    """Run what is missing and make the tables."""
    options = parse()
    warnings.filterwarnings("ignore")  # Lightning's and PEFT's advice for real trainings
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    path = options.out / "paths.jsonl"
    done = {(r["method"], r["teacher"], r["seed"]) for r in load(path)}
    todo = [] if options.table else [job for job in jobs(options) if job not in done]
    for number, job in enumerate(todo, start=1):
        if job in done:  # the other pruning of a LoRA that has just been trained
            continue
        method, teacher, seed = job
        began = time.monotonic()
        paths = run(method, teacher, seed)
        seconds = time.monotonic() - began
        for name, points in paths.items():
            if (name, teacher, seed) in done:
                continue
            planted = list(make(teacher, seed).ranks)
            record = {"method": name, "teacher": teacher, "seed": seed, "planted": planted}
            append(path, {**record, "seconds": round(seconds, 1), "points": points})
            done.add((name, teacher, seed))
            point = points[chosen(points)]
            print(
                f"{number}/{len(todo)} {teacher} seed {seed} {name}: gates {point.gates}, ranks "
                f"{point.ranks}, planted {planted}, {seconds:.0f} s",
                flush=True,
            )
    runs = load(path)
    text = table(runs)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    matrix_rows(runs).to_csv(options.out / "matrices.csv", index=False, float_format="%.6g")
    print(text)


if __name__ == "__main__":
    main()
