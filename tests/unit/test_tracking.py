import json
import re
from pathlib import Path
from typing import Any

import pytest
import vl_convert

from sorakit.config import BackboneConfig, TaskConfig, TrackingConfig
from sorakit.metric_names import stage_keys
from sorakit.records import (
    RunWriter,
    StepRecord,
    config_to_dict,
    load_run,
    read_steps,
    run_id,
)
from sorakit.records.schema import stage_columns
from sorakit.tracking import client
from sorakit.tracking.client import client_mode, path_without_home, read_target, write_target
from sorakit.tracking.rows import (
    find_floor,
    labels,
    load_floors,
    shown_config,
    stage_row,
    summary,
    without_home,
)
from sorakit.tracking.workspace import heatmap_spec
from tests.support.fake_runs import fake_config, write_run


def step(number: int, stage: int = 0) -> StepRecord:
    return StepRecord(step=number, stage=stage, train_loss=0.5, lr=1e-3, xi=1e-4)


def line(**changes: Any) -> dict[str, Any]:
    return {"memorization": 0.9, "generalization": 0.6, "extra_metrics": {}, **changes}


# Records -------------------------------------------------------------------------------------


def test_where_a_run_is_shown_is_no_part_of_its_id():
    shown = TrackingConfig(wandb="online", project="other", entity="team", log_adapters=True)
    assert run_id(fake_config(tracking=shown)) == run_id(fake_config())


def test_steps_are_cut_back_to_the_checkpoint_with_a_torn_line(tmp_path):
    writer = RunWriter(tmp_path)
    for number in (10, 20, 30):
        writer.append_step(step(number))
    with (tmp_path / "steps.jsonl").open("a") as stream:
        stream.write('{"step": 4')
    assert [row["step"] for row in read_steps(tmp_path)] == [10, 20, 30]
    writer.keep_steps(20)
    writer.append_step(step(30))
    assert [row["step"] for row in read_steps(tmp_path)] == [10, 20, 30]


def test_older_records_have_no_steps(tmp_path):
    assert load_run(write_run(tmp_path)).steps() == []


def test_empty_project_is_refused():
    message = "`tracking.project` must be not empty, got ''."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrackingConfig(project="")


# Rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "job_type"), [("path", "path"), ("floor", "floor"), ("hold_dense", "hold_dense")]
)
def test_job_type_is_the_kind_of_run(kind, job_type):
    shown = labels(config_to_dict(fake_config(kind, seed=3)))
    assert (shown.job_type, shown.group) == (job_type, "pydoc_topic")
    assert shown.name == f"pydoc_topic-{job_type}-seed3"


def test_tag_of_a_local_backbone_is_its_folder():
    backbone = BackboneConfig(name="/home/somebody/models/bert-tiny")
    assert labels(config_to_dict(fake_config(backbone=backbone))).tags[0] == "bert-tiny"


def test_group_is_the_label_of_the_dataset():
    task = TaskConfig(name="files", train_file="data/train.csv", label="Reviews 2024")
    shown = labels(config_to_dict(fake_config(task=task, seed=1)))
    assert (shown.group, shown.name) == ("Reviews 2024", "Reviews 2024-path-seed1")


def test_home_is_a_tilde_at_any_depth(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    found = without_home({"a": ["/home/somebody/x", 1], "b": {"c": "in /home/somebody"}})
    assert found == {"a": ["~/x", 1], "b": {"c": "in ~"}}


def test_folder_that_begins_like_home_is_not_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/some")
    assert without_home("/home/somebody/x, /home/some-body, /home/some") == (
        "/home/somebody/x, /home/some-body, ~"
    )


@pytest.mark.parametrize(
    ("home", "path", "shown"),
    [
        ("/home/some", "/data/runs/a", "/data/runs/a"),
        ("/home/some", "/home/somebody/a", "/home/somebody/a"),
        ("{tmp}", "{tmp}/runs/a", "runs/a"),
        ("{tmp}/b", "{tmp}/b/runs/a", "b/runs/a"),
        ("/usr", "/usr/runs/a", None),  # the way there from elsewhere names it
        ("/", "/runs/a", "/runs/a"),
    ],
)
def test_path_is_shown_in_a_form_that_names_no_home(home, path, shown, tmp_path, monkeypatch):
    home, path = (text.replace("{tmp}", str(tmp_path)) for text in (home, path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", home)
    assert path_without_home(Path(path)) == (None if shown is None else Path(shown))


def test_shown_configuration_has_neither_folder_nor_tracking():
    shown = shown_config(config_to_dict(fake_config()))
    assert not {"out_dir", "tracking"} & set(shown)
    assert shown["method"]["r"] == 8


def test_gain_retained_is_of_the_dense_gain():
    dense = line()
    floor = {"memorization": 0.5, "generalization": 0.5}
    row = stage_row(line(memorization=0.7, generalization=0.55), dense=dense, floor=floor)
    assert row["memorization/gain_retained"] == pytest.approx(0.5)
    assert row["generalization/gain_retained"] == pytest.approx(0.5)
    assert row["generalization/gap"] == pytest.approx(0.15)


@pytest.mark.parametrize("floor", [None, {"memorization": 0.9, "generalization": 0.7}])
def test_gain_retained_is_left_out_without_a_floor_below_dense(floor):
    row = stage_row(line(), dense=line(), floor=floor)
    assert not [key for key in row if key.endswith("gain_retained")]


def test_values_that_do_not_exist_are_left_out():
    row = stage_row(line(test=None, kkt_residual=float("nan"), xi=0.1), dense=line())
    assert row["gate/xi"] == 0.1
    assert not {"test/score", "gate/kkt_residual"} & set(row)


def test_further_scores_are_keys_of_their_split():
    row = stage_row(line(extra_metrics={"generalization": {"f1": 0.4}}), dense=line())
    assert row["generalization/f1"] == 0.4


def test_summary_of_a_run_without_a_stage_is_its_digest(tmp_path):
    run = load_run(write_run(tmp_path, num_stages=0))
    assert list(summary(run)) == ["run/records_digest"]


def test_digest_changes_with_the_records_and_the_floor(tmp_path):
    short = summary(load_run(write_run(tmp_path / "a", num_stages=2)))
    path = write_run(tmp_path / "b", num_stages=3)
    long = summary(load_run(path))
    floored = summary(load_run(path), {"memorization": 0.5, "generalization": 0.5})
    digests = {row["run/records_digest"] for row in (short, long, floored)}
    assert len(digests) == 3


def test_floor_is_of_the_same_seed_task_and_backbone(tmp_path):
    path = load_run(write_run(tmp_path, seed=1))
    floors = [
        write_run(tmp_path, "floor", seed=0),
        write_run(tmp_path, "floor", seed=1, task="pydoc_pair"),
        write_run(tmp_path, "floor", seed=1, backbone=BackboneConfig(name="other")),
    ]
    others = [*floors, tmp_path / "no-run"]
    assert find_floor(path, load_floors(others)) is None
    own = write_run(tmp_path, "floor", seed=1)
    stages = load_run(own).stages
    assert find_floor(path, load_floors([*others, own])) == {
        "memorization": stages["memorization"][0],
        "generalization": stages["generalization"][0],
    }


# Where it goes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "variable", "key", "mode"),
    [
        ("off", "online", True, "off"),
        ("offline", "online", True, "offline"),
        ("online", None, True, "online"),
        ("online", "offline", True, "online"),
        ("online", None, False, "offline"),
        ("auto", None, True, "online"),
        ("auto", None, False, "offline"),
        ("auto", "offline", True, "offline"),
        ("auto", "dryrun", True, "offline"),
        ("auto", "disabled", True, "off"),
        ("auto", "online", False, "offline"),
    ],
)
def test_mode(wanted, variable, key, mode, monkeypatch):
    monkeypatch.setattr(client, "_has_key", lambda: key)
    if variable is None:
        monkeypatch.delenv("WANDB_MODE")
    else:
        monkeypatch.setenv("WANDB_MODE", variable)
    found, reason = client_mode(wanted)
    assert found == mode
    asked_for_online = wanted == "online" or variable == "online"
    assert (reason is not None) == (asked_for_online and mode == "offline" and not key)


def test_target_is_that_of_the_configuration_unless_one_is_remembered(tmp_path):
    run = load_run(write_run(tmp_path, tracking=TrackingConfig(project="p", entity="e")))
    target = read_target(run)
    assert (target.run_id, target.project, target.entity) == (run.run_id, "p", "e")
    assert read_target(run, project="q").project == "q"
    write_target(run.path, client.Target(run_id="given", project="searches", entity=None))
    assert read_target(run) == client.Target(run_id="given", project="searches", entity=None)


def test_run_from_before_tracking_has_a_target(tmp_path):
    path = write_run(tmp_path)
    file = path / "config.yaml"
    text = file.read_text()
    file.write_text(text[: text.index("tracking:")] + text[text.index("\nseed:") + 1 :])
    assert read_target(load_run(path)).project == "sorakit"


def test_heatmap_compiles():
    filled = json.dumps(heatmap_spec()).replace("${string:title}", "Ranks")
    filled = re.sub(r"\$\{field:(\w+)\}", r"\1", filled)
    spec = json.loads(filled)
    rows = [{"layer": 0, "matrix": "query", "rank": 3, "strength": 1.5}]
    spec["data"] = {"values": rows}
    assert "<svg" in vl_convert.vegalite_to_svg(spec)


def test_every_column_of_a_stage_has_a_key():
    assert [column for column in stage_columns() if column not in stage_keys()] == ["extra_metrics"]
