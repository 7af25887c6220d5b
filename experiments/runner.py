"""Runs a list of configurations one after the other, and keeps the records of finished ones."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from sorakit.config import RunConfig
from sorakit.records import ADAPTERS_DIR, CHECKPOINTS_DIR, load_run
from sorakit.training.run import run

RESULTS = Path(__file__).parent / "results"


def run_all(configs: Iterable[RunConfig]) -> list[Path]:
    """Run every configuration that is not complete yet; return the run folders."""
    return [run(config).path for config in configs]


def keep_records(paths: Iterable[Path], results: Path = RESULTS) -> None:
    """Copy the records of completed runs, without weights, to `results/<run_id>`.

    Raises:
        ValueError: If a run is not complete.
    """
    for path in paths:
        loaded = load_run(path)
        if loaded.state != "completed":
            raise ValueError(f"`paths` must be completed runs, got {str(path)!r} ({loaded.state}).")
        target = results / loaded.run_id
        if not target.exists():
            ignore = shutil.ignore_patterns(ADAPTERS_DIR, CHECKPOINTS_DIR, "*.part")
            shutil.copytree(path, target, ignore=ignore)
