"""Scores of predictions, defined for every model, collapsed ones included."""

import math

import torch
from jaxtyping import Float64, Num
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics.functional import pearson_corrcoef
from torchmetrics.functional.classification import multiclass_confusion_matrix

from sorakit.config import TaskMetric


def score(
    metric: TaskMetric,
    predictions: Num[Tensor, " examples"],
    labels: Num[Tensor, " examples"],
    *,
    num_classes: int,
) -> float:
    """Return the score of predictions, computed in float64 and never NaN.

    A collapsed model (one class, or one number, for every example) has a Matthews correlation,
    Pearson and Spearman correlation of 0. torchmetrics 1.9 differs there (`BinaryMatthewsCorrCoef`
    gives small non-zero values, https://github.com/Lightning-AI/torchmetrics/issues/3355,
    `PearsonCorrCoef` NaN), so classification scores are computed from its confusion matrix and
    constants are caught first.

    Args:
        metric: Name of the score. `f1` is the one of class 1 for two classes, and otherwise the
            mean over the classes that occur in predictions or labels.
        predictions: Class indices, or numbers for `pearson` and `spearman`.
        labels: As `predictions`.
        num_classes: Number of classes; not used by `pearson` and `spearman`.

    Returns:
        The score: in [0, 1] for `accuracy` and `f1`, in [-1, 1] otherwise.

    Raises:
        ValueError: If a prediction is NaN or infinite.
    """
    assert predictions.shape == labels.shape, (predictions.shape, labels.shape)
    assert predictions.numel() > 0
    num_invalid = int((~torch.isfinite(predictions)).sum())
    if num_invalid:
        raise ValueError(
            f"`predictions` must be finite, got {num_invalid} of {predictions.numel()} that are "
            "NaN or infinite. The model's outputs are not finite: training diverged; "
            "lower `optim.lr`."
        )
    predictions, labels = predictions.cpu(), labels.cpu()
    if metric in ("pearson", "spearman"):
        x, y = predictions.double(), labels.double()
        if _is_constant(x) or _is_constant(y):
            return 0.0
        if metric == "spearman":
            x, y = _rank(x), _rank(y)
        return float(pearson_corrcoef(_standardize(x), _standardize(y)))
    assert not predictions.is_floating_point(), "classification scores take class indices"
    confusion = multiclass_confusion_matrix(predictions, labels, num_classes).tolist()
    match metric:
        case "accuracy":
            return sum(row[k] for k, row in enumerate(confusion)) / len(labels)
        case "f1":
            return _f1(confusion)
        case "matthews_correlation":
            return _matthews_correlation(confusion)
        case _:
            raise AssertionError(f"{metric} is no score of classes or numbers")


def _f1(confusion: list[list[int]]) -> float:
    """Return F1 from counts, rows = labels, columns = predictions."""
    # a class that occurs nowhere has no F1
    scores = {
        k: 2 * row[k] / occurrences
        for k, row in enumerate(confusion)
        if (occurrences := sum(row) + sum(other[k] for other in confusion))
    }
    if len(confusion) == 2:
        return scores.get(1, 0.0)
    return sum(scores.values()) / len(scores)


def _matthews_correlation(confusion: list[list[int]]) -> float:
    """Return R_K (Gorodkin 2004) from counts, in exact integers up to the last division."""
    num_labels = [sum(row) for row in confusion]
    num_predictions = [sum(column) for column in zip(*confusion, strict=True)]
    total = sum(num_labels)
    correct = sum(row[k] for k, row in enumerate(confusion))
    covariance = correct * total - sum(
        t * p for t, p in zip(num_labels, num_predictions, strict=True)
    )
    label_variance = total**2 - sum(t**2 for t in num_labels)
    prediction_variance = total**2 - sum(p**2 for p in num_predictions)
    if label_variance == 0 or prediction_variance == 0:
        return 0.0
    return covariance / math.sqrt(label_variance * prediction_variance)


def _is_constant(values: Float64[Tensor, " examples"]) -> bool:
    """Return whether all values agree within a few roundings of float32, as models compute."""
    spread = values.max() - values.min()
    return bool(spread <= 4 * torch.finfo(torch.float32).eps * values.abs().max())


def _rank(values: Float64[Tensor, " examples"]) -> Float64[Tensor, " examples"]:
    """Return ranks from 1, ties averaged."""
    # torchmetrics' Spearman adds 1e-6 to its denominator, which shows with few examples
    return torch.from_numpy(rankdata(values.numpy())).double()


def _standardize(values: Float64[Tensor, " examples"]) -> Float64[Tensor, " examples"]:
    """Return values around 0 with a largest magnitude of 1; a correlation stays the same."""
    # below a variance of 1.5e-8 torchmetrics returns NaN
    centred = values - values.mean()
    return centred / centred.abs().max()
