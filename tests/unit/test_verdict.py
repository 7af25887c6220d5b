import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sorakit.records import load_run
from sorakit.records.packing import pack_runs
from sorakit.sweep.repeat import repetition
from sorakit.sweep.verdict import verdict
from sorakit.training.provenance import _hardware
from tests.support.fake_runs import fake_config, write_run

RANKS, EXAMPLES = "ranks.jsonl", "examples.parquet"


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return write_run(tmp_path / "original", num_stages=3)


@pytest.fixture
def again(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "again"))


def change_line(path: Path, number: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one line of a file of JSON lines."""
    lines = path.read_text().splitlines()
    row = json.loads(lines[number])
    change(row)
    lines[number] = json.dumps(row)
    path.write_text("\n".join(lines) + "\n")


def change_meta(run: Path, **sections: dict[str, Any]) -> None:
    file = run / "meta.json"
    meta = json.loads(file.read_text())
    for name, values in sections.items():
        meta[name] = {**meta[name], **values}
    file.write_text(json.dumps(meta))


def test_same_records_are_said_to_be_the_same(original, again, tmp_path):
    expected = f"Its 3 stages are those of {original}, bit for bit, with ranks and examples."
    assert verdict(again, original) == expected
    pack_runs([original], tmp_path / "pack")
    packed = tmp_path / "pack" / load_run(original).run_id
    assert verdict(again, packed) == expected.replace(str(original), str(packed))


def test_last_digit_of_a_score_is_a_difference(original, again):
    def next_loss(row: dict[str, Any]) -> None:
        row["train_loss"] = math.nextafter(row["train_loss"], math.inf)

    change_line(again / "stages.jsonl", 1, next_loss)
    assert re.match(
        rf"From stage 1 on it differs from {re.escape(str(original))}: `train_loss` is \S+, there ",
        verdict(again, original),
    )


def test_last_digit_of_a_strength_is_a_difference(original, again):
    def weaker(row: dict[str, Any]) -> None:
        row["strengths"][0] = math.nextafter(row["strengths"][0], 0)

    change_line(again / RANKS, 13, weaker)  # 12 matrices a stage: the second of stage 1
    found = verdict(again, original)
    assert found.startswith("From stage 1, bert.encoder.layer.0.attention.self.key, on it differs")


def test_loss_of_one_example_is_a_difference(original, again):
    table = pd.read_parquet(again / EXAMPLES)
    row = table.index[(table["stage"] == 1) & (table["split"] == "generalization")][1]
    table.loc[row, "loss"] = math.nextafter(0.4, 1)
    table.to_parquet(again / EXAMPLES)
    found = verdict(again, original)
    assert found.startswith("From example 1 of generalization in stage 1 on it differs from ")
    assert ": `loss` is 0.4" in found


def test_missing_stage_is_a_difference(original, again):
    file = again / "stages.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:2]) + "\n")
    assert "it has 2 lines of a stage, there 3. " in verdict(again, original)


def test_column_that_one_version_records_is_named_and_no_difference(original, again):
    for number in range(3):
        change_line(again / "stages.jsonl", number, lambda row: row.update(new_measure=1.0))
    assert verdict(again, original).endswith(
        "bit for bit, with ranks and examples. Only one of them records new_measure."
    )


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {"versions": {"torch": "2.14.0"}, "hardware": {"cpu": "other"}},
            "Not the same in both meta.json: cpu ('one' there, 'other' here), "
            "torch ('2.13.0' there, '2.14.0' here). Bits are equal only on equal hardware",
        ),
        (
            {"git": {"sha": "1234567" + "0" * 33}},
            "what changed it lies between the commits 0000000 and 1234567.",
        ),
        ({"hardware": {"cpus": 64}}, "data and commit are the same in both meta.json"),
    ],
)
def test_verdict_says_what_else_differs(sections, words, original, again):
    for run in (original, again):
        change_meta(run, versions={"torch": "2.13.0"}, hardware={"cpu": "one", "cpus": 2})
    change_meta(again, **sections)
    change_line(again / "stages.jsonl", 0, lambda row: row.update(epochs=2.0))
    found = verdict(again, original)
    assert words in found
    assert len(found) < 1000


def test_run_is_repeated_with_the_threads_that_it_had(tmp_path):
    path = write_run(tmp_path, meta={"hardware": {"threads": 3}})
    found = repetition(path, lambda _: fake_config())
    assert found.config.trainer.num_threads == 3


def test_processor_and_its_instructions_are_recorded():
    hardware = _hardware()
    assert hardware["cpu"]
    assert hardware["instructions"]
