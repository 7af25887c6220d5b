"""What a sweep finds done, what it refuses before anything runs, and what it says it will cost."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sorakit.config import StageConfig, XiConfig
from sorakit.records import find_runs, load_run, role_of, run_id
from sorakit.records.packing import pack_runs
from sorakit.sweep.cost import cost_model, describe_run_cost
from sorakit.sweep.display import describe_plan
from sorakit.sweep.plan import Plan, plan_sweep
from sorakit.training.inputs import input_stamps
from sorakit.training.time_left import describe_seconds
from tests.support.fake_runs import fake_config, write_run

SEEDS = {"grid": {"seed": [0, 1, 2]}}


def plan(folder: Path, content: dict[str, Any] = SEEDS, *, threads: int = 1) -> Plan:
    for needed in (folder, *([folder / "kept"] if "records" in content else [])):
        needed.mkdir(exist_ok=True)
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    return plan_sweep([folder / "sweep.yaml"], out=folder / "out", threads_per_run=threads)


def states(sweep: Plan) -> list[str]:
    return [job.state for job in sweep.jobs]


def test_run_folders_are_named_by_task_and_run_id(tmp_path):
    [first, *_] = plan(tmp_path).jobs
    assert first.path == tmp_path / "out" / "pydoc_topic" / first.point.run_id
    assert first.config.out_dir == str(first.path)
    assert not (tmp_path / "out").exists()


def test_finished_run_is_not_run_again(tmp_path):
    write_run(tmp_path / "out" / "pydoc_topic", seed=1)
    assert states(plan(tmp_path)) == ["waiting", "completed", "waiting"]


@pytest.mark.parametrize("state", ["running", "failed", "interrupted"])
def test_run_that_was_begun_goes_on(state, tmp_path):
    write_run(tmp_path / "out" / "pydoc_topic", seed=1, state=state)
    sweep = plan(tmp_path)
    assert states(sweep) == ["waiting"] * 3


def test_records_that_the_sweep_names_are_finished_runs(tmp_path):
    write_run(tmp_path / "kept", seed=2)
    sweep = plan(tmp_path, {**SEEDS, "records": "kept"})
    assert states(sweep) == ["waiting", "waiting", "completed"]


def test_records_in_a_pack_are_finished_runs(tmp_path):
    path = write_run(tmp_path / "out" / "pydoc_topic", xi=XI)
    control = plan(tmp_path, TARGETS).jobs[-1]
    write_run(tmp_path / "out" / "pydoc_topic", xi=XI, stage=control.config.stage)
    pack_runs(find_runs(tmp_path / "out"), tmp_path / "kept" / "pack")
    shutil.rmtree(tmp_path / "out")
    sweep = plan(tmp_path, {**TARGETS, "records": "kept"})
    assert states(sweep) == ["completed", "waiting", "waiting", "completed"]
    assert sweep.kept[path.name] == tmp_path / "kept" / "pack" / path.name


def test_records_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "sweep.yaml").write_text("records: none")
    with pytest.raises(ValueError, match=r"^`records` must be existing folders, got '.*/none'.$"):
        plan_sweep([tmp_path / "sweep.yaml"], out=tmp_path / "out", threads_per_run=1)


def test_wider_grid_only_adds(tmp_path):
    before = {job.path for job in plan(tmp_path, {"grid": {"seed": [0, 1]}}).jobs}
    after = {job.path for job in plan(tmp_path).jobs}
    assert before < after


def test_packed_record_of_other_data_is_refused(tmp_path):
    path = write_run(tmp_path / "runs", seed=1, meta={"inputs": None, "data_fingerprint": "other"})
    meta = json.loads((path / "meta.json").read_text())
    del meta["inputs"]  # as in the records of an older sorakit
    (path / "meta.json").write_text(json.dumps(meta))
    pack_runs([path], tmp_path / "kept")
    with pytest.raises(ValueError, match=r"made with other data .* or take its folder out of `rec"):
        plan(tmp_path, {**SEEDS, "records": "kept"})


@pytest.mark.parametrize("state", ["completed", "failed"])
@pytest.mark.parametrize(
    ("folder", "cure"),
    [
        ("out/pydoc_topic", "choose another `--out`"),
        ("kept", "take its folder out of `records`"),
    ],
)
def test_run_of_other_data_is_refused(folder, cure, state, tmp_path):
    made_with = input_stamps(fake_config(seed=1))
    made_with["data"] |= {"python": "3.10.0"}
    path = write_run(tmp_path / folder, seed=1, state=state, meta={"inputs": made_with})
    message = (
        f"`out_dir` must hold a run with the data and base model of now, got {str(path)!r}, made "
        f"with other data (changed: python). Put back what it was made with, or {cure}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        plan(tmp_path, {**SEEDS, "records": "kept"})


@pytest.mark.parametrize("folder", ["out/pydoc_topic", "kept"])
def test_run_of_another_schema_version_is_refused(folder, tmp_path):
    write_run(tmp_path / folder, seed=1, meta={"schema_version": 99})
    with pytest.raises(ValueError, match=r"^`schema_version` must be 1, got 99 in "):
        plan(tmp_path, {**SEEDS, "records": "kept"})


def test_foreign_files_are_refused(tmp_path):
    [job, *_] = plan(tmp_path).jobs
    job.path.mkdir(parents=True)
    (job.path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"^`out_dir` must be empty, new or a run folder, got "):
        plan(tmp_path)


def test_threads_are_those_of_the_configuration_or_of_the_sweep(tmp_path):
    content = {"grid": {"trainer.num_threads": [None, 3]}}
    jobs = plan(tmp_path, content, threads=2).jobs
    # the number of threads is no part of the experiment: one run
    assert [job.config.trainer.num_threads for job in jobs] == [2]
    assert plan(tmp_path, {"trainer.num_threads": 3}).jobs[0].config.trainer.num_threads == 3


SAME_DENSE_STAGE: dict[str, dict[str, Any]] = {
    "levels": {"xi.first": 0.01, "xi.num_stages": 3},
    "spacing": {"xi.spacing": "geometric"},
    "stage_length": {"stage.epochs": 2.0},
    "learning_rate_of_stages": {"stage.lr_factor": 0.1},
    "refit": {"stage.refit": "branch", "refit.patience": 7},
    "until": {"stage.until": "stationary", "xi.spacing": "geometric"},
    "control": {"stage.control": "hold_dense"},
    "mask": {"xi.spacing": "target", "stage.control": "random_mask"},
}
OTHER_DENSE_STAGE: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "start": {"xi.start": 2e-4},
    "convergence": {"dense.patience": 7},
    "columns_of_its_record": {"stage.kkt_examples": 0},
    "null_model": {"stage.control": "random_gradient"},
    "rank": {"method.r": 4},
    "threads": {"trainer.num_threads": 2},  # the last bits
}


@pytest.mark.parametrize("case", SAME_DENSE_STAGE)
def test_what_comes_after_the_dense_stage_shares_it(case, tmp_path):
    points = [{}, SAME_DENSE_STAGE[case]]
    first, second = plan(tmp_path, {"points": points}).jobs
    assert first.dense == second.dense


@pytest.mark.parametrize("case", OTHER_DENSE_STAGE)
def test_what_changes_the_dense_stage_does_not_share_it(case, tmp_path):
    keys = [
        job.dense for point in ({}, OTHER_DENSE_STAGE[case]) for job in plan(tmp_path, point).jobs
    ]
    assert len(set(keys)) == 2


def test_run_without_adapter_shares_nothing(tmp_path):
    [job] = plan(tmp_path, {"method.name": "head_only"}).jobs
    assert job.dense is None


# Controls ------------------------------------------------------------------------------------

TARGETS = {"xi": {"spacing": "target"}, "controls": ["floor", "hold_dense", "random_mask"]}
XI = XiConfig(spacing="target")


def labels(sweep: Plan) -> list[str]:
    return [job.point.label for job in sweep.jobs]


def test_path_is_followed_by_its_controls(tmp_path):
    sweep = plan(tmp_path, {**TARGETS, "grid": {"seed": [0, 1]}})
    names = [
        "",
        " method.name=head_only",
        " stage.control=hold_dense",
        " stage.control=random_mask",
    ]
    assert labels(sweep) == [f"seed={seed}{name}" for seed in (0, 1) for name in names]
    path, floor, hold_dense, random_mask = sweep.jobs[:4]
    assert (path.steps_of, floor.steps_of) == (None, None)
    assert (hold_dense.steps_of, random_mask.steps_of) == (path, path)
    assert path.dense == hold_dense.dense == random_mask.dense


def test_floors_and_controls_among_the_points_have_no_controls(tmp_path):
    points = [{}, {"method.name": "head_only"}, {"stage.control": "random_gradient"}]
    assert len(plan(tmp_path, {**TARGETS, "points": points}).jobs) == 4 + 1, "the floor is there"


@pytest.mark.parametrize("folder", ["out/pydoc_topic", "kept"])
def test_control_has_the_steps_of_a_path_that_is_done(folder, tmp_path):
    write_run(tmp_path / folder, xi=XI)  # stages of one pass
    content = {**TARGETS, "stage.epochs": 0.25, "records": "kept"}
    write_run(tmp_path / folder, xi=XI, stage=StageConfig(epochs=0.25))
    path, _, hold_dense, _ = plan(tmp_path, content).jobs
    assert path.state == "completed"
    assert hold_dense.steps_of is None
    assert hold_dense.config.stage.epochs == 1.0
    assert hold_dense.point.run_id == run_id(hold_dense.config)
    assert hold_dense.path.name == hold_dense.point.run_id
    assert hold_dense.config.out_dir == str(hold_dense.path)


def test_finished_control_is_not_run_again(tmp_path):
    write_run(tmp_path / "out" / "pydoc_topic", xi=XI)
    control = plan(tmp_path, TARGETS).jobs[-1]
    write_run(tmp_path / "kept", xi=XI, stage=control.config.stage)
    assert states(plan(tmp_path, {**TARGETS, "records": "kept"})) == [
        "completed",
        "waiting",
        "waiting",
        "completed",
    ]


def test_control_of_a_path_that_is_not_done_may_not_be_taken_for_a_run_that_is(tmp_path):
    # Its own length is not known yet; that of the file is another run.
    write_run(tmp_path / "out" / "pydoc_topic", "hold_dense", xi=XI)
    assert states(plan(tmp_path, TARGETS)) == ["waiting"] * 4


def test_paths_that_differ_in_gates_have_one_floor_and_one_lora(tmp_path):
    gates = [{"gates.gate_lr": 1.0}, {"gates.gate_lr": 3.0}]
    content = {"controls": ["floor", {"lora": [1, 2]}, "hold_dense"], "points": gates}
    sweep = plan(tmp_path, content)
    roles = [role_of(job.config.method.name, job.config.stage.control) for job in sweep.jobs]
    assert roles == ["path", "floor", "lora", "lora", "hold_dense", "path", "hold_dense"]
    other = plan(tmp_path, {**content, "points": [*gates, {"optim.lr": 2e-3}]})
    assert len(other.jobs) == 7 + 5, "another learning rate is another floor"


def test_controls_without_a_path_are_refused(tmp_path):
    content = {"method.name": "head_only", "controls": ["random_gradient"]}
    with pytest.raises(ValueError, match=r"^`controls` must have a path to be compared with, got"):
        plan(tmp_path, content)


def test_dry_run_says_which_controls_come_after_their_paths(tmp_path):
    path, floor, *_ = plan(tmp_path, TARGETS).jobs
    assert lines(plan(tmp_path, TARGETS))[:6] == [
        f"{path.point.run_id}  to run",
        f"{floor.point.run_id}  to run  method.name=head_only",
        "-             to run  stage.control=hold_dense",
        "-             to run  stage.control=random_mask",
        "4 runs: 0 done, 0 running, 0 failed, 4 to run",
        "2 controls take their steps or ranks from the path, and begin when that is done.",
    ]


# The cost ------------------------------------------------------------------------------------


def lines(sweep: Plan, *, workers: int = 1) -> list[str]:
    return describe_plan(sweep, workers=workers).splitlines()


def test_dry_run_says_when_it_has_no_basis(tmp_path):
    assert lines(plan(tmp_path))[-1].startswith("No estimate of the time: no finished run")


def test_dry_run_names_the_points(tmp_path):
    write_run(tmp_path / "out" / "pydoc_topic", seed=1)
    sweep = plan(tmp_path)
    names = [job.point.run_id for job in sweep.jobs]
    assert lines(sweep)[:4] == [
        f"{names[0]}  to run  seed=0",
        f"{names[1]}  done    seed=1",
        f"{names[2]}  to run  seed=2",
        "3 runs: 1 done, 0 running, 0 failed, 2 to run",
    ]


def test_cost_is_that_of_the_run_with_another_seed(tmp_path):
    # fake stages take a second: 8 of them, for each of the two runs that are left
    write_run(tmp_path / "out" / "pydoc_topic", seed=1)
    assert lines(plan(tmp_path), workers=2)[-1] == (
        "About 16 s of computing, 8 s with 2 workers, going by 1 finished run."
    )


def test_cost_counts_a_shared_dense_stage_once(tmp_path):
    write_run(tmp_path / "kept")
    content = {"points": [{"xi.first": 0.01}, {"xi.first": 0.02}], "records": "kept"}
    text = lines(plan(tmp_path, content))
    assert text[-2] == "1 dense stage is trained for 2 runs."
    assert text[-1].startswith("About 15 s of computing, 15 s with 1 worker")


def test_cost_of_other_kinds_is_said_to_be_unknown(tmp_path):
    write_run(tmp_path / "out" / "pydoc_topic", seed=1)
    content = {"grid": {"seed": [0], "task.name": ["pydoc_topic", "rte"]}}
    assert lines(plan(tmp_path, content))[-1].endswith(
        "; 1 run is of another kind and taken for the mean of the rest."
    )


def test_run_says_what_it_will_take_by_those_beside_it(tmp_path):
    mine = replace(fake_config(seed=1), out_dir=str(tmp_path / "pydoc_topic" / "mine"))
    assert describe_run_cost(mine) is None
    write_run(tmp_path / "pydoc_topic", seed=0)
    said = "About 8 s, going by finished runs of this kind."
    assert describe_run_cost(mine) == said
    begun = write_run(tmp_path / "pydoc_topic", seed=1, num_stages=3, state="interrupted")
    resumed = replace(mine, out_dir=str(begun))
    assert describe_run_cost(resumed) == said.replace("8 s", "5 s")


def test_finished_sweep_has_nothing_to_do(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path / "out" / "pydoc_topic", seed=seed)
    assert lines(plan(tmp_path))[-1] == "Nothing to do."


def test_run_without_times_is_no_basis(tmp_path):
    path = write_run(tmp_path / "pydoc_topic")
    (path / "timings.jsonl").unlink()
    assert cost_model([tmp_path], tasks=["pydoc_topic"]).num_runs == 0


def test_unfinished_run_is_no_basis(tmp_path):
    write_run(tmp_path / "pydoc_topic", state="failed")
    assert cost_model([tmp_path], tasks=["pydoc_topic"]).num_runs == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (89.0, "89 s"), (120.0, "2 min"), (5340.0, "89 min"), (12e3, "3 h 20 min")],
)
def test_durations_are_read_easily(seconds, text):
    assert describe_seconds(seconds) == text


def test_copied_records_are_found_by_their_run_id(tmp_path):
    path = write_run(tmp_path / "elsewhere", seed=0)
    shutil.copytree(path, tmp_path / "kept" / load_run(path).run_id)
    sweep = plan(tmp_path, {"seed": 0, "records": ["kept"]})
    assert states(sweep) == ["completed"]


# LoRA with the ranks of a stage --------------------------------------------------------------


def test_lora_pattern_takes_the_ranks_of_stages_when_the_path_is_done(tmp_path):
    content = {"grid": {"seed": [1]}, "controls": [{"lora_pattern": [2, 4]}]}
    before = plan(tmp_path, content)
    assert [job.steps_of is before.jobs[0] for job in before.jobs] == [False, True, True]
    path = write_run(tmp_path / "out" / "pydoc_topic", seed=1)
    ranks = load_run(path).ranks
    for job, stage in zip(plan(tmp_path, content).jobs[1:], (2, 4), strict=True):
        rows = ranks[(ranks["stage"] == stage) & (ranks["nonzero_rank"] > 0)]
        expected = dict(zip(rows["module"], rows["nonzero_rank"], strict=True))
        assert job.config.method.rank_pattern == expected
        assert (job.steps_of, job.state, job.path.name) == (None, "waiting", run_id(job.config))


@pytest.mark.parametrize(("stage", "end"), [(7, "7 of a path with no rank"), (9, "with 7 stages")])
def test_stage_without_a_rank_has_no_lora_pattern(stage, end, tmp_path):
    write_run(tmp_path / "out" / "pydoc_topic", seed=1)
    content = {"grid": {"seed": [1]}, "controls": [{"lora_pattern": stage}]}
    with pytest.raises(ValueError, match=rf"^`controls\.lora_pattern` must be stages .*{end}\.$"):
        plan(tmp_path, content)


def test_lora_pattern_without_stages_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^`controls\.lora_pattern` must be stages of the path"):
        plan(tmp_path, {"controls": ["lora_pattern"]})


def test_patterns_of_paths_that_differ_in_gates_are_runs_of_their_own(tmp_path):
    points = [{"gates.gate_lr": 1.0}, {"gates.gate_lr": 3.0}]
    sweep = plan(tmp_path, {"controls": [{"lora_pattern": 3}], "points": points})
    assert [job.config.method.name for job in sweep.jobs] == ["sora", "lora_pattern"] * 2
