import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.load import comparability_notes, load_runs
from sorakit.config import METHOD_VERSION, BackboneConfig, RunConfig, TaskConfig
from sorakit.records import META_FILE, STAGES_FILE, STATUS_FILE, config_to_dict, load_run
from sorakit.records.matching import data_of
from tests.support.fake_runs import write_run

RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def test_stages_hold_one_row_a_run_and_stage(tmp_path: Path) -> None:
    write_run(tmp_path, "path")
    write_run(tmp_path, "floor")
    assert len(load_runs([tmp_path]).stages) == 8 + 1


def test_ranks_hold_one_row_a_stage_and_matrix(tmp_path: Path) -> None:
    write_run(tmp_path, "path", num_layers=2)
    assert len(load_runs([tmp_path]).ranks) == 8 * 2 * 6


def test_stages_carry_the_identity_of_their_run(tmp_path: Path) -> None:
    path = write_run(tmp_path, task="mrpc", seed=3, backbone=BackboneConfig(name="bert-base"))
    row = load_runs([tmp_path]).stages.iloc[0]
    names = ["run_id", "task", "backbone", "setting", "seed", "method", "control", "state"]
    assert row[names].tolist() == [
        path.name, "mrpc", "bert-base", "default", 3, "sora", "none", "completed",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["path", "floor", "hold_dense"])
def test_role_is_read_from_method_and_control(tmp_path: Path, kind: str) -> None:
    write_run(tmp_path, kind)  # pyright: ignore[reportArgumentType]  # parametrize gives str
    assert load_runs([tmp_path]).runs["role"].tolist() == [kind]


def test_setting_names_what_differs_from_the_defaults() -> None:
    task = TaskConfig(name="cola", label_noise=0.2, data_dir="/somewhere", label="mine")
    config = config_to_dict(RunConfig(task=task, backbone=BackboneConfig(random_init=True)))
    found = data_of(config)
    assert (found["task"], found["setting"]) == ("mine", "label_noise=0.2, random_init=True")


def test_interrupted_run_with_stages_is_kept_and_marked(tmp_path: Path) -> None:
    write_run(tmp_path, num_stages=3, state="interrupted")
    runs = load_runs([tmp_path])
    assert runs.stages["state"].tolist() == ["interrupted"] * 3


def test_failed_run_without_stages_is_listed_with_its_error(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    failed = write_run(tmp_path, seed=1, num_stages=0, state="failed", error="out of memory")
    reason = "failed, no finished stage: out of memory"
    assert load_runs([tmp_path]).excluded == [(failed, reason)]


def test_running_run_without_stages_is_listed(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    running = write_run(tmp_path, seed=1, num_stages=0, state="running")
    assert load_runs([tmp_path]).excluded == [(running, "running, no finished stage")]


def test_unknown_schema_is_listed_by_name(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    newer = write_run(tmp_path, seed=1, meta={"schema_version": 99})
    reason = (
        f"`schema_version` must be 1, got 99 in {str(newer / META_FILE)!r}. "
        "Read this run with the sorakit version named in its meta.json."
    )
    assert load_runs([tmp_path]).excluded == [(newer, reason)]


def test_unreadable_meta_is_listed(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    broken = write_run(tmp_path, seed=1)
    (broken / META_FILE).write_text("{")
    excluded = load_runs([tmp_path]).excluded
    assert [path for path, _ in excluded] == [broken]
    assert excluded[0][1].startswith("`meta.json` must hold a JSON object, got ")


def test_missing_run_id_is_listed(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    broken = write_run(tmp_path, seed=1)
    meta = json.loads((broken / META_FILE).read_text())
    del meta["run_id"]
    (broken / META_FILE).write_text(json.dumps(meta))
    assert load_runs([tmp_path]).excluded == [(broken, "unreadable: 'run_id' is missing")]


def test_folder_killed_before_its_meta_data_is_listed(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    half = tmp_path / "half"
    half.mkdir()
    (half / STATUS_FILE).write_text('{"state": "running"}')
    reason = f"`RUN` must be a run folder (with config.yaml and meta.json), got {str(half)!r}."
    assert load_runs([tmp_path]).excluded == [(half, reason)]


def test_overlapping_folders_count_a_run_once(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    runs = load_runs([tmp_path, path, tmp_path])
    assert (len(runs.runs), runs.excluded) == (1, [])


def test_copy_of_a_run_counts_once_and_is_listed(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a")
    copy = Path(shutil.copytree(path, tmp_path / "b" / path.name))
    runs = load_runs([tmp_path])
    assert (len(runs.stages), runs.excluded) == (8, [(copy, f"same run id as {path}")])


def test_of_two_copies_the_one_with_more_stages_counts(tmp_path: Path) -> None:
    short = write_run(tmp_path / "a", num_stages=2, state="running")
    full = write_run(tmp_path / "b")
    runs = load_runs([tmp_path])
    assert (len(runs.stages), runs.excluded) == (8, [(short, f"same run id as {full}")])


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(ValueError, match=f"^`RUNS` must be .*{re.escape(str(missing))}.*$"):
        load_runs([missing])


def test_no_usable_run_is_refused_with_every_reason(tmp_path: Path) -> None:
    failed = write_run(tmp_path, num_stages=0, state="failed", error="boom")
    message = (
        f"`RUNS` must hold at least one run with a finished stage, got none in {tmp_path} "
        f"(1 left out; {failed}: failed, no finished stage: boom)."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_runs([tmp_path])


@pytest.mark.parametrize("run_id", ["136776918eb6", "c09c72451bce", "cce940612320"])
def test_two_committed_results_of_one_run_id_are_refused(run_id: str) -> None:
    one, two = (RESULTS / name / run_id for name in ("controls", "demo"))
    message = (
        f"`RUNS` must hold one result of run {run_id}, got two that differ from stage STAGE on: "
        f"{one} (x86_64, 1 thread, no GPU, torch 2.13.0+cpu) and {two} (x86_64, 2 threads, no GPU, "
        "torch 2.13.0+cpu). Name one of the two folders only."
    )
    pattern = re.escape(message).replace("STAGE", r"\d+")
    with pytest.raises(ValueError, match=f"^{pattern}$"):
        load_runs([one, two])


def test_one_committed_run_id_has_two_numbers_of_parameters() -> None:
    # why they are refused: with one thread more other ranks die
    runs = (load_run(RESULTS / name / "136776918eb6") for name in ("controls", "demo"))
    assert {int(run.stages["num_nonzero_params"].iloc[-2]) for run in runs} == {768, 1344}


@pytest.mark.parametrize("run_id", ["138d52cc7796", "b15891293e03", "8ebfd2b12d5a"])
def test_two_committed_executions_with_the_same_result_are_one_run(run_id: str) -> None:
    one, two = (RESULTS / name / run_id for name in ("controls", "demo"))
    runs = load_runs([one, two])
    assert runs.excluded == [(two, f"same run id as {one}")]


def test_results_that_differ_in_the_last_stage_are_two(tmp_path: Path) -> None:
    path = write_run(tmp_path / "a", num_stages=3)
    other = tmp_path / "b" / path.name
    shutil.copytree(path, other)
    lines = (other / STAGES_FILE).read_text().splitlines()
    last = json.loads(lines[-1])
    last["num_nonzero_params"] += 8
    (other / STAGES_FILE).write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    with pytest.raises(ValueError, match=r"^`RUNS` must hold one result .* from stage 2 on: "):
        load_runs([tmp_path])


def test_two_executions_of_a_task_are_noted(tmp_path: Path) -> None:
    for seed in (1, 2):
        hardware = {"machine": "x86_64", "threads": seed, "gpu": None}
        write_run(tmp_path, seed=seed, meta={"hardware": hardware})
    assert comparability_notes(load_runs([tmp_path]).runs) == [
        "The runs of pydoc_topic were executed in 2 ways (x86_64, 1 thread, no GPU, torch of "
        "unknown version; x86_64, 2 threads, no GPU, torch of unknown version): one configuration "
        "has other last bits in each."
    ]


def test_two_method_versions_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=1, meta={"method_version": 1})
    assert comparability_notes(load_runs([tmp_path]).runs) == [
        f"The runs were made by method versions 1, {METHOD_VERSION}, whose numbers differ for one "
        "configuration."
    ]


def test_two_data_fingerprints_of_a_task_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=1, meta={"data_fingerprint": "other"})
    assert comparability_notes(load_runs([tmp_path]).runs) == [
        "The runs of pydoc_topic saw 2 different data sets (fingerprints)."
    ]


def test_unfinished_run_is_noted(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=2, state="running")
    assert comparability_notes(load_runs([tmp_path]).runs) == [
        f"Run {path.name} (pydoc_topic, seed 0) is running; its stages so far are used."
    ]


def own_task(**keys: str) -> TaskConfig:
    given: dict[str, Any] = {"train_file": "a_train.csv", "text_column": "Message", **keys}
    return TaskConfig(name="files", data_dir="d", max_length=48, **given)


def test_setting_leaves_out_where_own_data_lie_if_the_name_says_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path, task=own_task(), seed=seed)
    write_run(tmp_path, "floor", task=own_task())
    write_run(tmp_path, task=own_task(train_file="b_train.csv"))
    runs = load_runs([tmp_path])
    assert set(runs.stages["task"]) == {"a", "b"}
    assert set(runs.stages["setting"]) == set(runs.ranks["setting"]) == {"max_length=48"}


def test_setting_names_the_files_of_two_datasets_with_one_name(tmp_path: Path) -> None:
    write_run(tmp_path, task=own_task(label="mine"))
    write_run(tmp_path, task=own_task(label="mine", text_column="Subject"))
    settings = set(load_runs([tmp_path]).stages["setting"])
    assert {setting.rpartition("=")[2] for setting in settings} == {"Message", "Subject"}
