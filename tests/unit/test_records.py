import json
import math
import os
import re
import socket
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.load import load_runs
from sorakit.config import RunConfig, TaskConfig, TrainerConfig
from sorakit.records import (
    EXAMPLES_FILE,
    META_FILE,
    RANKS_FILE,
    STAGES_FILE,
    STATUS_FILE,
    TIMINGS_FILE,
    RunWriter,
    find_runs,
    grouped_path,
    is_alive,
    is_run_folder,
    load_run,
    read_status,
    run_id,
    run_path,
    stage_name,
)
from tests.support.fake_runs import (
    append_fake_stage,
    fake_config,
    fake_examples,
    fake_ranks,
    fake_stage,
    write_run,
)


def tear(file: Path, text: str = '{"stage": 9, "xi') -> None:
    """Leave the beginning of a line at the end of `file`, as a killed process does."""
    with file.open("a") as stream:
        stream.write(text)


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines()


# Run id and path


def test_run_id_is_twelve_hexadecimal_digits() -> None:
    assert re.match(r"^[0-9a-f]{12}$", run_id(RunConfig()))


def test_run_id_ignores_out_dir() -> None:
    assert run_id(RunConfig(out_dir="elsewhere")) == run_id(RunConfig())


def test_run_id_ignores_num_threads() -> None:
    assert run_id(RunConfig(trainer=TrainerConfig(num_threads=2))) == run_id(RunConfig())


def test_run_id_changes_with_the_method_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_id(RunConfig())
    monkeypatch.setattr("sorakit.records.identity.METHOD_VERSION", 999)
    assert run_id(RunConfig()) != before


def test_run_path_is_out_dir_if_there_is_one() -> None:
    assert run_path(RunConfig(out_dir="here")) == Path("here")


def test_run_path_is_named_after_task_and_run_id_otherwise() -> None:
    config = RunConfig()
    assert run_path(config) == Path("runs") / "pydoc_topic" / run_id(config)


def own_data(label: str | None, file: str = "reviews_train.csv") -> RunConfig:
    return RunConfig(task=TaskConfig(name="files", train_file=file, label=label))


@pytest.mark.parametrize(
    ("label", "group"),
    [
        (None, "reviews"),
        ("Reviews of 2024/05: Ångström", "Reviews-of-2024-05-Ångström"),
        ("../..", "files"),
        ("sweeps", "files-sweeps"),
        ("dense_stages", "files-dense_stages"),
        ("x" * 300, "x" * 60),
    ],
)
def test_runs_of_own_data_are_grouped_by_the_name_of_the_dataset(label, group, tmp_path):
    config = own_data(label)
    assert grouped_path(tmp_path, config, "0123456789ab") == tmp_path / group / "0123456789ab"


def test_a_run_that_is_there_keeps_its_folder_whatever_its_label(tmp_path):
    config = own_data("another label")
    assert run_id(config) == run_id(own_data(None))
    there = tmp_path / "files" / run_id(config)
    there.mkdir(parents=True)
    assert grouped_path(tmp_path, config, run_id(config)) == there


def test_stage_names_sort_in_order_of_stages() -> None:
    assert [stage_name(2), stage_name(10)] == ["stage_02", "stage_10"]


# Reading


def test_folder_without_meta_is_no_run(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (path / META_FILE).unlink()
    assert not is_run_folder(path)


def test_load_run_refuses_a_folder_without_run(tmp_path: Path) -> None:
    message = f"`RUN` must be a run folder (with config.yaml and meta.json), got {str(tmp_path)!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_run(tmp_path)


def test_unknown_schema_is_refused_by_name(tmp_path: Path) -> None:
    path = write_run(tmp_path, meta={"schema_version": 2})
    message = (
        f"`schema_version` must be 1, got 2 in {str(path / META_FILE)!r}. "
        "Read this run with the sorakit version named in its meta.json."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_run(path)


def test_find_runs_finds_every_depth_sorted(tmp_path: Path) -> None:
    deep = write_run(tmp_path / "b" / "c")
    flat = write_run(tmp_path / "a")
    assert find_runs(tmp_path) == [flat, deep]


def test_find_runs_finds_the_folder_itself(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    assert find_runs(path) == [path]


def test_find_runs_refuses_a_missing_folder(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    message = f"`RUNS` must be an existing folder, got {missing!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_runs(Path(missing))


@pytest.mark.parametrize("table", ["stages", "ranks", "timings"])
def test_run_without_stages_has_empty_tables(tmp_path: Path, table: str) -> None:
    assert getattr(load_run(write_run(tmp_path, num_stages=0)), table).empty


def test_run_without_stages_has_no_examples(tmp_path: Path) -> None:
    assert load_run(write_run(tmp_path, num_stages=0)).examples().empty


def test_lambda_is_written_under_its_own_name(tmp_path: Path) -> None:
    columns = load_run(write_run(tmp_path, num_stages=1)).stages.columns
    assert ("lambda" in columns, "lambda_" in columns) == (True, False)


def test_meta_comes_back_as_written(tmp_path: Path) -> None:
    path = write_run(tmp_path, meta={"hardware": {"device": "käse"}})
    assert load_run(path).meta["hardware"] == {"device": "käse"}


# Torn lines and incomplete stages


@pytest.mark.parametrize("name", [STAGES_FILE, RANKS_FILE, TIMINGS_FILE])
def test_torn_last_line_is_ignored(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path, num_stages=2)
    tear(path / name)
    assert load_run(path).stages["stage"].tolist() == [0, 1]


def test_line_torn_inside_a_character_is_ignored(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=1)
    with (path / STAGES_FILE).open("ab") as stream:
        stream.write('{"metric": "ä'.encode()[:-1])
    assert len(load_run(path).stages) == 1


def test_complete_line_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=2)
    tear(path / STAGES_FILE, "{broken\n")
    message = r"^`stages\.jsonl` must hold a JSON object in every line, got one with .* in '.*'\. "
    with pytest.raises(ValueError, match=message):
        load_run(path)


def test_stage_appended_after_a_torn_line_is_read(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=1)
    tear(path / STAGES_FILE)
    append_fake_stage(RunWriter(path), fake_config(), 1)
    assert load_run(path).stages["stage"].tolist() == [0, 1]


def test_append_to_a_file_that_is_one_torn_line_is_read(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=0)
    tear(path / STAGES_FILE)
    append_fake_stage(RunWriter(path), fake_config(), 0)
    assert load_run(path).stages["stage"].tolist() == [0]


@pytest.mark.parametrize("table", ["ranks", "timings"])
def test_rows_of_an_incomplete_stage_are_ignored(tmp_path: Path, table: str) -> None:
    path = write_run(tmp_path, num_stages=2)
    kept = lines_of(path / STAGES_FILE)[:1]
    (path / STAGES_FILE).write_text(kept[0] + "\n")
    assert set(getattr(load_run(path), table)["stage"]) == {0}


def test_examples_of_an_incomplete_stage_are_ignored(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=2)
    (path / STAGES_FILE).write_text(lines_of(path / STAGES_FILE)[0] + "\n")
    assert set(load_run(path).examples()["stage"]) == {0}


def test_stage_line_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path, num_stages=0)
    written: list[str] = []
    replace_parquet = "sorakit.records.writer.replace_parquet"
    monkeypatch.setattr(replace_parquet, lambda file, table: written.append(file.name))
    monkeypatch.setattr(
        "sorakit.records.writer.append_lines", lambda file, rows: written.append(file.name)
    )
    append_fake_stage(RunWriter(path), fake_config(), 0)
    assert written == [EXAMPLES_FILE, RANKS_FILE, TIMINGS_FILE, STAGES_FILE]


# Columns of a newer release


def test_measure_is_a_column_of_the_stage(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=0)
    append_fake_stage(RunWriter(path), fake_config(), 0, measures={"sharpness": 0.5, "flat": None})
    row = load_run(path).stages.iloc[0]
    assert (row["sharpness"], row["flat"]) == (0.5, None)


def test_measure_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=0)
    with pytest.raises(ValueError, match=r"^`sharpness` of stage 0 must be finite, got nan\. "):
        append_fake_stage(RunWriter(path), fake_config(), 0, measures={"sharpness": math.nan})


def add_to_every_line(file: Path) -> None:
    rows = [{**json.loads(line), "of_tomorrow": {"deep": [1]}} for line in lines_of(file)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_unknown_columns_do_a_reader_no_harm(tmp_path: Path) -> None:
    known = load_run(write_run(tmp_path / "known", num_stages=2))
    path = write_run(tmp_path / "newer", num_stages=2)
    for name in (STAGES_FILE, RANKS_FILE, TIMINGS_FILE):
        add_to_every_line(path / name)
    for name in (META_FILE, STATUS_FILE):
        content = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps({**content, "of_tomorrow": {"deep": [1]}}))
    examples = pd.read_parquet(path / EXAMPLES_FILE)
    examples.assign(of_tomorrow=1).to_parquet(path / EXAMPLES_FILE)
    newer = load_run(path)
    for table in ("stages", "ranks", "timings"):
        old = getattr(known, table)
        pd.testing.assert_frame_equal(getattr(newer, table)[list(old.columns)], old)
    assert newer.stages["of_tomorrow"].tolist() == [{"deep": [1]}] * 2
    old_examples = known.examples()
    pd.testing.assert_frame_equal(newer.examples()[list(old_examples.columns)], old_examples)


def test_analysis_reads_a_record_with_unknown_columns(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=2)
    before = load_runs([tmp_path]).stages
    add_to_every_line(path / STAGES_FILE)
    add_to_every_line(path / RANKS_FILE)
    after = load_runs([tmp_path]).stages
    pd.testing.assert_frame_equal(after[list(before.columns)], before)


# Refused numbers


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_score_that_is_no_number_is_refused(tmp_path: Path, value: float) -> None:
    path = write_run(tmp_path, num_stages=0)
    config = fake_config()
    ranks = fake_ranks(config, 0)
    message = (
        f"`memorization` of stage 0 must be finite, got {value}. "
        "Training has diverged; lower `optim.lr` or `gates.gate_lr`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunWriter(path).append_stage(
            fake_stage(config, 0, ranks, memorization=value),
            ranks=ranks,
            examples=fake_examples(0),
            timing={},
        )


def test_refused_stage_is_not_there(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=0)
    config = fake_config()
    with pytest.raises(ValueError, match=r"^`train_loss` of stage 0 must be finite"):
        RunWriter(path).append_stage(
            fake_stage(config, 0, [], train_loss=math.nan),
            ranks=[],
            examples=fake_examples(0),
            timing={},
        )
    assert load_run(path).stages.empty


def test_meta_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^Out of range float values are not JSON compliant(: \w+)?$"
    ):
        RunWriter(tmp_path).write_meta({"value": math.nan})


# Resuming


@pytest.mark.parametrize("name", [STAGES_FILE, RANKS_FILE, TIMINGS_FILE])
def test_keep_stages_cuts_every_table_of_lines(tmp_path: Path, name: str) -> None:
    path = write_run(tmp_path, num_stages=4)
    RunWriter(path).keep_stages(2)
    assert {json.loads(line)["stage"] for line in lines_of(path / name)} == {0, 1}


def test_keep_stages_cuts_the_examples(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=4)
    RunWriter(path).keep_stages(2)
    assert set(pd.read_parquet(path / EXAMPLES_FILE)["stage"]) == {0, 1}


def test_keep_stages_removes_a_torn_line(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=2)
    tear(path / STAGES_FILE)
    RunWriter(path).keep_stages(2)
    assert (path / STAGES_FILE).read_bytes().endswith(b"}\n")


def test_keep_stages_accepts_a_run_without_tables(tmp_path: Path) -> None:
    path = write_run(tmp_path, num_stages=0)
    RunWriter(path).keep_stages(0)
    assert load_run(path).stages.empty


@pytest.mark.parametrize("name", [STAGES_FILE, RANKS_FILE, EXAMPLES_FILE])
def test_resumed_run_equals_an_unbroken_one(tmp_path: Path, name: str) -> None:
    unbroken = write_run(tmp_path / "a", num_stages=4)
    resumed = write_run(tmp_path / "b", num_stages=3)
    tear(resumed / STAGES_FILE)
    RunWriter(resumed).keep_stages(2)
    for stage in (2, 3):
        append_fake_stage(RunWriter(resumed), fake_config(), stage)
    assert (resumed / name).read_bytes() == (unbroken / name).read_bytes()


def test_no_partial_file_is_left(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    assert list(path.glob("*.part")) == []


# Status


def test_status_names_state_error_and_process(tmp_path: Path) -> None:
    RunWriter(tmp_path).write_status("failed", "boom")
    assert read_status(tmp_path) == {
        "state": "failed",
        "error": "boom",
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


def test_status_is_replaced(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    writer.write_status("running")
    writer.write_status("completed")
    assert read_status(tmp_path)["state"] == "completed"


def test_run_without_status_is_running_with_no_process(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (path / STATUS_FILE).unlink()
    assert (load_run(path).state, load_run(path).status["pid"]) == ("running", None)


@pytest.mark.parametrize(
    "content", ["", '{"state": "running", "host": "h"', "[]", '{"state": "odd"}', '{"state": 1}']
)
def test_damaged_status_is_one_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / STATUS_FILE
    file.write_text(content)
    message = (
        "`status.json` must hold state (running, completed, failed, interrupted), error, host and "
        f"pid of a run, got {content!r} in {str(file)!r}. Delete it if no process makes the run: "
        "the same command then goes on with it."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_status(tmp_path)


def test_status_of_a_hand_lacks_its_process(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).write_text('{"state": "failed", "error": "E"}')
    assert read_status(tmp_path) == {"state": "failed", "error": "E", "host": None, "pid": None}


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1', b"[1]", b"\xff\xfe\x00"])
def test_damaged_meta_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = write_run(tmp_path, num_stages=0)
    (path / META_FILE).write_bytes(content)
    message = rf"^`meta\.json` must hold a JSON object, got '.*' in {str(path / META_FILE)!r}\. "
    with pytest.raises(ValueError, match=message):
        load_run(path)


@pytest.mark.parametrize("content", ["", "a: b: c", "- 1", "\tx"])
def test_damaged_configuration_is_one_sentence(tmp_path: Path, content: str) -> None:
    path = write_run(tmp_path, num_stages=0)
    (path / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"^`config\.yaml` must hold the options of a run, got '"):
        load_run(path)


def test_content_of_a_damaged_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).write_text("x" * 10**6)
    with pytest.raises(ValueError, match=r"^`status\.json` must hold .*\(1,000,000 char") as raised:
        read_status(tmp_path)
    assert len(str(raised.value)) < 1000


def test_running_run_of_this_process_is_alive(tmp_path: Path) -> None:
    RunWriter(tmp_path).write_status("running")
    assert is_alive(read_status(tmp_path))


def test_completed_run_is_not_alive(tmp_path: Path) -> None:
    RunWriter(tmp_path).write_status("completed")
    assert not is_alive(read_status(tmp_path))


def test_run_whose_process_is_gone_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(pid: int, signal: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr("os.kill", gone)
    assert not is_alive({"state": "running", "host": socket.gethostname(), "pid": 12345})


def test_run_of_another_host_counts_as_alive() -> None:
    assert is_alive({"state": "running", "host": "elsewhere", "pid": 12345})


def test_run_without_process_is_not_alive() -> None:
    assert not is_alive({"state": "running", "host": None, "pid": None})


def test_config_comes_back_as_written(tmp_path: Path) -> None:
    config = replace(RunConfig(), seed=7)
    writer = RunWriter(tmp_path)
    writer.write_config(config)
    writer.write_meta({"schema_version": 1, "run_id": run_id(config)})
    assert load_run(tmp_path).config["seed"] == 7
