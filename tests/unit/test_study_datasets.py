"""What a word after `--data` means."""

from pathlib import Path

import pytest

from sorakit.studies.datasets import dataset_of, datasets_of


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("reviews_train.csv", "data/forum.jsonl", "data/notes.txt", "mails/train.parquet"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.touch()
    (tmp_path / "mrpc").mkdir()


@pytest.mark.parametrize(
    ("word", "label", "options"),
    [
        ("pydoc_order", "pydoc_order", {"name": "pydoc_order"}),
        ("mrpc", "mrpc", {"name": "mrpc"}),
        ("./mrpc", "mrpc", {"name": "hub", "data_dir": "mrpc"}),
        ("reviews_train.csv", "reviews", {"name": "files", "train_file": "reviews_train.csv"}),
        (
            "data/forum.jsonl",
            "forum",
            {"name": "files", "data_dir": "data", "train_file": "forum.jsonl"},
        ),
        ("mails", "mails", {"name": "hub", "data_dir": "mails"}),
        ("post=mails", "post", {"name": "hub", "data_dir": "mails", "label": "post"}),
        ("stanfordnlp/imdb", "imdb", {"name": "hub", "dataset": "stanfordnlp/imdb"}),
        ("ag_news", "ag_news", {"name": "hub", "dataset": "ag_news"}),
    ],
)
def test_word_is_a_task_a_file_a_folder_or_a_hub_id(word, label, options):
    dataset = dataset_of(word)
    assert dataset.label == label
    assert dataset.options == {f"task.{name}": value for name, value in options.items()}


@pytest.mark.parametrize(
    ("word", "end"),
    [
        ("none.csv", r"got 'none\.csv'\."),
        ("data/notes.txt", r"got the file 'data/notes\.txt'\."),
        ("no/such/place", r"got 'no/such/place'\."),
        ("mprc", r"got 'mprc'\. Did you mean mrpc\?"),
        ("files", r"got 'files'\."),
    ],
)
def test_what_is_none_of_these_is_refused(word, end):
    with pytest.raises(ValueError, match=rf"^`--data` must be a task \(pydoc_topic, .*{end}$"):
        dataset_of(word)


def test_two_datasets_of_one_name_need_another_one():
    with pytest.raises(ValueError, match=r"^`--data` .* got 'mails' twice\. .* NAME=PLACE"):
        datasets_of(["mails", "mails"])
    assert [d.label for d in datasets_of(["mails", "post=mails"])] == ["mails", "post"]


def test_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^`--data` must be given, got nothing\."):
        datasets_of([])
