"""Sweep files on the tiny model and task, and their runs made alone for comparison."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sorakit.records import LOG_FILE, config_to_dict
from sorakit.sweep.plan import Job, plan_sweep
from sorakit.training.run import run
from tests.support.broken_runs import assert_same_run
from tests.support.tiny_hub import tiny_run


def write_sweep(hub: Path, file: Path, **keywords: Any) -> Path:
    """Write a sweep of `tiny_run` with keywords such as `grid` or `points`; return the file.

    A run is 160 dense steps and two stages: seconds, so that it can be killed meanwhile.
    """
    sections: Mapping[str, Mapping[str, Any]] = {"dense": {"max_epochs": 20, "patience": 20}}
    options = config_to_dict(tiny_run(hub, levels=(0.02, 0.05), sections=sections))
    del options["out_dir"]
    file.write_text(yaml.safe_dump({**options, **keywords}))
    return file


def jobs_of(file: Path, out: Path) -> list[Job]:
    """Return the jobs of a sweep, as the command line plans them."""
    return plan_sweep([file], out=out, threads_per_run=1).jobs


def assert_runs_equal_those_made_alone(jobs: list[Job], folder: Path) -> None:
    """Assert that every job's run equals, bit for bit, one that shared and survived nothing."""
    for job in jobs:
        alone = folder / job.point.run_id
        run(replace(job.config, out_dir=str(alone)), show_progress=False)
        (job.path / LOG_FILE).unlink(missing_ok=True)
        assert_same_run(job.path, alone)
