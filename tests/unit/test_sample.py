from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from sorakit.config import TaskConfig
from sorakit.tasks import load_task
from sorakit.tasks.base import Task
from sorakit.tasks.sample import stratified_sample, with_train_examples, with_train_halves


def task_of(labels: list, *, label_names: tuple[str, ...] = ("a", "b", "c")) -> Task:
    train = Dataset.from_dict({"text": [f"t{i}" for i in range(len(labels))], "label": labels})
    return Task(
        name="files", train=train, validation=train, label_names=label_names, metric="accuracy"
    )


@st.composite
def classes_and_counts(draw) -> tuple[np.ndarray, int, int]:
    classes = np.asarray(draw(st.lists(st.integers(0, 4), min_size=2, max_size=60)))
    least = len(np.unique(classes))
    small = draw(st.integers(least, len(classes)))
    return classes, small, draw(st.integers(small, len(classes)))


@given(classes_and_counts())
def test_smaller_sample_is_part_of_a_larger_one(drawn):
    classes, small, large = drawn
    few, many = stratified_sample(classes, small), stratified_sample(classes, large)
    assert len(few) == small
    assert set(few) <= set(many)


@given(classes_and_counts())
def test_sample_is_ascending_and_has_every_class(drawn):
    classes, small, _ = drawn
    sample = stratified_sample(classes, small)
    assert (np.diff(sample) > 0).all()
    assert set(classes[sample]) == set(classes)


def test_sample_keeps_the_share_of_every_class():
    classes = np.repeat([0, 1, 2], [700, 200, 100])
    assert Counter(classes[stratified_sample(classes, 50)].tolist()) == {0: 35, 1: 10, 2: 5}


def test_sample_is_spread_over_the_examples_of_a_class():
    sample = stratified_sample(np.zeros(1000, dtype=int), 100)
    assert 400 < sample.mean() < 600


def test_rarest_class_keeps_one_example():
    classes = np.repeat([0, 1], [999, 1])
    assert 999 in stratified_sample(classes, 2)


def test_numbers_are_drawn_without_classes():
    task = task_of([i / 10 for i in range(30)], label_names=())
    assert len(with_train_examples(task, 3).train) == 3


def test_all_are_kept_if_there_are_fewer():
    task = task_of([0, 1, 2])
    assert with_train_examples(task, 3) is task
    assert with_train_examples(task, 9) is task


def test_sample_smaller_than_the_classes_is_an_error():
    with pytest.raises(ValueError, match=r"^`task\.train_examples`") as caught:
        with_train_examples(task_of([0, 1, 2, 0]), 2)
    assert str(caught.value) == (
        "`task.train_examples` must be at least the number of classes of the training data (3), "
        "got 2."
    )


def load(folder: Path, *, seed: int, **keys) -> Task:
    for name in ("train", "dev"):
        table = {"text": [f"text {i}" for i in range(40)], "label": [i % 2 for i in range(40)]}
        pd.DataFrame(table).to_csv(folder / f"{name}.csv", index=False)
    files = {"data_dir": str(folder), "train_file": "train.csv", "validation_file": "dev.csv"}
    return load_task(TaskConfig(name="files", **files, **keys), seed=seed)


def test_every_seed_trains_on_the_same_sample(tmp_path):
    texts = [load(tmp_path, seed=seed, train_examples=10).train["text"][:] for seed in (0, 1)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 10


def test_label_noise_is_drawn_within_the_sample(tmp_path):
    task = load(tmp_path, seed=0, train_examples=10, label_noise=0.5)
    assert sum(task.train["is_noisy"][:]) == 5


def test_held_out_examples_are_all_kept(tmp_path):
    assert len(load(tmp_path, seed=0, train_examples=10).validation) == 40


def test_sample_must_not_be_empty():
    with pytest.raises(ValueError, match=r"^`task\.train_examples` must be >= 1 or null, got 0\.$"):
        TaskConfig(train_examples=0)


def test_train_halves_are_disjoint_stratified_and_all_that_is_left():
    train = Dataset.from_dict(
        {"text": [f"t{k}" for k in range(21)], "label": [int(k % 3 == 0) for k in range(21)]}
    )
    held_out = Dataset.from_dict({"text": ["official"], "label": [0]})
    task = Task(
        name="x",
        train=train,
        validation=held_out,
        test=held_out,
        label_names=("a", "b"),
        metric="accuracy",
    )
    halves = with_train_halves(task)
    texts = [set(split["text"][:]) for split in (halves.train, halves.validation)]
    assert not texts[0] & texts[1]
    assert texts[0] | texts[1] == set(train["text"][:])
    assert (len(halves.train), sum(halves.train["label"][:]), halves.test) == (11, 4, None)
