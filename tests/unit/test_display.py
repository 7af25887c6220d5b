"""The live table of a sweep: what it says, and that it fits the terminal."""

import io
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from sorakit.records import RunWriter
from sorakit.sweep.cost import Times
from sorakit.sweep.display import SweepDisplay, describe_failures, estimate, plan_costs
from sorakit.sweep.plan import Job, Plan, plan_sweep
from tests.support.fake_runs import append_fake_stage, fake_meta

CONTENT = {
    "grid": {"task.name": ["pydoc_topic"], "seed": [0, 1, 2]},
    "points": [{}, {"stage.control": "hold_dense", "stage.epochs": 0.4}],
}
CURSOR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def sweep_in(folder: Path) -> Plan:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(CONTENT, sort_keys=False))
    return plan_sweep([file], out=folder / "out", threads_per_run=1)


def write_stages(job: Job, num_stages: int) -> None:
    job.path.mkdir(parents=True)
    writer = RunWriter(job.path)
    writer.write_config(job.config)
    writer.write_meta(fake_meta(job.config))
    writer.write_status("running")
    for stage in range(num_stages):
        append_fake_stage(writer, job.config, stage)


def set_state(job: Job, state: str, *, num_stages: int = 0, error: str | None = None) -> None:
    if num_stages:
        write_stages(job, num_stages)
    job.state, job.error = state, error  # pyright: ignore[reportAttributeAccessIssue]  # a literal


def shown(plan: Plan, *, width: int, height: int = 24, notes: tuple[str, ...] = ()) -> list[str]:
    """Return what stands in a terminal of this size while the sweep is going."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, height=height)
    with SweepDisplay(plan, workers=2, console=console) as display:
        for note in notes:
            display.note(note)
        before = len(stream.getvalue())
        display.refresh()
        printed = stream.getvalue()[before:]
    return [CURSOR.sub("", line).rstrip() for line in printed.splitlines()]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A sweep of six runs: one done, one failed, two running, two to run."""
    plan = sweep_in(tmp_path)
    jobs = plan.jobs
    set_state(jobs[0], "completed", num_stages=8)
    set_state(jobs[1], "running", num_stages=3)
    set_state(jobs[2], "running")
    set_state(jobs[3], "failed", error="OSError: [Errno 28] No space left on device: 'a' " * 3)
    return plan


@pytest.mark.parametrize("width", [80, 120])
def test_everything_stands_on_a_line_of_its_own(plan, width):
    head, bar, failed, note, empty, _, *rows = shown(plan, width=width, notes=("run " + "x " * 99,))
    assert re.match(r"6 runs: 1 done, 2 running, 1 failed, 2 to run, perhaps \d+ \w+ left$", head)
    assert set(bar) <= set("━╸╺")
    assert failed.startswith("failed pydoc_topic seed=1 hold_dense epochs=0.4: OSError: [Errno 28]")
    assert note.startswith("run x x")
    assert (failed[-1], note[-1], empty) == ("…", "…", "")
    assert [row.split()[0] for row in rows] == ["running", "running", "done"]
    assert max(map(len, [head, bar, failed, note, *rows])) <= width


def test_row_holds_point_stages_share_scores_and_time_left(plan):
    running, begun, done = (row.split() for row in shown(plan, width=80)[-3:])
    assert running[:4] == ["running", "pydoc_topic", "seed=0", "hold_dense"]
    assert running[4].endswith("…")  # a row is a line, and the label gives way
    assert running[5:] == ["3", "56.6%", "0.949", "0.644", "10", "s"]  # a second a stage, of 13
    assert begun == ["running", "pydoc_topic", "seed=1", "0"]
    assert done == ["done", "pydoc_topic", "seed=0", "8", "0.0%", "0.548", "0.508"]


def test_expected_times_are_the_time_left_until_a_run_has_shown_its_own(tmp_path):
    plan = sweep_in(tmp_path)
    costs = plan_costs(plan)
    for job in plan.jobs:
        costs.expect(job.config, Times(dense=5.0, later=20.0))
    running, *others = plan.jobs
    for job in others:
        set_state(job, "failed")
    set_state(running, "running")
    assert estimate(plan, costs).seconds(1) == 5 + 20
    write_stages(running, 3)  # a second each; there will be 12 after the dense one
    assert estimate(plan, costs).seconds(1) == 13 - 3


def test_points_of_several_datasets_are_named_by_their_labels(tmp_path):
    files = [f"{name}_train.csv" for name in ("mails", "reviews")]
    points = [{"task.name": "files", "task.train_file": file} for file in files]
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(yaml.safe_dump({"grid": {"seed": [3]}, "points": points}))
    plan = plan_sweep([sweep], out=tmp_path / "out", threads_per_run=1)
    for job in plan.jobs:
        set_state(job, "running")
    names = [row.split()[1:3] for row in shown(plan, width=80)[-2:]]
    assert names == [["mails", "seed=3"], ["reviews", "seed=3"]]


def test_wide_terminal_names_the_run_folders(plan):
    names = {job.point.run_id for job in plan.jobs[:3]}
    assert {row.split()[1] for row in shown(plan, width=120)[-3:]} == names
    assert not any(name in line for line in shown(plan, width=80) for name in names)


def test_low_terminal_shows_what_is_running(plan):
    lines = shown(plan, width=80, height=8)
    assert [line.split()[0] for line in lines[-2:]] == ["running", "running"]


def test_end_leaves_failures_to_the_last_lines(plan):
    stream = io.StringIO()
    with SweepDisplay(
        plan, workers=2, console=Console(file=stream, force_terminal=True, width=80, height=24)
    ):
        before = len(stream.getvalue())
    assert "failed pydoc_topic" not in stream.getvalue()[before:]
    job = plan.jobs[3]
    assert describe_failures([job], blocked=[]).splitlines() == [
        "1 run failed; rerun the same command to try again:",
        f"  {job.path} {job.point.label}: {job.error}",
        f"    log: {job.path / 'log.txt'}",
    ]


def test_stages_that_are_done_are_no_time_left(tmp_path):
    # fake stages take a second, and a finished run has 8 of them
    plan = sweep_in(tmp_path)
    done, _, running, *others = plan.jobs
    set_state(done, "completed", num_stages=8)
    RunWriter(done.path).write_status("completed")
    costs = plan_costs(plan)
    for job in (plan.jobs[1], *others):
        set_state(job, "failed")
    set_state(running, "running")
    rest = estimate(plan, costs)
    assert (rest.seconds(1), rest.is_rough) == (8, False)
    write_stages(running, 3)
    assert estimate(plan, costs).seconds(1) == 5


def test_stages_of_a_running_run_tell_what_is_left_where_none_is_finished(tmp_path):
    plan = sweep_in(tmp_path)
    costs = plan_costs(plan)
    running, hold_dense, _, *others = plan.jobs
    for job in (hold_dense, *others):
        set_state(job, "failed")
    set_state(running, "running")
    assert estimate(plan, costs).seconds(1) is None
    write_stages(running, 3)  # a second each; there will be 12 after the dense one
    rest = estimate(plan, costs)
    assert (rest.seconds(1), rest.is_rough) == ((13 - 3) + 13, True)


def test_file_is_told_how_far_the_sweep_is_now_and_then(tmp_path, monkeypatch):
    plan = sweep_in(tmp_path)
    stream = io.StringIO()
    clock = iter([0.0, 60.0, 121.0, 150.0])
    monkeypatch.setattr("sorakit.sweep.display.time.monotonic", lambda: next(clock))
    with SweepDisplay(plan, workers=2, console=Console(file=stream, width=80)) as display:
        set_state(plan.jobs[0], "running", num_stages=3)
        for _ in range(3):
            display.refresh()
    assert stream.getvalue().splitlines() == [
        "6 runs: 0 done, 1 running, 0 failed, 5 to run, perhaps 36 s left"
    ]


@pytest.mark.parametrize("has_widgets", [True, False])
def test_notebook_redraws_the_table_where_it_can(has_widgets, tmp_path, monkeypatch):
    found = {"ipywidgets": object() if has_widgets else None}
    monkeypatch.setattr("sorakit.sweep.display.importlib.util.find_spec", found.get)
    console = Console(file=io.StringIO(), force_jupyter=True, width=80)
    display = SweepDisplay(sweep_in(tmp_path), workers=1, console=console)
    assert (display._live is not None) == has_widgets
