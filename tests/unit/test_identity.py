import pytest

from sorakit.config import RunConfig, TaskConfig
from sorakit.records import config_to_dict, dataset_label, dense_config, run_id


def with_task(**keys) -> RunConfig:
    return RunConfig(task=TaskConfig(**keys))


def test_sample_of_the_training_examples_is_part_of_the_run_id():
    ids = {run_id(with_task(train_examples=count)) for count in (None, 500, 1000)}
    assert len(ids) == 3


def test_run_on_all_examples_has_the_id_from_before_there_were_samples():
    assert "train_examples" not in dense_config(RunConfig())["task"]
    assert dense_config(with_task(train_examples=5))["task"]["train_examples"] == 5


def test_label_is_no_part_of_the_run_id():
    assert run_id(with_task(label="Summaries")) == run_id(RunConfig())


@pytest.mark.parametrize(
    ("keys", "label"),
    [
        ({"name": "mrpc", "data_dir": "glue"}, "mrpc"),
        ({"name": "mrpc", "label": "Paraphrases"}, "Paraphrases"),
        ({"data_dir": "data/reviews", "train_file": "train.csv"}, "reviews"),
        ({"data_dir": "data/reviews", "train_file": "train-00000-of-00001.parquet"}, "reviews"),
        ({"train_file": "data/reviews/Train.csv"}, "reviews"),
        ({"train_file": "reviews.csv"}, "reviews"),
        ({"data_dir": "data", "train_file": "reviews_train.csv"}, "reviews"),
        ({"data_dir": "data", "train_file": "train-reviews.csv"}, "reviews"),
        ({"data_dir": "data", "train_file": "reviews-training.jsonl"}, "reviews"),
        ({"data_dir": "data", "train_file": "trains.csv"}, "trains"),
        ({"train_file": "train.csv"}, "train"),
        ({"train_file": "train.csv", "label": "reviews"}, "reviews"),
    ],
)
def test_label_of_a_dataset(keys, label):
    task = TaskConfig(**({"name": "files"} | keys))
    assert dataset_label(config_to_dict(RunConfig(task=task))["task"]) == label


def test_record_from_before_there_were_labels_has_one():
    assert dataset_label({"name": "files", "data_dir": "reviews", "train_file": "a.csv"}) == "a"


def test_label_must_be_a_name():
    with pytest.raises(ValueError, match=r"^`task\.label` must be a name or null, got ' '\.$"):
        TaskConfig(label=" ")
