from datasets import Dataset

from sorakit.tasks.base import Task
from sorakit.tasks.label_noise import with_label_noise
from sorakit.tasks.overlap import Overlap, find_overlap
from sorakit.training.data_report import data_report


def task_of(train: dict, validation: dict) -> Task:
    return Task(
        name="files",
        train=Dataset.from_dict(train),
        validation=Dataset.from_dict(validation),
        label_names=("a", "b"),
        metric="accuracy",
    )


TASK = task_of(
    {"text": ["x", "y", "x", "z", "y", "w"], "label": [0, 1, 0, 0, 0, 1]},
    {"text": ["x", "v", "z", "z"], "label": [1, 0, 0, 1]},
)


def test_equal_inputs_are_counted():
    assert find_overlap(TASK) == Overlap(
        held_out_in_train=3,  # x, z, z
        repeated_in_train=4,  # x twice, y twice
        other_label_in_train=2,  # y
    )


def test_pair_is_equal_only_if_both_of_its_texts_are():
    task = task_of(
        {"text": ["x", "x", "y"], "text_pair": ["1", "2", "1"], "label": [0, 1, 1]},
        {"text": ["x", "y", "y"], "text_pair": ["2", "2", "1"], "label": [0, 0, 0]},
    )
    assert find_overlap(task) == Overlap(
        held_out_in_train=2, repeated_in_train=0, other_label_in_train=0
    )


def test_labels_that_were_made_noisy_are_no_contradiction():
    train = {"text": ["x"] * 10, "label": [0] * 10}
    task = with_label_noise(task_of(train, {"text": ["v"], "label": [0]}), 0.5, 0)
    assert find_overlap(task).other_label_in_train == 0


def test_what_repeats_is_recorded_and_said():
    report = data_report(TASK, {"train": 3, "generalization": 0}, max_length=16)
    assert report.meta == {
        "source": "",
        "train": 6,
        "validation": 4,
        "test": None,
        "longer_than_max_length": {"train": 3, "generalization": 0},
        "held_out_in_train": 3,
        "repeated_in_train": 4,
        "other_label_in_train": 2,
    }
    assert report.warnings == (
        "3 (75.0%) of the held-out examples are in the training data too: generalization counts "
        "what was memorised.",
        "2 (33.3%) of the training examples have a text that another one has with another label: "
        "no model can memorise them all.",
        "3 (50.0%) of the training texts are longer than `task.max_length` (16 tokens) and are "
        "cut.",
    )


def test_a_few_in_a_thousand_are_recorded_only():
    texts = [f"t{i}" for i in range(1000)]
    task = task_of(
        {"text": [*texts, texts[0]], "label": [0] * 1000 + [1]},
        {"text": [*texts[:5], *(f"v{i}" for i in range(995))], "label": [0] * 1000},
    )
    report = data_report(task, {"train": 9, "generalization": 1}, max_length=16)
    assert report.warnings == ()
    assert report.meta["held_out_in_train"] == 5
