import math
import re

import pytest
import torch

from sorakit.training.evaluation import SplitResult, example_losses, split_result

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, -1.0], [1.0, 0.0, 0.5]])
LABELS = torch.tensor([0, 1, 2])


def evaluate(
    logits: torch.Tensor = LOGITS,
    labels: torch.Tensor = LABELS,
    indices: torch.Tensor | None = None,
    *,
    is_regression: bool = False,
) -> SplitResult:
    return split_result(
        logits,
        labels,
        torch.arange(len(labels)) if indices is None else indices,
        metric="pearson" if is_regression else "accuracy",
        extra_metrics=("spearman",) if is_regression else ("f1",),
        is_regression=is_regression,
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
    assert evaluate().examples.columns.tolist() == ["index", "loss", "correct", "margin"]


def test_regression_loss_is_the_squared_error():
    result = evaluate(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.0]), is_regression=True)
    assert result.examples["loss"].tolist() == [4.0, 1.0]


def test_regression_has_no_correct_and_no_margin():
    result = evaluate(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.0]), is_regression=True)
    assert result.examples[["correct", "margin"]].isna().all(axis=None)


def test_bfloat16_logits_are_scored_in_float32():
    result = evaluate(LOGITS.bfloat16())
    assert result.examples["margin"].tolist() == [1.0, 3.0, -0.5]


def test_example_losses_have_one_entry_an_example():
    assert example_losses(LOGITS, LABELS, is_regression=False).shape == (3,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("is_regression", [False, True])
def test_logits_that_are_not_finite_are_refused(value, is_regression):
    logits = LOGITS.clone()
    logits[1, 0] = value
    if is_regression:
        logits = logits[:, :1]
    message = (
        "`logits` must be finite, got NaN or infinity for 1 of 3 examples. "
        "Training diverged: lower `optim.lr`, or set `trainer.precision` to 32-true."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        evaluate(logits, LABELS.float() if is_regression else LABELS, is_regression=is_regression)
