import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sorakit.config import TaskConfig
from sorakit.tasks import load_task
from sorakit.tasks.files import load_files

TRAIN = {"text": ["one", "two", "three"], "label": ["b", "a", "b"]}
VALIDATION = {"text": ["four"], "label": ["a"]}


def write(file: Path, columns: dict) -> None:
    table = pd.DataFrame(columns)
    match file.suffix:
        case ".csv":
            table.to_csv(file, index=False)
        case ".tsv":
            table.to_csv(file, sep="\t", index=False)
        case ".json":
            table.to_json(file, orient="records")
        case ".jsonl":
            table.to_json(file, orient="records", lines=True)
        case ".parquet":
            table.to_parquet(file, index=False)


def config_of(folder: Path, *, suffix: str = ".csv", **keys) -> TaskConfig:
    defaults: dict[str, Any] = {
        "data_dir": str(folder),
        "train_file": f"train{suffix}",
        "validation_file": f"dev{suffix}",
    }
    return TaskConfig(name="files", **(defaults | keys))


def load(folder: Path, train: dict, validation: dict, *, suffix: str = ".csv", **keys):
    write(folder / f"train{suffix}", train)
    write(folder / f"dev{suffix}", validation)
    return load_files(config_of(folder, suffix=suffix, **keys))


def error_of(folder: Path, train: dict, validation: dict, **keys) -> str:
    with pytest.raises(ValueError, match=r"^`task\..*\.$") as caught:
        load(folder, train, validation, **keys)
    return str(caught.value)


SUFFIXES = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_training_examples(suffix, tmp_path):
    task = load(tmp_path, TRAIN, VALIDATION, suffix=suffix)
    assert task.train.to_list() == [
        {"text": "one", "label": 1},
        {"text": "two", "label": 0},
        {"text": "three", "label": 1},
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_classes_from_integers(suffix, tmp_path):
    train = {"text": ["a", "b", "c"], "label": [10, 2, -1]}
    task = load(tmp_path, train, {"text": ["d"], "label": [10]}, suffix=suffix)
    assert (task.label_names, task.validation["label"][:]) == (("-1", "2", "10"), [2])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_numbers(suffix, tmp_path):
    train = {"text": ["a", "b"], "label": [0.5, 2.0]}
    task = load(tmp_path, train, {"text": ["c"], "label": [1.0]}, suffix=suffix, metric="pearson")
    assert (task.is_regression, task.train["label"][:]) == (True, [0.5, 2.0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_words_that_pandas_takes_for_null_stay_texts(suffix, tmp_path):
    train = {"text": ["NA", "null"], "label": ["None", "nan"]}
    task = load(tmp_path, train, {"text": ["x"], "label": ["nan"]}, suffix=suffix)
    assert (task.train["text"][:], task.label_names) == (["NA", "null"], ("None", "nan"))


def test_formats_may_be_mixed(tmp_path):
    write(tmp_path / "train.parquet", {"text": ["a", "b"], "label": [0, 1]})
    write(tmp_path / "dev.csv", {"text": ["c"], "label": [1]})
    task = load_files(config_of(tmp_path, train_file="train.parquet"))
    assert task.validation["label"][:] == [1]


def test_json_file_may_hold_one_object_per_line(tmp_path):
    for name in ("train", "dev"):
        lines = [json.dumps({"text": text, "label": text}) for text in ("a", "b")]
        (tmp_path / f"{name}.json").write_text("\n".join(lines) + "\n")
    assert load_files(config_of(tmp_path, suffix=".json")).train["text"][:] == ["a", "b"]


def test_csv_fields_may_hold_commas_quotes_and_line_breaks(tmp_path):
    texts = ['He said "no", twice', "two\nlines"]
    task = load(tmp_path, {"text": texts, "label": [0, 1]}, {"text": ["a"], "label": [0]})
    assert task.train["text"][:] == texts


def test_quotes_in_tsv_are_ordinary_characters(tmp_path):
    (tmp_path / "train.tsv").write_text('text\tlabel\n"open\t0\nplain\t1\n')
    (tmp_path / "dev.tsv").write_text("text\tlabel\nplain\t1\n")
    task = load_files(config_of(tmp_path, suffix=".tsv"))
    assert task.train["text"][:] == ['"open', "plain"]


def test_pairs_come_from_their_own_columns(tmp_path):
    train = {"a": ["x", "y"], "b": ["u", "v"], "gold": [0, 1], "other": [5, 6]}
    task = load(tmp_path, train, train, text_column="a", text_pair_column="b", label_column="gold")
    assert task.train.to_list() == [
        {"text": "x", "text_pair": "u", "label": 0},
        {"text": "y", "text_pair": "v", "label": 1},
    ]


def test_paths_start_at_the_working_folder_without_data_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load(tmp_path, TRAIN, VALIDATION, data_dir=None).train) == 3


def test_paths_may_be_absolute(tmp_path):
    keys = {"train_file": str(tmp_path / "train.csv"), "validation_file": str(tmp_path / "dev.csv")}
    assert len(load(tmp_path, TRAIN, VALIDATION, data_dir="elsewhere", **keys).train) == 3


def test_metric_is_accuracy_unless_named(tmp_path):
    assert load(tmp_path, TRAIN, VALIDATION).metric == "accuracy"


def test_metric_is_taken_over(tmp_path):
    assert load(tmp_path, TRAIN, VALIDATION, metric="f1").metric == "f1"


def test_source_names_the_files_but_not_the_folder(tmp_path):
    assert load(tmp_path, TRAIN, VALIDATION).source == "local files: train.csv, dev.csv"


def test_load_task_reads_files(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "dev.csv", VALIDATION)
    task = load_task(config_of(tmp_path), seed=0)
    assert task.train["is_noisy"][:] == [False, False, False]


# Errors


def test_file_must_be_named():
    with pytest.raises(
        ValueError,
        match=r"^`task\.train_file` must name a file when `task\.name` is files, got null\.$",
    ):
        load_files(TaskConfig(name="files"))


def test_missing_file_is_an_error(tmp_path):
    write(tmp_path / "train.csv", TRAIN)
    with pytest.raises(ValueError, match=r"^`task\.validation_file`") as caught:
        load_files(config_of(tmp_path))
    assert str(caught.value) == (
        f"`task.validation_file` must be an existing file, got '{tmp_path / 'dev.csv'}'. "
        "Relative names start at `task.data_dir`, or at the working folder if that is null."
    )


def test_unknown_suffix_is_an_error(tmp_path):
    with pytest.raises(
        ValueError,
        match=(
            r"^`task\.train_file` must end in one of \.csv, \.tsv, \.json, \.jsonl, \.parquet, "
            r"got 'train\.txt'\.$"
        ),
    ):
        load_files(config_of(tmp_path, suffix=".txt"))


@pytest.mark.parametrize(
    ("key", "column"),
    [
        ("text_column", "body"),
        ("text_pair_column", "second"),
        ("label_column", "gold"),
    ],
)
def test_missing_column_lists_the_columns(key, column, tmp_path):
    assert error_of(tmp_path, TRAIN, VALIDATION, **{key: column}) == (
        f"`task.{key}` must be a column of train.csv (text, label), got '{column}'."
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_empty_file_is_an_error(suffix, tmp_path):
    nothing = {"text": [], "label": []}
    assert error_of(tmp_path, TRAIN, nothing, suffix=suffix) == (
        "`task.validation_file` must hold at least one example, "
        f"got none in '{tmp_path / f'dev{suffix}'}'."
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl"])
def test_file_without_a_byte_is_an_error(suffix, tmp_path):
    file = tmp_path / f"train{suffix}"
    file.write_text("")
    (tmp_path / f"dev{suffix}").write_text("")
    with pytest.raises(ValueError, match=r"^`task\.train_file`") as caught:
        load_files(config_of(tmp_path, suffix=suffix))
    assert str(caught.value) == (
        f"`task.train_file` must hold at least one example, got none in '{file}'."
    )


@pytest.mark.parametrize(
    ("suffix", "shown"),
    [(".csv", "''"), (".tsv", "''"), (".json", "null"), (".jsonl", "null"), (".parquet", "null")],
)
def test_null_text_names_its_row(suffix, shown, tmp_path):
    train = {"text": ["a", None], "label": ["x", "y"]}
    assert error_of(tmp_path, train, VALIDATION, suffix=suffix) == (
        f"`task.train_file`: 'text' in row 1 of train{suffix} must be a non-empty text, "
        f"got {shown}."
    )


@pytest.mark.parametrize(
    ("suffix", "shown"),
    [(".csv", "''"), (".tsv", "''"), (".json", "null"), (".jsonl", "null"), (".parquet", "null")],
)
def test_null_label_names_its_row(suffix, shown, tmp_path):
    train = {"text": ["a", "b"], "label": ["x", None]}
    assert error_of(tmp_path, train, VALIDATION, suffix=suffix) == (
        f"`task.train_file`: label {shown} in row 1 of train{suffix} must be a text or an integer. "
        "Numbers need `task.metric` pearson or spearman."
    )


def test_number_as_a_class_is_an_error(tmp_path):
    train = {"text": ["a", "b"], "label": [0.5, 1.5]}
    assert error_of(tmp_path, train, VALIDATION, suffix=".parquet") == (
        "`task.train_file`: label 0.5 in row 0 of train.parquet must be a text or an integer. "
        "Numbers need `task.metric` pearson or spearman."
    )


def test_label_outside_the_training_classes_is_an_error(tmp_path):
    assert error_of(tmp_path, TRAIN, {"text": ["d"], "label": ["c"]}) == (
        "`task.validation_file`: label 'c' in row 0 of dev.csv must be one of the training classes "
        "(a, b)."
    )


def test_single_class_is_an_error(tmp_path):
    assert error_of(tmp_path, {"text": ["a", "b"], "label": ["x", "x"]}, VALIDATION) == (
        "`task.train_file` must hold at least 2 classes, got only 'x' in column 'label' of "
        "train.csv."
    )


@pytest.mark.parametrize("label", ["high", "nan", "inf"])
def test_label_of_a_regression_must_be_a_number(label, tmp_path):
    train = {"text": ["a"], "label": [label]}
    assert error_of(tmp_path, train, VALIDATION, metric="spearman") == (
        f"`task.train_file`: label '{label}' in row 0 of train.csv must be a finite number, "
        "because `task.metric` is pearson or spearman."
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train.csv", "text,label\na,b,c\n", "row 0 has 3 fields, the header has 2"),
        ("train.csv", "text,text\na,b\n", "a column name appears twice: text, text"),
        ("train.csv", 'text,label\n"a,b\n', "unexpected end of data"),
        ("train.jsonl", "{}\nx\n", "line 2 is not a JSON object: Expecting value"),
        ("train.jsonl", "{}\n3\n", "example 1 is not a JSON object"),
        ("train.json", "[1]", "example 0 is not a JSON object"),
        ("train.parquet", "no parquet", "Parquet magic bytes not found.*"),
    ],
)
def test_malformed_file_is_an_error(name, content, reason, tmp_path):
    (tmp_path / name).write_text(content)
    write(tmp_path / "dev.csv", VALIDATION)
    message = (
        rf"^`task\.train_file` must be a well-formed \{Path(name).suffix} file, "
        rf"got '{re.escape(str(tmp_path / name))}' \({reason}\)\.$"
    )
    with pytest.raises(ValueError, match=message):
        load_files(config_of(tmp_path, train_file=name))
