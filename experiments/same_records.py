"""Do two checkouts give the same records, bit for bit? For changes that must not change numbers.

Short runs of every schedule on the embedded encoder and on MRPC, each run whole, and once killed
and resumed, in both checkouts: `stages.jsonl`, `ranks.jsonl`, `examples.parquet` and the exported
adapters are compared. What only the newer checkout records is named and does no harm.

    git worktree add ../before COMMIT
    python -m experiments.same_records ../before
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

HERE = Path(__file__).parents[1]
SHORT = (
    "--trainer.num_threads=1",
    "--tracking.wandb=off",
    "--dense.max_epochs=1",
    "--stage.epochs=0.1",
    "--stage.max_epochs=0.5",
    "--stage.kkt_examples=64",
    "--task.memorization_examples=200",
    "--task.max_length=48",
)
EMBEDDED = ("--task.name=pydoc_order", *SHORT)
TARGET = ("--xi.spacing=target", "--xi.num_stages=3", "--xi.first=0.02")
LEVELS = ("--xi.spacing=geometric", "--xi.num_stages=3", "--xi.first=0.05")
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "path_target": (*EMBEDDED, *TARGET),
    "path_geometric": (*EMBEDDED, *LEVELS),
    "hold_dense": (*EMBEDDED, *LEVELS, "--stage.control=hold_dense"),
    "random_mask": (*EMBEDDED, *TARGET, "--stage.control=random_mask"),
    "from_scratch": (*EMBEDDED, *LEVELS, "--stage.control=from_scratch"),
    "head_only": (*EMBEDDED, "--method.name=head_only"),
    "shuffled_labels": (*EMBEDDED, *TARGET, "--stage.control=shuffled_labels"),
    "released": (*EMBEDDED, *LEVELS, "--gates.update=released", "--gates.scale=free"),
}
KILL_AT = 40
"""Optimizer step of the kill: after the dense stage, where there is more than one segment."""


def configurations(data: Path, model: Path) -> dict[str, tuple[str, ...]]:
    """Return the options of every run; those of MRPC only where its data are."""
    found = dict(CONFIGURATIONS)
    if data.is_dir() and model.is_dir():
        mrpc = (
            "--task.name=mrpc",
            f"--task.data_dir={data}",
            f"--backbone.name={model}",
            *SHORT,
        )
        found["mrpc_path"] = (*mrpc, *TARGET)
        found["mrpc_random_mask"] = (*mrpc, *TARGET, "--stage.control=random_mask")
    return found


def run(checkout: Path, options: tuple[str, ...], out: Path, *, kill: bool) -> None:
    """Run one configuration to its end, killed once on the way if asked to."""
    command = [sys.executable, "-m", "sorakit", "run", *options, f"--out_dir={out}"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log")
    with log.open("a") as stream:
        if kill and not (out / "config.yaml").exists():
            process = subprocess.Popen(
                command, cwd=checkout, env=environment, stdout=stream, stderr=stream
            )
            while process.poll() is None and _last_step(out) < KILL_AT:
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(
            command, cwd=checkout, env=environment, stdout=stream, stderr=stream, check=True
        )


def differences(before: Path, after: Path) -> Iterator[str]:
    """Yield one line for everything in which two finished run folders differ."""
    for name in ("stages.jsonl", "ranks.jsonl"):
        old, new = _lines(before / name), _lines(after / name)
        if len(old) != len(new):
            yield f"{name}: {len(old)} lines, then {len(new)}"
        for k, (a, b) in enumerate(zip(old, new, strict=False)):
            changed = [key for key in a if key not in b or a[key] != b[key]]
            yield from (f"{name}:{k + 1} {key}: {a[key]}, then {b.get(key)}" for key in changed)
    old_table = pd.read_parquet(before / "examples.parquet")
    new_table = pd.read_parquet(after / "examples.parquet")
    for column in old_table:
        if column not in new_table or not old_table[column].equals(new_table[column]):
            yield f"examples.parquet: column {column}"
    for file in sorted((before / "adapters").rglob("*")):
        other = after / "adapters" / file.relative_to(before / "adapters")
        if file.is_file() and (not other.exists() or file.read_bytes() != other.read_bytes()):
            yield f"adapters/{file.relative_to(before / 'adapters')}"


def additions(before: Path, after: Path) -> set[str]:
    """Return the fields that only the newer checkout records."""
    old, new = _lines(before / "stages.jsonl"), _lines(after / "stages.jsonl")
    added = set(new[0]) - set(old[0]) if old and new else set()
    columns = {str(c) for c in pd.read_parquet(after / "examples.parquet")} - {
        str(c) for c in pd.read_parquet(before / "examples.parquet")
    }
    return added | columns


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def _last_step(out: Path) -> int:
    file = out / "steps.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except json.JSONDecodeError:
        return 0


def main() -> None:
    """Compare a checkout with this one; exit with 1 where they differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="Checkout to compare with.")
    parser.add_argument("--out", type=Path, default=Path("runs/same_records"))
    parser.add_argument("--only", nargs="*", help="Names of configurations; all by default.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--shared", type=Path, default=HERE.parent / "shared")
    args = parser.parse_args()
    found = configurations(
        (args.shared / "data" / "glue").resolve(),
        (args.shared / "models" / "all-MiniLM-L6-v2").resolve(),
    )
    names = args.only or list(found)
    checkouts = {"before": args.before.resolve(), "after": HERE}
    jobs = [
        (checkout, found[name], args.out.resolve() / side / how / name, how == "resumed")
        for name in names
        for side, how in (("before", "whole"), ("after", "whole"), ("after", "resumed"))
        for checkout in [checkouts[side]]
    ]
    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(lambda job: run(job[0], job[1], job[2], kill=job[3]), jobs))
    num_different = 0
    for name in names:
        for how in ("whole", "resumed"):
            before = args.out / "before" / "whole" / name  # a resumed run equals the unbroken one
            after = args.out / "after" / how / name
            found_here = list(differences(before, after))
            num_different += bool(found_here)
            new = sorted(additions(before, after))
            print(f"{name:18} {how:8} {'differs' if found_here else 'equal'}", end="")
            print(f"  (new: {', '.join(new)})" if new else "")
            for line in found_here[:5]:
                print(f"    {line}")
    print(f"{num_different} of {2 * len(names)} differ")
    sys.exit(1 if num_different else 0)


if __name__ == "__main__":
    main()
