"""A study from its request to its report."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from sorakit.records.durable import replace_text
from sorakit.records.identity import dataset_label
from sorakit.studies.conclusion import (
    GET_IT,
    REPORT_FILE,
    SUMMARY_FILE,
    conclude,
    missing_packages,
)
from sorakit.studies.expectation import describe, expect
from sorakit.studies.look import Look, look_at
from sorakit.studies.specification import Request, Specification, specification
from sorakit.studies.study import Study
from sorakit.sweep.cost import CostModel
from sorakit.sweep.display import (
    SweepDisplay,
    describe_failures,
    describe_runs,
    plan_costs,
)
from sorakit.sweep.driver import run_sweep
from sorakit.sweep.engines import LocalEngine
from sorakit.sweep.grid import load_specification
from sorakit.sweep.manifest import Recorded
from sorakit.sweep.plan import Job, Plan, plan_points, require_writable

LOOKS_FILE = "looks.json"
"""What was seen of the data and the time of a step: a study goes on without looking again."""


def study(
    data: str | Sequence[str],
    *,
    backbone: str = "embedded",
    seeds: int | None = None,
    controls: str | None = None,
    lora_ranks: Sequence[int] | None = None,
    quick: bool = False,
    out: str | Path | None = None,
    workers: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Study:
    """Run a study, or go on with it, and return its tables; the same as `sorakit study`.

    Args:
        data: A task, a file, a folder, a Hub id, or `NAME=PLACE`; or several of them.
        backbone: embedded, a folder or a Hub id.
        seeds: Number of seeds; null is 5, of a quick study 1.
        controls: What every path is compared with, as in `sorakit run --controls`.
        lora_ranks: Ranks of plain LoRA; null is 1, 2, 4, ... up to that of the path.
        quick: Whether a small first answer will do.
        out: Folder of the study; null is studies/<data>.
        workers: Runs at a time.
        options: Further options of the runs, for example `{"task.text_column": "review"}`.

    Raises:
        RuntimeError: If a run has failed; the others are there.
        ValueError: If the request is wrong; nothing has been written then.
    """
    request = Request(
        data=[data] if isinstance(data, str) else list(data),
        backbone=backbone,
        seeds=seeds,
        controls=controls,
        lora_ranks=lora_ranks,
        quick=quick,
        options=options or {},
        out=None if out is None else str(out),
    )
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        sys.stdout.write(text + "\n")

    spec = specification(request)
    if not conduct(spec, workers=workers, threads_per_run=1, dry_run=False, say=say):
        raise RuntimeError(f"The study in {spec.folder} did not come to its end: {said[-1]}")
    return Study(path=spec.folder)


def conduct(
    spec: Specification,
    *,
    workers: int,
    threads_per_run: int,
    dry_run: bool,
    say: Callable[[str], None],
) -> bool:
    """Say what will be done, do it, and make the report; return whether all of it succeeded.

    Args:
        spec: The study.
        workers: Runs at a time.
        threads_per_run: CPU threads of a run.
        dry_run: Only say it, and write nothing.
        say: Is told everything that a user should read, beside the live table.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when every run has stopped and can be resumed.
        ValueError: If the study cannot be run; nothing has been written then.
    """
    spec.require_same()
    sweep = load_specification(spec.content, name="study")
    plan = plan_points(sweep, out=spec.runs, threads_per_run=threads_per_run)
    looks = _looks(spec, plan, say)
    costs = plan_costs(plan)
    expect(costs, plan, looks, at_most=False)
    _announce(spec, plan, costs=costs, looks=looks, workers=workers, say=say)
    if dry_run:
        return True
    spec.write()
    _keep_looks(spec, plan, looks)
    require_writable(plan.out)
    with SweepDisplay(plan, workers=workers, console=Console(), costs=costs) as display:
        outcome = run_sweep(plan, LocalEngine(workers=workers), Recorded(plan, display))
    concluded = _conclude(spec, plan, say)
    if outcome.failed:
        say(describe_failures(outcome.failed, blocked=outcome.blocked))
    return concluded and not outcome.failed


def _announce(
    spec: Specification,
    plan: Plan,
    *,
    costs: CostModel,
    looks: Mapping[int, Look],
    workers: int,
    say: Callable[[str], None],
) -> None:
    if spec.left_out:
        say(spec.left_out)
    for line in describe_runs(plan):
        say(line)
    say(describe(plan, looks, costs=costs, workers=workers))
    say(f"Folder: {spec.folder}; Ctrl-C stops, and the same command goes on.")
    missing = missing_packages()
    if missing:
        say(
            f"Tables, figures and report need {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed: {GET_IT}. The runs do not."
        )


def _looks(spec: Specification, plan: Plan, say: Callable[[str], None]) -> dict[int, Look]:
    """Return what was seen of the data of every job by its index; a dataset is looked at once."""
    file = spec.folder / LOOKS_FILE
    kept: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    by_label: dict[str, Look] = {}
    for job in plan.jobs:
        label = _label(job)
        if label in by_label:
            continue
        look = Look(**kept[label]) if label in kept else look_at(job.config)
        by_label[label] = look
        say(look.text)
        for warning in look.warnings:
            say(f"warning: {warning}")
    return {index: by_label[_label(job)] for index, job in enumerate(plan.jobs)}


def _keep_looks(spec: Specification, plan: Plan, looks: Mapping[int, Look]) -> None:
    content = {_label(plan.jobs[index]): asdict(look) for index, look in looks.items()}
    replace_text(spec.folder / LOOKS_FILE, json.dumps(content, indent=1) + "\n")


def _label(job: Job) -> str:
    return dataset_label(vars(job.config.task))


def _conclude(spec: Specification, plan: Plan, say: Callable[[str], None]) -> bool:
    if not any(job.state == "completed" for job in plan.jobs):
        return False
    missing = missing_packages()
    if missing:
        say(
            f"The runs are in {plan.out}. For tables, figures and report: {GET_IT}, then the same "
            "command again; no run is repeated."
        )
        return True
    conclusion = conclude(spec.folder, plan.out, say)
    say(conclusion.summary)
    for failure in conclusion.failures:
        say(f"not made: {failure}")
    if not conclusion.failures:
        say(f"Comparison and frontier as text: {spec.folder / SUMMARY_FILE}")
        say(f"The report: {spec.folder / REPORT_FILE}")
    return not conclusion.failures
