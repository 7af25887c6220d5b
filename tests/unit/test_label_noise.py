import numpy as np
import pytest
from datasets import Dataset

from sorakit.tasks.base import Task
from sorakit.tasks.label_noise import with_label_noise, with_shuffled_labels
from sorakit.tasks.memorization import memorization_indices


def make_task(labels: list, label_names: tuple[str, ...]) -> Task:
    examples = Dataset.from_dict(
        {"text": [f"text {k}" for k in range(len(labels))], "label": labels}
    )
    return Task(
        name="t",
        train=examples,
        validation=examples,
        label_names=label_names,
        metric="accuracy" if label_names else "pearson",
    )


CLASSES = make_task([k % 3 for k in range(30)], ("a", "b", "c"))
NUMBERS = make_task([k / 2 for k in range(30)], ())


def labels_of(task: Task) -> np.ndarray:
    return np.asarray(task.train["label"])


def noisy(task: Task) -> np.ndarray:
    return np.asarray(task.train["is_noisy"])


@pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_no_noise_keeps_the_labels(task):
    assert (labels_of(with_label_noise(task, 0.0, 1)) == labels_of(task)).all()


def test_no_noise_marks_nothing():
    assert not noisy(with_label_noise(CLASSES, 0.0, 1)).any()


@pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=["classes", "numbers"])
@pytest.mark.parametrize(("share", "count"), [(0.1, 3), (0.25, 8), (0.4, 12), (1.0, 30)])
def test_exactly_the_share_is_marked(task, share, count):
    assert noisy(with_label_noise(task, share, 1)).sum() == count


@pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_a_label_changes_where_it_is_marked_and_only_there(task):
    result = with_label_noise(task, 0.4, 1)
    assert ((labels_of(result) != labels_of(task)) == noisy(result)).all()


def test_every_class_has_its_share_of_the_noise():
    task = make_task([0] * 60 + [1] * 30 + [2] * 10, ("a", "b", "c"))
    result = with_label_noise(task, 0.1, 5)
    assert np.bincount(labels_of(task)[noisy(result)]).tolist() == [6, 3, 1]


def test_more_noise_keeps_the_noise_that_there_was():
    few, many = (noisy(with_label_noise(CLASSES, share, 3)) for share in (0.2, 0.5))
    assert (few <= many).all()


def test_labels_before_the_noise_are_kept():
    result = with_label_noise(CLASSES, 0.4, 7)
    assert result.train["clean_label"] == CLASSES.train["label"]
    assert "clean_label" not in with_label_noise(CLASSES, 0.0, 7).train.column_names


def test_noisy_classes_are_valid_classes():
    assert set(labels_of(with_label_noise(CLASSES, 1.0, 1))) == {0, 1, 2}


def test_other_classes_are_equally_likely():
    task = make_task([0] * 6000, ("a", "b", "c"))
    counts = np.bincount(labels_of(with_label_noise(task, 1.0, 1)), minlength=3)
    # 3000 each, standard deviation 39
    assert counts[0] == 0
    assert abs(counts[1] - 3000) < 160


def test_noise_of_a_regression_keeps_the_distribution():
    result = with_label_noise(NUMBERS, 0.4, 1)
    assert sorted(labels_of(result)) == sorted(labels_of(NUMBERS))


def test_same_seed_gives_the_same_noise():
    first, second = (with_label_noise(CLASSES, 0.4, 7) for _ in range(2))
    assert (labels_of(first) == labels_of(second)).all()


def test_other_seed_gives_other_noise():
    first, second = (with_label_noise(CLASSES, 0.4, seed) for seed in (7, 8))
    assert (noisy(first) != noisy(second)).any()


def test_validation_is_left_alone():
    assert with_label_noise(CLASSES, 1.0, 1).validation is CLASSES.validation


def test_texts_stay_in_order():
    assert with_label_noise(CLASSES, 1.0, 1).train["text"][:] == CLASSES.train["text"][:]


@pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_type_of_the_labels_stays(task):
    result = with_label_noise(task, 0.4, 1)
    assert result.train.features["label"] == task.train.features["label"]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_outside_the_unit_interval_is_an_error(share):
    with pytest.raises(ValueError, match=rf"^`share` must be in \[0, 1\], got {share}\.$"):
        with_label_noise(CLASSES, share, 1)


def test_memorization_sample_is_the_same_every_time():
    # sorted numpy.random.default_rng(42).choice(100, 5, replace=False)
    assert memorization_indices(100, 5) == [8, 43, 64, 75, 99]


def test_memorization_sample_has_distinct_ascending_indices():
    sample = memorization_indices(5000, 1000)
    assert len(sample) == 1000
    assert sample == sorted(set(sample))


def test_memorization_sample_is_everything_when_there_are_fewer():
    assert memorization_indices(7, 1000) == list(range(7))


# Shuffled labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("task", [CLASSES, NUMBERS], ids=["classes", "numbers"])
def test_shuffled_labels_are_a_permutation(task):
    shuffled = with_shuffled_labels(task, 1)
    assert sorted(labels_of(shuffled)) == sorted(labels_of(task))
    assert (labels_of(shuffled) != labels_of(task)).sum() > 10


def test_shuffling_marks_what_it_changed():
    shuffled = with_shuffled_labels(CLASSES, 1)
    assert (noisy(shuffled) == (labels_of(shuffled) != labels_of(CLASSES))).all()


def test_shuffling_keeps_what_was_noisy():
    before = with_label_noise(CLASSES, 0.25, 1)
    assert noisy(with_shuffled_labels(before, 2))[noisy(before)].all()


def test_shuffling_leaves_held_out_labels():
    assert with_shuffled_labels(CLASSES, 1).validation is CLASSES.validation


def test_shuffling_depends_on_the_seed():
    one, other = (labels_of(with_shuffled_labels(CLASSES, seed)) for seed in (1, 2))
    assert (one != other).any()
