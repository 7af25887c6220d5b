"""What a sweep is going to do, in a file beside its runs: `sorakit status` reads it.

A run that was never begun has no folder, and one that failed before its first line has an empty
one; both stand in `OUT/sweeps/NAME.json`, NAME being that of the sweep file. No run reads it: the
sweep goes on from the run folders alone.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from typing_extensions import override

from sorakit.records.durable import replace_text
from sorakit.sweep.driver import Listener
from sorakit.sweep.plan import Job, Plan

SWEEPS_DIR = "sweeps"
UNKNOWN_ID = "-"
"""Stands for the run id of a control whose path is not done."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run of a sweep, as its file has it.

    Attributes:
        path: Run folder; of a control whose path is not done, none yet.
        task: Its task.
        label: What distinguishes it from the others of its sweep.
        state: waiting, running, completed, failed or blocked.
        error: Why it failed.
    """

    path: Path
    task: str
    label: str
    state: str
    error: str | None


class Recorded(Listener):
    """Keeps the file of a sweep up to date, and tells another listener all it is told.

    Args:
        plan: The sweep.
        listener: Whom it tells.
    """

    def __init__(self, plan: Plan, listener: Listener) -> None:
        self._plan = plan
        self._listener = listener
        self._is_old = True
        self.refresh()

    @override
    def changed(self, job: Job) -> None:
        """Take note that the state of a job has changed."""
        self._is_old = True
        self._listener.changed(job)

    @override
    def note(self, text: str) -> None:
        """Pass it on."""
        self._listener.note(text)

    @override
    def refresh(self) -> None:
        """Write the file if anything has changed."""
        if self._is_old:
            folder = self._plan.out / SWEEPS_DIR
            folder.mkdir(parents=True, exist_ok=True)
            rows = [_row(job, self._plan.out) for job in self._plan.jobs]
            text = json.dumps({"runs": rows}, indent=0) + "\n"
            replace_text(folder / f"{self._plan.name}.json", text)
            self._is_old = False
        self._listener.refresh()


def read_entries(root: Path) -> list[Entry]:
    """Return the runs of the sweeps whose files stand at or below `root`, each once."""
    entries: dict[tuple[Path, str], Entry] = {}
    # Not rglob: it fails when a folder goes away meanwhile.
    walked = ((Path(folder), files) for folder, _, files in os.walk(root))
    found = [
        folder / name for folder, files in walked if folder.name == SWEEPS_DIR for name in files
    ]
    for file in sorted(file for file in found if file.suffix == ".json"):
        content = cast(dict[str, list[dict[str, Any]]], json.loads(file.read_text("utf-8")))
        for row in content["runs"]:
            path = file.parents[1] / str(row["path"])
            entry = Entry(
                path=path,
                task=row["task"],
                label=row["label"],
                state=row["state"],
                error=row["error"],
            )
            entries[path, entry.label if path.name == UNKNOWN_ID else ""] = entry
    return list(entries.values())


def _row(job: Job, out: Path) -> dict[str, Any]:
    path = job.path if job.steps_of is None else job.path.with_name(UNKNOWN_ID)
    return {
        "path": str(path.relative_to(out)),
        "task": job.config.task.name,
        "label": job.point.label,
        "state": job.state,
        "error": job.error,
    }
