import math
import re

import pytest
import torch

from sorakit.objectives import objective
from sorakit.training.evaluation import SplitResult, split_result
from sorakit.variants import OBJECTIVES

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, -1.0], [1.0, 0.0, 0.5]])
LABELS = torch.tensor([0, 1, 2])


def evaluate(
    logits: torch.Tensor = LOGITS,
    labels: torch.Tensor = LABELS,
    indices: torch.Tensor | None = None,
    *,
    name: str = "classification",
) -> SplitResult:
    return split_result(
        logits,
        labels,
        torch.arange(len(labels)) if indices is None else indices,
        objective=objective(name),
        metric="pearson" if name == "regression" else "accuracy",
        extra_metrics=("spearman",) if name == "regression" else ("f1",),
    )


def test_score_is_the_metric():
    assert evaluate().score == pytest.approx(2 / 3, abs=1e-15)


def test_extra_metrics_are_named():
    assert set(evaluate().extra) == {"f1"}


def test_loss_is_the_mean_cross_entropy_in_nats():
    rows = LOGITS.tolist()
    expected = [
        math.log(sum(map(math.exp, row))) - row[label]
        for row, label in zip(rows, LABELS.tolist(), strict=True)
    ]
    assert evaluate().loss == pytest.approx(sum(expected) / 3, rel=1e-6)


def test_loss_of_an_example_is_its_cross_entropy():
    result = evaluate()
    assert result.examples["loss"].mean() == pytest.approx(result.loss, rel=1e-6)


def test_correct_tells_whether_the_largest_logit_is_the_label():
    assert evaluate().examples["correct"].tolist() == [True, True, False]


def test_margin_is_the_label_minus_the_largest_other_logit():
    assert evaluate().examples["margin"].tolist() == [1.0, 3.0, -0.5]


def test_examples_come_in_order_of_their_index():
    order = torch.tensor([2, 0, 1])
    result = evaluate(LOGITS[order], LABELS[order], order)
    assert result.examples.equals(evaluate().examples)


def test_columns_of_examples():
    columns = ["index", "loss", "correct", "margin", "prediction", "probability"]
    for name, logits in (("classification", LOGITS), ("regression", LOGITS[:, :1])):
        labels = LABELS if name == "classification" else LABELS.float()
        assert evaluate(logits, labels, name=name).examples.columns.tolist() == columns


def test_prediction_is_the_class_with_the_largest_logit():
    assert evaluate().examples["prediction"].tolist() == [0, 1, 0]


def test_probability_is_that_of_the_label():
    result = evaluate().examples
    expected = [math.exp(-loss) for loss in result["loss"]]
    assert result["probability"].tolist() == pytest.approx(expected, rel=1e-6)


def test_prediction_of_a_regression_is_the_number():
    result = evaluate(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.0]), name="regression")
    assert result.examples["prediction"].tolist() == [1.0, 2.0]


def test_regression_loss_is_the_squared_error():
    result = evaluate(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.0]), name="regression")
    assert result.examples["loss"].tolist() == [4.0, 1.0]


def test_regression_has_no_correct_no_margin_and_no_probability():
    result = evaluate(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.0]), name="regression")
    assert result.examples[["correct", "margin", "probability"]].isna().all(axis=None)


def test_bfloat16_logits_are_scored_in_float32():
    result = evaluate(LOGITS.bfloat16())
    assert result.examples["margin"].tolist() == [1.0, 3.0, -0.5]


def test_null_loss_of_classes_is_the_entropy_of_the_labels():
    # always giving the shares of the classes
    shares = torch.tensor([0.5, 0.25, 0.25])
    labels = [0, 0, 1, 2]
    losses = objective("classification").losses(shares.log().expand(4, 3), torch.tensor(labels))
    assert objective("classification").null_loss(labels) == pytest.approx(float(losses.mean()))


def test_null_loss_of_numbers_is_their_variance():
    # always giving the mean
    labels = torch.tensor([1.0, 2.0, 6.0])
    losses = objective("regression").losses(torch.full((3, 1), 3.0), labels)
    assert objective("regression").null_loss(labels.tolist()) == pytest.approx(float(losses.mean()))


def test_null_loss_of_one_class_is_0():
    assert objective("classification").null_loss([1, 1]) == 0.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", OBJECTIVES.names)
def test_logits_that_are_not_finite_are_refused(value, name):
    logits = LOGITS.clone()
    logits[1, 0] = value
    if name == "regression":
        logits = logits[:, :1]
    message = (
        "`logits` must be finite, got NaN or infinity for 1 of 3 examples. "
        "Training diverged: lower `optim.lr`, or set `trainer.precision` to 32-true."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(logits, LABELS.float() if name == "regression" else LABELS, name=name)
