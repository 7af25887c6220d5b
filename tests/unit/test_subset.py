"""Subsets and planted copies: who is trained on, who is left out, and how a record says so."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from sorakit.cli import main
from sorakit.config import RunConfig, TaskConfig
from sorakit.records import load_run, run_id
from sorakit.tasks import load_task
from sorakit.tasks.base import Task
from sorakit.tasks.duplicates import with_duplicates
from sorakit.tasks.subset import with_subset
from sorakit.training.inputs import data_fingerprint
from sorakit.training.run import run
from tests.support.tiny_hub import tiny_run, write_task


def task_of(labels: list[int]) -> Task:
    train = Dataset.from_dict({"text": [f"t{i}" for i in range(len(labels))], "label": labels})
    return Task(
        name="files", train=train, validation=train, label_names=("a", "b"), metric="accuracy"
    )


TASK = task_of([k % 2 for k in range(40)])


def texts(split: Dataset | None) -> list[str]:
    assert split is not None
    return list(split["text"])


# Subsets ------------------------------------------------------------------------------------


def test_without_a_fraction_the_task_stays():
    assert with_subset(TASK, None, 0) is TASK


def test_subset_and_what_it_leaves_out_are_the_whole_pool():
    task = with_subset(TASK, 0.7, 1)
    assert (len(task.train), len(texts(task.left_out))) == (28, 12)
    assert sorted([*texts(task.train), *texts(task.left_out)]) == sorted(texts(TASK.train))


def test_pool_index_is_the_position_before_the_draw():
    task = with_subset(TASK, 0.7, 1)
    for split in (task.train, task.left_out):
        assert split is not None
        assert [f"t{index}" for index in split["pool_index"]] == texts(split)


def test_subset_keeps_the_share_of_every_class():
    assert Counter(with_subset(TASK, 0.7, 3).train["label"]) == {0: 14, 1: 14}


def test_every_example_is_as_often_in_a_subset_as_any_other():
    inside = Counter(
        index for seed in range(300) for index in with_subset(TASK, 0.7, seed).train["pool_index"]
    )
    # 210 of 300, standard deviation 7.9
    assert min(inside.values()) > 175
    assert max(inside.values()) < 245


@pytest.mark.parametrize("fraction", [0.01, 0.999])
def test_subset_of_nothing_or_of_all_is_an_error(fraction):
    message = (
        r"^`task\.subset_fraction` must keep at least the number of classes \(2\) and leave one "
        rf"example out, got {fraction} of 40 examples\.$"
    )
    with pytest.raises(ValueError, match=message):
        with_subset(TASK, fraction, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_fraction_outside_the_open_unit_interval_is_an_error(fraction):
    with pytest.raises(ValueError, match=r"^`task\.subset_fraction` must be in \(0, 1\) or null"):
        TaskConfig(subset_fraction=fraction)


def test_seed_of_no_subset_is_an_error():
    with pytest.raises(ValueError, match=r"^`task\.subset_seed` must be null unless"):
        TaskConfig(subset_seed=1)


# Copies -------------------------------------------------------------------------------------


def test_copies_stand_behind_the_others_and_all_are_counted():
    task = with_duplicates(TASK, 4)
    assert len(task.train) == 44
    twice = Counter(texts(task.train))
    assert [twice[text] for text in texts(task.train)] == list(task.train["copies"])
    assert sorted(Counter(task.train["copies"]).items()) == [(1, 36), (2, 8)]


@pytest.mark.parametrize("count", [1, 41])
def test_copies_of_too_few_or_of_more_than_there_are_is_an_error(count):
    with pytest.raises(ValueError, match=rf"^`task\.duplicate_examples` must be .*, got {count}\."):
        with_duplicates(TASK, count)


# Together -----------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> TaskConfig:
    folder = write_task(tmp_path / "task")
    return TaskConfig(
        name="files",
        data_dir=str(folder),
        train_file="train.csv",
        validation_file="validation.csv",
        label_noise=0.2,
        duplicate_examples=8,
        subset_fraction=0.5,
        subset_seed=0,
    )


def test_noise_is_the_same_in_every_subset_of_a_seed(config):
    found: dict[int, bool] = {}
    for subset_seed in range(6):
        task = load_task(replace(config, subset_seed=subset_seed), seed=0)
        for split in (task.train, task.left_out):
            assert split is not None
            for index, flag in zip(split["pool_index"], split["is_noisy"], strict=True):
                assert found.setdefault(index, flag) == flag
    assert np.mean(list(found.values())) == pytest.approx(0.2, abs=0.01)


def test_who_is_noisy_says_nothing_of_who_is_left_out(config):
    shares = [
        np.mean(load_task(replace(config, subset_seed=seed), seed=0).train["is_noisy"])
        for seed in range(12)
    ]
    assert np.mean(shares) == pytest.approx(0.2, abs=0.05)


def test_subset_without_a_seed_of_its_own_is_drawn_with_that_of_the_run(config):
    drawn = replace(config, subset_seed=None)
    assert load_task(drawn, seed=5).train["pool_index"] == load_task(
        replace(config, subset_seed=5), seed=5
    ).train["pool_index"]  # fmt: skip


def test_new_options_at_null_rename_no_run():
    plain, drawn = (
        RunConfig(task=TaskConfig(name="pydoc_order", subset_fraction=fraction))
        for fraction in (None, 0.7)
    )
    assert run_id(plain) != run_id(drawn)
    assert run_id(plain) == "8e1fa2a5ec0b"  # as before they came


def test_fingerprint_does_not_count_the_clean_labels():
    noisy = TASK.train.add_column("is_noisy", [False] * 40)
    with_clean = replace(TASK, train=noisy.add_column("clean_label", TASK.train["label"]))
    assert data_fingerprint(with_clean) == data_fingerprint(replace(TASK, train=noisy))


def test_record_says_of_every_example_of_the_pool_what_became_of_it(tmp_path):
    section = {"subset_fraction": 0.5, "duplicate_examples": 4, "label_noise": 0.25}
    sections = {"task": section, "dense": {"max_epochs": 1}}
    config = tiny_run(tmp_path, levels=(4.0,), sections=sections)
    examples = load_run(run(config, show_progress=False).path).examples()
    task = load_task(config.task, seed=config.seed)
    dense = examples[examples["stage"] == 0]
    trained, left_out = (
        dense[dense["split"] == name].set_index("index") for name in ("memorization", "left_out")
    )
    assert set(trained.index) <= set(task.train["pool_index"])
    assert task.left_out is not None
    assert sorted(left_out.index) == sorted(task.left_out["pool_index"])
    for split, table in ((task.train, trained), (task.left_out, left_out)):
        of = split.to_pandas().set_index("pool_index").loc[table.index]  # pyright: ignore[reportAttributeAccessIssue]  # a frame
        assert (of["is_noisy"] == table["is_noisy"]).all()
        assert (of["clean_label"] == table["clean_label"]).all()
        assert (of["copies"] == table["copies"]).all()
        assert ((table["prediction"] == of["label"]) == table["correct"]).all()
    held_out = dense[dense["split"] == "generalization"]
    assert held_out["clean_label"].isna().all()
    assert not held_out["is_noisy"].any()


def test_texts_are_found_again_by_the_index_of_the_record(tmp_path):
    section = {"subset_fraction": 0.5, "label_noise": 0.25}
    sections = {"task": section, "dense": {"max_epochs": 1}}
    result = load_run(
        run(tiny_run(tmp_path, levels=(4.0,), sections=sections), show_progress=False).path
    )
    out = tmp_path / "texts.csv"
    with pytest.raises(SystemExit) as stopped:
        main(["texts", str(result.path), "--out", str(out)])
    assert stopped.value.code == 0
    texts = pd.read_csv(out).set_index(["split", "index"])
    dense = result.examples().query("stage == 0")
    assert len(texts) == len(dense)
    for row in dense[dense["correct"].astype(bool)].to_dict("records"):
        label = texts.loc[(row["split"], row["index"]), "label"]
        assert label == sorted(set(texts["label"]))[row["prediction"]]
