from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from sorakit.scores import score

ZERO_DIVISION: Any = 0  # scikit-learn's own type is the text of its default, "warn"


@st.composite
def classifications(draw, min_classes: int = 2, max_classes: int = 5):
    num_classes = draw(st.integers(min_classes, max_classes))
    num_examples = draw(st.integers(1, 40))
    indices = st.lists(
        st.integers(0, num_classes - 1), min_size=num_examples, max_size=num_examples
    )
    return draw(indices), draw(indices), num_classes


# multiples of 1/8, so that ties occur and float32 holds every value exactly
NUMBERS = st.integers(-80, 80).map(lambda k: k / 8)


@st.composite
def regressions(draw):
    num_examples = draw(st.integers(2, 40))
    numbers = st.lists(NUMBERS, min_size=num_examples, max_size=num_examples)
    return draw(numbers), draw(numbers)


@given(classifications())
def test_accuracy_agrees_with_scikit_learn(case):
    predictions, labels, num_classes = case
    value = score(
        "accuracy", torch.tensor(predictions), torch.tensor(labels), num_classes=num_classes
    )
    assert value == pytest.approx(oracle.accuracy_score(labels, predictions), abs=1e-15)


@given(classifications(max_classes=2))
def test_binary_f1_agrees_with_scikit_learn(case):
    predictions, labels, _ = case
    value = score("f1", torch.tensor(predictions), torch.tensor(labels), num_classes=2)
    expected = oracle.f1_score(labels, predictions, zero_division=ZERO_DIVISION)
    assert value == pytest.approx(expected, abs=1e-14)


@given(classifications(min_classes=3))
def test_macro_f1_agrees_with_scikit_learn(case):
    predictions, labels, num_classes = case
    value = score("f1", torch.tensor(predictions), torch.tensor(labels), num_classes=num_classes)
    expected = oracle.f1_score(labels, predictions, average="macro", zero_division=ZERO_DIVISION)
    assert value == pytest.approx(expected, abs=1e-14)


@given(classifications())
def test_matthews_correlation_agrees_with_scikit_learn(case):
    predictions, labels, num_classes = case
    assume(len(set(predictions)) > 1)
    assume(len(set(labels)) > 1)
    value = score(
        "matthews_correlation",
        torch.tensor(predictions),
        torch.tensor(labels),
        num_classes=num_classes,
    )
    assert value == pytest.approx(oracle.matthews_corrcoef(labels, predictions), abs=1e-12)


@given(classifications(), st.data())
def test_matthews_correlation_of_a_collapsed_model_is_exactly_0(case, data):
    _, labels, num_classes = case
    predicted = data.draw(st.integers(0, num_classes - 1))
    value = score(
        "matthews_correlation",
        torch.full((len(labels),), predicted),
        torch.tensor(labels),
        num_classes=num_classes,
    )
    assert value == 0.0


@given(regressions())
def test_pearson_agrees_with_scipy(case):
    predictions, labels = case
    assume(np.ptp(predictions) > 0)
    assume(np.ptp(labels) > 0)
    value = score("pearson", torch.tensor(predictions), torch.tensor(labels), num_classes=1)
    assert value == pytest.approx(stats.pearsonr(predictions, labels).statistic, abs=1e-12)


@given(regressions())
def test_spearman_agrees_with_scipy(case):
    predictions, labels = case
    assume(np.ptp(predictions) > 0)
    assume(np.ptp(labels) > 0)
    value = score("spearman", torch.tensor(predictions), torch.tensor(labels), num_classes=1)
    assert value == pytest.approx(stats.spearmanr(predictions, labels).statistic, abs=1e-12)


@given(st.sampled_from(["pearson", "spearman"]), NUMBERS, st.lists(NUMBERS, min_size=1))
def test_correlation_of_a_collapsed_model_is_exactly_0(metric, constant, labels):
    predictions = torch.full((len(labels),), constant)
    assert score(metric, predictions, torch.tensor(labels), num_classes=1) == 0.0


@given(
    st.sampled_from(["pearson", "spearman"]),
    st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2), min_size=1, max_size=40),
)
def test_correlation_is_never_nan(metric, pairs):
    predictions, labels = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert -1 <= score(metric, predictions, labels, num_classes=1) <= 1
