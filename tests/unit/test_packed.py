"""Packed records: nothing is lost, and a pack is read like the folders that it was made of."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis.cli import main
from analysis.load import load_runs
from analysis.resampling import read_correct
from sorakit.config import StageConfig, XiConfig
from sorakit.records import (
    META_FILE,
    STAGES_FILE,
    Run,
    find_runs,
    is_complete,
    load_run,
    packed_run_ids,
)
from sorakit.records.packing import pack_runs
from sorakit.tracking.rows import find_floor, load_floors, records_digest
from tests.support.fake_runs import write_run


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A path with an older record, its floor without ranks, and a control."""
    root = tmp_path / "runs"
    path = write_run(root)
    lines = [json.loads(line) for line in (path / STAGES_FILE).read_text().splitlines()]
    for line in lines[1:]:  # some lines of older records lack a field, others have it as null
        del line["stationarity_residual"]
    lines[2]["gates_revived"] = 3
    lines[3]["of_a_newer_release"] = {"nested": [1, 2.0, None]}
    (path / STAGES_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (path / "steps.jsonl").write_text('{"step": 1, "xi": 0}\n{"step": 2, "xi": 0.5}\n')
    masked = StageConfig(control="random_mask")
    return [
        path,
        write_run(root, "floor"),
        write_run(root, seed=1, stage=masked, xi=XiConfig(spacing="target")),
    ]


def assert_same(first: Run, second: Run) -> None:
    for name in ("stages", "ranks", "timings"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name), check_exact=True)
    pd.testing.assert_frame_equal(first.examples(), second.examples(), check_exact=True)
    assert json.dumps([first.config, first.meta, first.status, first.steps()]) == json.dumps(
        [second.config, second.meta, second.status, second.steps()]
    )


def test_packed_run_is_read_as_its_folder_is(folders: list[Path], tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    assert pack_runs(folders, pack).added == folders
    for folder in folders:
        assert_same(load_run(folder), load_run(pack / folder.name))


def test_pack_stands_for_the_folders_it_was_made_of(folders: list[Path], tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack_runs(folders, pack)
    assert packed_run_ids(tmp_path) == {folder.name for folder in folders}
    assert find_runs(pack) == sorted(pack / folder.name for folder in folders)
    assert all(is_complete(path) for path in find_runs(pack))
    assert packed_run_ids(tmp_path / "nowhere") == frozenset()


def test_every_page_and_table_is_the_same_from_a_pack(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[list[bytes]] = []
    pack = tmp_path / "pack"
    pack_runs(folders, pack)
    shutil.rmtree(folders[0].parent / "dense_stages", ignore_errors=True)
    for source in (folders[0].parent, pack):
        place = tmp_path / "place"  # pages say where a run lies
        source.rename(place)
        out = tmp_path / f"out of {source.name}"
        assert main(["freeze", str(place), "--out", str(out)]) == 0
        assert main(["report", str(place), "--out", str(out / "report.html")]) == 0
        assert main(["compare", str(place), "--csv", str(out / "compare.csv")]) == 0
        place.rename(source)
        made.append([file.read_bytes() for file in sorted(out.iterdir())])
    assert made[0] == made[1]


def test_examples_of_a_packed_run_are_resampled_alike(folders: list[Path], tmp_path: Path) -> None:
    pack_runs(folders, tmp_path / "pack")
    of_folder = read_correct(folders[0], "accuracy")
    of_pack = read_correct(tmp_path / "pack" / folders[0].name, "accuracy")
    assert of_folder.keys() == of_pack.keys() == {"memorization", "generalization"}
    for score, record in of_folder.items():
        assert (record.correct == of_pack[score].correct).all()


def test_runs_are_added_to_a_pack(folders: list[Path], tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack_runs(folders[:1], pack)
    (pack / "table.md").write_text("stays")
    packed = pack_runs(folders, pack)
    assert (packed.added, packed.there) == (folders[1:], folders[:1])
    for folder in folders:
        assert_same(load_run(folder), load_run(pack / folder.name))
    assert (pack / "table.md").read_text() == "stays"
    assert {file.suffix for file in pack.iterdir()} == {".md", ".parquet"}


def test_two_packs_become_one(folders: list[Path], tmp_path: Path) -> None:
    pack_runs(folders[:1], tmp_path / "a")
    pack_runs(folders[1:], tmp_path / "b")
    pack_runs([*find_runs(tmp_path / "a"), *find_runs(tmp_path / "b")], tmp_path / "both")
    for folder in folders:
        assert_same(load_run(folder), load_run(tmp_path / "both" / folder.name))


def test_packing_again_writes_the_same_bytes(folders: list[Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack_runs(folders if name == "a" else folders[::-1], tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_second_result_of_a_run_id_is_refused(folders: list[Path], tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack_runs(folders, pack)
    meta = json.loads((folders[0] / META_FILE).read_text())
    (folders[0] / META_FILE).write_text(json.dumps({**meta, "hardware": {"device": "cuda"}}))
    message = f"`RUNS` must hold no second result of run {folders[0].name}, got "
    with pytest.raises(ValueError, match=f"^{message}.* whose meta.json is not that in .*$"):
        pack_runs(folders, pack)


def test_file_that_a_pack_has_no_place_for_is_refused(folders: list[Path], tmp_path: Path) -> None:
    (folders[0] / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"^`RUNS` must hold records only, got 'notes.txt' in "):
        pack_runs(folders, tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_tables_of_a_pack_name_their_runs(folders: list[Path], tmp_path: Path) -> None:
    pack_runs(folders, tmp_path)
    stages = pd.read_parquet(tmp_path / "stages.parquet")
    assert set(stages["run"]) == {
        "pydoc_topic-path-seed0", "pydoc_topic-floor-seed0", "pydoc_topic-random_mask-seed1",
    }  # fmt: skip
    assert stages["memorization"].dtype == float
    assert pq.read_schema(tmp_path / "ranks.parquet").field("strengths").type.value_type == "double"


def test_pack_of_another_version_is_refused_by_name(folders: list[Path], tmp_path: Path) -> None:
    pack_runs(folders, tmp_path / "pack")
    file = tmp_path / "pack" / "runs.parquet"
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({b"sorakit_pack": b"99"}), file)
    message = r"^`runs\.parquet` must be of pack version 1, got version 99 in "
    with pytest.raises(ValueError, match=message):
        load_runs([tmp_path / "pack"])


def test_verb_packs_finished_runs_and_names_the_others(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = write_run(tmp_path / "runs", seed=9, num_stages=2, state="running")
    out = tmp_path / "pack"
    assert main(["pack", str(tmp_path / "runs"), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["3 runs packed, 1 left out", f"  left out {unfinished}: not completed"]
    assert main(["pack", str(tmp_path / "runs"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("0 runs packed, 3 were there, 1 left out")


def test_tracker_shows_a_packed_run_like_its_folder(folders: list[Path], tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack_runs(folders, pack)
    shown: list[str] = []
    for runs in (folders, find_runs(pack)):
        (path,) = [run for run in runs if run.name == folders[0].name]
        floor = find_floor(load_run(path), load_floors(runs))
        assert floor is not None
        shown.append(records_digest(load_run(path), floor))
    assert shown[0] == shown[1]
