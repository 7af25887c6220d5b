"""The data of a sweep's runs, loaded once before anything runs: a missing file is found early."""

from collections.abc import Iterable
from dataclasses import replace

from sorakit.config import TaskConfig
from sorakit.sweep.plan import Job
from sorakit.tasks import load_task

_DRAWN = {"label_noise": 0.0, "subset_seed": None}
"""Options of what is drawn from the data, which do not decide what is read."""


def require_data(jobs: Iterable[Job]) -> None:
    """Load the data of every run that is still to be made, once for each distinct task.

    Args:
        jobs: Jobs of a plan; those that are completed need no data.

    Raises:
        ValueError: If some data are missing or malformed; it names the first point with them.
    """
    seen: set[TaskConfig] = set()
    for job in jobs:
        task = replace(job.config.task, label=None, **_DRAWN)
        if job.state == "completed" or task in seen:
            continue
        seen.add(task)
        try:
            load_task(task, seed=job.config.seed)
        except ValueError as error:
            raise ValueError(f"Point {job.point.label}: {error}") from error
