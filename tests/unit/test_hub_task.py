from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from sorakit.config import RunConfig, TaskConfig
from sorakit.records import config_to_dict, dataset_label
from sorakit.tasks import load_task
from sorakit.tasks.base import Task
from sorakit.tasks.files import load_files
from sorakit.tasks.hub import load_hub
from sorakit.tasks.inputs import task_inputs

TRAIN = {"text": ["one", "two", "three"], "label": ["b", "a", "b"]}
DEV = {"text": ["four"], "label": ["a"]}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory) -> None:
    monkeypatch.setattr(
        "datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache")
    )


def write(folder: Path, **splits: dict) -> Path:
    for name, columns in splits.items():
        pd.DataFrame(columns).to_csv(folder / f"{name}.csv", index=False)
    return folder


def load(folder: Path, **keys) -> Task:
    return load_hub(TaskConfig(name="hub", data_dir=str(folder), **keys))


def error_of(folder: Path, **keys) -> str:
    with pytest.raises(ValueError, match=r"^`task\..*\.$") as caught:
        load(folder, **keys)
    return str(caught.value)


def test_folder_of_csv_files_is_what_files_makes_of_them(tmp_path):
    found = load(write(tmp_path, train=TRAIN, validation=DEV))
    files: dict[str, Any] = {"train_file": "train.csv", "validation_file": "validation.csv"}
    expected = load_files(TaskConfig(name="files", data_dir=str(tmp_path), **files))
    assert found.train.to_list() == expected.train.to_list()
    assert found.validation.to_list() == expected.validation.to_list()
    assert (found.label_names, found.metric) == (expected.label_names, expected.metric)


def test_class_names_and_columns_follow_from_the_features(tmp_path):
    features = Features(
        {
            "review": Value("string"),
            "stars": Value("int64"),
            "mood": ClassLabel(names=["zeal", "calm", "awe"]),
        }
    )
    rows = {"review": ["x", "y"], "stars": [1, 2], "mood": [1, 0]}
    for name in ("train", "validation"):
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{name}.parquet")
    task = load(tmp_path)
    assert task.label_names == ("zeal", "calm", "awe")
    assert task.train.to_list() == [{"text": "x", "label": 1}, {"text": "y", "label": 0}]


def test_several_columns_of_texts_must_be_told_apart(tmp_path):
    columns = {"title": ["a", "b"], "body": ["c", "d"], "label": [0, 1]}
    assert error_of(write(tmp_path, train=columns, test=columns)) == (
        "`task.text_column` must name a column of the dataset (title, body, label), because 2 of "
        "them hold texts (title, body)."
    )
    task = load(tmp_path, text_column="title", text_pair_column="body")
    assert task.train[0] == {"text": "a", "text_pair": "c", "label": 0}


def test_scores_make_a_regression(tmp_path):
    columns = {"text": ["a", "b"], "label": [0.5, 1.25]}
    task = load(write(tmp_path, train=columns, test=columns), metric="pearson")
    assert (task.label_names, task.train["label"][:]) == ((), [0.5, 1.25])


def test_without_a_held_out_split_a_tenth_is_held_out_by_class(tmp_path):
    columns = {"text": [f"t{i}" for i in range(200)], "label": ["a"] * 150 + ["b"] * 50}
    with pytest.warns(UserWarning, match="has no held-out split: 10% of the training split is"):
        task = load(write(tmp_path, train=columns))
    assert Counter(task.validation["label"][:]) == {0: 15, 1: 5}
    texts = [set(split["text"][:]) for split in (task.train, task.validation)]
    assert (len(texts[0]), texts[0] & texts[1]) == (180, set())
    assert task.source.endswith(", 10% of the training split held out")
    with pytest.warns(UserWarning, match="has no held-out split"):
        assert load(tmp_path).validation.to_list() == task.validation.to_list()


def test_test_split_is_held_out_if_there_is_no_validation_split(tmp_path):
    task = load(write(tmp_path, train=TRAIN, test=DEV))
    assert task.validation["text"][:] == ["four"]


def test_splits_may_be_named(tmp_path):
    task = load(
        write(tmp_path, train=DEV, test=TRAIN, validation=DEV),
        train_split="test",
        validation_split="train",
    )
    assert (len(task.train), len(task.validation)) == (3, 1)
    assert error_of(tmp_path, validation_split="dev") == (
        "`task.validation_split` must be a split of the dataset (train, validation, test), got "
        "'dev'."
    )


def test_example_without_a_label_names_its_row(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"text": ["x", "y"], "label": [0, -1]}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    rows.to_parquet(tmp_path / "test.parquet")
    assert error_of(tmp_path) == (
        "`task.data_dir`: label null in column 'label', row 1 of the training split, must be a "
        "text or a whole number."
    )


def test_folder_without_data_is_an_error(tmp_path):
    (tmp_path / "notes.md").write_text("nothing")
    message = error_of(tmp_path)
    assert message.startswith("`task.data_dir` must be a dataset that `datasets.load_dataset` ")
    assert len(message) < 1000


def test_dataset_or_folder_must_be_given():
    both = TaskConfig(name="hub", dataset="a/b", data_dir="c")
    for config in (TaskConfig(name="hub"), both):
        with pytest.raises(ValueError, match=r"^`task\.dataset` or `task\.data_dir` must be set"):
            load_hub(config)


def test_load_task_reads_a_folder_and_its_files_are_its_inputs(tmp_path):
    config = TaskConfig(name="hub", data_dir=str(write(tmp_path, train=TRAIN, validation=DEV)))
    assert len(load_task(config, seed=0).train) == 3
    assert set(task_inputs(config)) == {"train.csv", "validation.csv"}


@pytest.mark.parametrize(
    ("keys", "label"),
    [
        ({"dataset": "stanfordnlp/imdb"}, "imdb"),
        ({"dataset": "tweet_eval", "subset": "irony"}, "tweet_eval/irony"),
        ({"data_dir": "data/reviews"}, "reviews"),
    ],
)
def test_label_is_the_name_of_dataset_or_folder(keys, label):
    config = RunConfig(task=TaskConfig(name="hub", **keys))
    assert dataset_label(config_to_dict(config)["task"]) == label
