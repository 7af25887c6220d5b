"""`sorakit predict`: new texts, by the adapter of a stage."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from sorakit.cli import main
from sorakit.config import TaskConfig
from sorakit.metric_names import GENERALIZATION_SPLIT
from sorakit.records import Run, load_run
from sorakit.tasks.unlabelled import read_texts
from sorakit.training.predict import Predictions, submission
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run, write_regression


@pytest.fixture(scope="module")
def done(hub: Path) -> Run:
    return load_run(run(tiny_run(hub, out_dir="run", levels=(0.02,)), show_progress=False).path)


def command(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as exit_:
        main(["predict", *map(str, words)])
    return exit_.value.code


def test_predictions_are_those_of_the_record(done, hub, tmp_path):
    out = tmp_path / "predictions.csv"
    file = hub / "task" / "validation.csv"
    assert command(done.path, "--stage", 1, "--file", file, "--out", out) == 0
    table = pd.read_csv(out)
    examples = done.examples()
    own = examples[(examples["stage"] == 1) & (examples["split"] == GENERALIZATION_SPLIT)]
    own = own.sort_values("index", ignore_index=True)
    names = ["animals", "tools"]
    assert table["prediction"].tolist() == [names[index] for index in own["prediction"]]
    with file.open(newline="") as stream:
        labels = [row["label"] for row in csv.DictReader(stream)]
    of_label = [table[f"probability_{label}"][row] for row, label in enumerate(labels)]
    assert of_label == pytest.approx(own["probability"].tolist(), abs=2e-6)
    assert table.columns.tolist() == ["row", "prediction", *(f"probability_{n}" for n in names)]


def test_predictions_of_a_regression_are_its_numbers(hub, tmp_path, capsys):
    write_regression(tmp_path / "numbers")
    sections = {
        "task": {"data_dir": str(tmp_path / "numbers"), "metric": "pearson"},
        "method": {"name": "lora", "gate_init": "auto"},
    }
    config = tiny_run(hub, out_dir="numbers", sections=sections)
    of_numbers = load_run(run(config, show_progress=False).path)
    file = tmp_path / "numbers" / "validation.csv"
    capsys.readouterr()
    assert command(of_numbers.path, "--stage", 0, "--file", file) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    examples = of_numbers.examples()
    own = examples[examples["split"] == GENERALIZATION_SPLIT].sort_values("index")
    found = [float(row["prediction"]) for row in rows]
    assert found == pytest.approx(own["prediction"].tolist(), rel=1e-4, abs=1e-5)


WRONG = {
    "no_stage": (
        ["--stage", 9, "--file", "x.csv"],
        "`--stage` must be a stage of the run, 0 to 1, got 9.",
    ),
    "no_file": (
        ["--stage", 0, "--file", "nowhere.csv"],
        "`--file` must be an existing file, got 'nowhere.csv'.",
    ),
    "other_kind": (
        ["--stage", 0, "--file", "x.docx"],
        "`--file` must end in one of .csv, .tsv, .json, .jsonl, .parquet, got 'x.docx'.",
    ),
    "no_folder": (
        ["--stage", 0, "--file", "x.csv", "--glue"],
        "`--out` must be a folder when `--glue` is given, got null.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_told_in_one_sentence(name, done, capsys):
    words, message = WRONG[name]
    capsys.readouterr()
    assert command(done.path, *words) == 2
    assert capsys.readouterr().err == f"sorakit: error: {message}\n"


def test_column_that_is_missing_is_named(done, tmp_path, capsys):
    file = tmp_path / "other.csv"
    file.write_text("words\na cat\n")
    assert command(done.path, "--stage", 0, "--file", file) == 2
    message = "`--file` must have the columns text, got 'other.csv' with words."
    assert capsys.readouterr().err.endswith(f"{message}\n")


def test_run_of_another_task_gives_no_submission(done, hub, tmp_path, capsys):
    file = hub / "task" / "validation.csv"
    out = tmp_path / "glue"
    assert command(done.path, "--stage", 0, "--file", file, "--out", out, "--glue") == 2
    assert "`RUN` must be of a GLUE task for `--glue`, got 'files'." in capsys.readouterr().err
    assert not out.exists()


SUBMISSIONS = {
    # task: (classes, outputs, file, lines): formats of the sample submission of GLUE
    "cola": (("unacceptable", "acceptable"), [[0.2, 0.8]], "CoLA.tsv", ["0\t1"]),
    "sst2": (("negative", "positive"), [[0.9, 0.1]], "SST-2.tsv", ["0\t0"]),
    "mrpc": (("not_equivalent", "equivalent"), [[0.2, 0.8]], "MRPC.tsv", ["0\t1"]),
    "qqp": (("not_duplicate", "duplicate"), [[0.2, 0.8]], "QQP.tsv", ["0\t1"]),
    "stsb": ((), [[5.25], [2.5]], "STS-B.tsv", ["0\t5.000", "1\t2.500"]),
    "mnli": (
        ("entailment", "neutral", "contradiction"),
        [[0.1, 0.2, 0.7]],
        "MNLI-m.tsv",
        ["0\tcontradiction"],
    ),
    "qnli": (("entailment", "not_entailment"), [[0.7, 0.3]], "QNLI.tsv", ["0\tentailment"]),
    "rte": (("entailment", "not_entailment"), [[0.1, 0.9]], "RTE.tsv", ["0\tnot_entailment"]),
}


@pytest.mark.parametrize("task", SUBMISSIONS)
def test_submission_has_the_official_name_and_answers(task):
    names, outputs, file, lines = SUBMISSIONS[task]
    predictions = Predictions(class_names=names, outputs=torch.tensor(outputs))
    assert submission(predictions, task) == (
        file,
        "\n".join(["index\tprediction", *lines]) + "\n",
    )


def test_official_test_file_is_read_with_quotes_as_they_are(tmp_path):
    file = tmp_path / "test.tsv"
    header = "index\t#1 ID\t#2 ID\t#1 String\t#2 String"
    file.write_text(f'{header}\n0\t1\t2\tHe said "no .\tShe said "yes" .\n')
    split = read_texts(file, TaskConfig(name="mrpc"))
    assert (split["text"][0], split["text_pair"][0]) == ('He said "no .', 'She said "yes" .')


def test_short_line_of_an_official_file_is_named(tmp_path):
    file = tmp_path / "test.tsv"
    file.write_text("index\tsentence\n0\ta\n1\n")
    message = "`--file` must have 2 fields in every line, got 1 in line 3 of 'test.tsv'."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_texts(file, TaskConfig(name="cola"))


@pytest.mark.realdata
def test_test_file_of_the_hub_is_read(shared_dir):
    split = read_texts(shared_dir / "data/glue/mrpc/test.parquet", TaskConfig(name="mrpc"))
    assert (len(split), set(split.column_names)) == (1725, {"text", "text_pair", "label"})
