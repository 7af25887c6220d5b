import pytest
import torch

from sorakit.scores import score

METRICS = ["accuracy", "f1", "matthews_correlation", "pearson", "spearman"]


def test_accuracy_is_the_share_of_hits():
    value = score(
        "accuracy", torch.tensor([0, 1, 2, 2, 1]), torch.tensor([0, 1, 2, 0, 2]), num_classes=3
    )
    assert value == 0.6


def test_accuracy_is_exact_in_float64():
    labels = torch.zeros(1000, dtype=torch.long)
    predictions = (torch.arange(1000) >= 803).long()
    assert score("accuracy", predictions, labels, num_classes=2) == 0.803


def test_f1_of_two_classes_is_the_one_of_class_1():
    # true positives 1, false positives 2, false negatives 1
    value = score("f1", torch.tensor([1, 1, 1, 0, 0]), torch.tensor([1, 0, 0, 1, 0]), num_classes=2)
    assert value == 0.4


@pytest.mark.parametrize("label", [0, 1])
def test_f1_without_a_predicted_positive_is_0(label):
    zeros = torch.zeros(4, dtype=torch.long)
    assert score("f1", zeros, torch.full((4,), label), num_classes=2) == 0.0


def test_f1_of_more_classes_is_the_mean_over_those_that_occur():
    # class 0: 1, class 1: 2/3, class 2: 0, class 3 occurs nowhere
    value = score("f1", torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]), num_classes=4)
    assert value == pytest.approx((1 + 2 / 3 + 0) / 3, abs=1e-15)


def test_matthews_correlation_of_two_classes():
    # (TP TN - FP FN) / sqrt(...) with TP 2, TN 1, FP 1, FN 1
    value = score(
        "matthews_correlation",
        torch.tensor([1, 1, 1, 0, 0]),
        torch.tensor([1, 1, 0, 0, 1]),
        num_classes=2,
    )
    assert value == pytest.approx((2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5, abs=1e-15)


@pytest.mark.parametrize("predicted", [0, 1])
def test_matthews_correlation_of_a_collapsed_model_is_0(predicted):
    # CoLA's validation split, where torchmetrics 1.9 gives +-0.0256
    # https://github.com/Lightning-AI/torchmetrics/issues/3355
    labels = torch.tensor([1] * 721 + [0] * 322)
    value = score("matthews_correlation", torch.full((1043,), predicted), labels, num_classes=2)
    assert value == 0.0


@pytest.mark.parametrize("label", [0, 1])
def test_matthews_correlation_with_one_true_class_is_0(label):
    value = score(
        "matthews_correlation", torch.tensor([0, 1, 1]), torch.full((3,), label), num_classes=2
    )
    assert value == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlation_of_a_constant_prediction_is_0(metric):
    value = score(metric, torch.full((3,), 2.5), torch.tensor([0.0, 1.0, 5.0]), num_classes=1)
    assert value == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlation_with_a_constant_label_is_0(metric):
    value = score(metric, torch.tensor([0.0, 1.0, 5.0]), torch.full((3,), 2.5), num_classes=1)
    assert value == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlation_of_rounding_noise_around_a_constant_is_0(metric):
    predictions = torch.tensor([2.5, 2.5 + 2**-22, 2.5 + 2**-22])
    value = score(metric, predictions, torch.tensor([0.0, 1.0, 5.0]), num_classes=1)
    assert value == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlation_of_a_narrow_prediction_is_not_0(metric):
    # a variance far below the bound under which torchmetrics returns NaN
    predictions = torch.tensor([0.0, 1e-9, 2e-9])
    value = score(metric, predictions, torch.tensor([0.0, 1.0, 2.0]), num_classes=1)
    assert value == pytest.approx(1.0, abs=1e-12)


def test_spearman_sees_only_the_order():
    value = score(
        "spearman",
        torch.tensor([1.0, 2.0, 3.0, 4.0]),
        torch.tensor([1.0, 10.0, 100.0, 1000.0]),
        num_classes=1,
    )
    assert value == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_prediction_that_is_not_finite_is_an_error(metric, bad):
    with pytest.raises(
        ValueError,
        match=(
            r"^`predictions` must be finite, got 1 of 2 that are NaN or infinite\. "
            r"The model's outputs are not finite: training diverged; lower `optim\.lr`\.$"
        ),
    ):
        score(metric, torch.tensor([bad, 1.0]), torch.tensor([0.0, 1.0]), num_classes=2)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_bfloat16_predictions_are_scored_in_float64(metric):
    predictions = torch.tensor([0.5, 1.5, 1.0], dtype=torch.bfloat16)
    value = score(metric, predictions, torch.tensor([0.5, 1.5, 1.0]), num_classes=1)
    assert value == pytest.approx(1.0, abs=1e-15)
