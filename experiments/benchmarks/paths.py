"""Whole runs as processes, by CPU time: against an older checkout, the Trainer, and separate LoRAs.

    python -m experiments.benchmarks.paths before CHECKOUT   # the same refitted path by older code
    python -m experiments.benchmarks.paths trainer           # dense training by Trainer and PEFT
    python -m experiments.benchmarks.paths lora              # 12 stages against LoRA r = 1, 2, 4, 8

Options of `sorakit run` go behind `--set`. Commands take turns, one thread each; every round prints
its CPU seconds (of `sorakit run` also by part, see `timed_run.py`), the end median ratios.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sorakit.backbones import backbone_source
from sorakit.options import run_config
from sorakit.tasks.memorization import memorization_indices
from sorakit.training.inputs import load_data

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SMALL = {
    "task.name": "pydoc_order",
    "task.train_examples": 400,
    "task.memorization_examples": 400,
    "task.max_length": 64,
    "trainer.num_threads": 1,
    "tracking.wandb": "off",
}
"""What all runs have in common unless options say otherwise."""
DENSE = {"dense.max_epochs": 5, "dense.patience": 5}
LORA_RANKS = (1, 2, 4, 8)
STAGES = 12
SAME_PASSES = {
    **DENSE,
    "xi.spacing": "geometric",
    "xi.num_stages": 4,
    "xi.first": 0.01,
    "xi.end": 0.1,
    "stage.until": "length",
    "stage.epochs": 1,
    "refit.max_epochs": 4,
    "refit.patience": 4,
}
"""A refitted path whose phases have fixed lengths: two checkouts take the same passes."""


def sorakit_run(
    options: dict[str, Any], *, checkout: Path = ROOT, flags: Sequence[str] = ()
) -> dict[str, float]:
    """Return the CPU seconds of `sorakit run`, whole and by part."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        named = [f"--{name}={value}" for name, value in {**SMALL, **options}.items()]
        program = [sys.executable, str(HERE / "timed_run.py"), str(out), *flags, *named]
        _execute([*program, f"--out_dir={folder}/run"], checkout=checkout)
        return json.loads(out.read_text("utf-8"))


def trainer_run(data: Path, backbone: str, epochs: int) -> dict[str, float]:
    """Return the CPU seconds of the Trainer."""
    program = [sys.executable, str(HERE / "trainer_rival.py"), str(data), backbone, str(epochs)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _execute(program, checkout=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"whole": used}


def write_data(options: dict[str, Any], file: Path) -> None:
    """Write the texts and labels that a run has, for the Trainer."""
    nested: dict[str, Any] = {}
    for name, value in {**SMALL, **options}.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    config = run_config(nested)
    task = load_data(config)
    sample = memorization_indices(len(task.train), config.task.memorization_examples)
    splits = {
        "train": task.train,
        "memorization": task.train.select(sample),
        "generalization": task.validation,
    }
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, split in splits.items():
        texts = [split[c] for c in ("text", "text_pair") if c in split.column_names]
        rows[name] = [
            {"text": list(row), "label": label}
            for *row, label in zip(*texts, split["label"], strict=True)
        ]
    file.write_text(json.dumps(rows), "utf-8")


def _execute(command: list[str], *, checkout: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    subprocess.run(command, check=True, cwd=checkout, env=environment, stdout=subprocess.DEVNULL)


def _tell(number: int, name: str, parts: dict[str, float]) -> None:
    print(number, name, *(f"{part} {s:.1f} s" for part, s in parts.items()), flush=True)


def _ratio(name: str, values: Sequence[float]) -> None:
    spread = f"[{min(values):.2f}, {max(values):.2f}]"
    print(f"{name}: {statistics.median(values):.2f} {spread}", flush=True)


def against_before(checkout: Path, options: dict[str, Any], rounds: int) -> None:
    """The same refitted path, by the code of another checkout and by this."""
    found: list[tuple[dict[str, float], dict[str, float]]] = []
    for number in range(rounds):
        before = sorakit_run({**SAME_PASSES, **options}, checkout=checkout.resolve())
        _tell(number, "before", before)
        after = sorakit_run({**SAME_PASSES, **options})
        _tell(number, "after", after)
        found.append((before, after))
    for part in found[0][1]:
        _ratio(f"{part}, after / before", [a[part] / b[part] for b, a in found])
    inner = [(b["whole"] - b["start"], a["whole"] - a["start"]) for b, a in found]
    _ratio("all but start, after / before", [a / b for b, a in inner])


def against_trainer(options: dict[str, Any], rounds: int) -> None:
    """Dense training of the same length, recorded and exported, against the Trainer."""
    ratios: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.json"
        write_data(options, data)
        chosen = {**DENSE, **options}
        backbone = str(backbone_source(str(chosen.get("backbone.name", "embedded"))))
        for number in range(rounds):
            trainer = trainer_run(data, backbone, int(chosen["dense.max_epochs"]))
            _tell(number, "Trainer", trainer)
            own = sorakit_run(chosen, flags=["--dense-only"])
            _tell(number, "sorakit", own)
            ratios.append(own["whole"] / trainer["whole"])
    _ratio("sorakit / Trainer, whole processes", ratios)


def against_lora(options: dict[str, Any], rounds: int) -> None:
    """A refitted path of 12 stages against LoRA of four ranks, all trained until they converge."""
    ratios: list[float] = []
    for number in range(rounds):
        path = sorakit_run({"xi.spacing": "target", "xi.num_stages": STAGES, **options})
        _tell(number, "path", path)
        separate = 0.0
        for rank in LORA_RANKS:
            lora = sorakit_run({"method.name": "lora", "method.r": rank, **options})
            _tell(number, f"LoRA r = {rank}", lora)
            separate += lora["whole"]
        ratios.append(path["whole"] / separate)
    _ratio(f"{STAGES + 1} points / {len(LORA_RANKS)} points", ratios)
    share = len(LORA_RANKS) / (STAGES + 1)
    _ratio("the same at equal points", [ratio * share for ratio in ratios])


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", choices=["before", "trainer", "lora"])
    parser.add_argument("checkout", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], help="options of sorakit run: task.name=x")
    args = parser.parse_args()
    options = dict(pair.split("=", 1) for pair in args.set)
    if args.comparison == "before":
        if args.checkout is None:
            parser.error("`checkout` must be given for `before`, got none.")
        against_before(args.checkout, options, args.rounds)
    elif args.comparison == "trainer":
        against_trainer(options, args.rounds)
    else:
        against_lora(options, args.rounds)


if __name__ == "__main__":
    main()
