"""The majority-class baseline against what it is by counting."""

import pytest

from t5jax.metrics.classification import (
    accuracy,
    binary_f1,
    matthews_corrcoef,
    mean_multiclass_f1,
)
from t5jax.metrics.majority import majority_baseline
from t5jax.metrics.translation import bleu


def test_values_by_counting():
    targets = [1, 1, 1, 0]
    assert majority_baseline(accuracy, targets) == {"accuracy": 75.0}
    # precision 3/4, recall 1
    assert majority_baseline(binary_f1(), targets)["f1"] == pytest.approx(100 * 6 / 7)
    assert majority_baseline(matthews_corrcoef, targets) == {"matthews_corrcoef": 0.0}
    three = majority_baseline(mean_multiclass_f1(3), [2, 2, 0, 1])
    assert three["mean_3class_f1"] == pytest.approx(100 * (2 / 3) / 3)


def test_of_equally_frequent_classes_the_first_counts():
    assert majority_baseline(binary_f1("yes", "no"), ["no", "yes"]) == {"f1": 0.0}


def test_none_without_classes():
    assert majority_baseline(bleu, ["a b c d", "a b c d"]) == {}
    assert majority_baseline(lambda targets, predictions: {"accuracy": 1.0}, [1]) == {}
    assert majority_baseline(accuracy, [["a", "list"], ["of", "answers"]]) == {}
