"""Choosing by likelihood: with and without length, ties."""

import numpy as np
import pytest

from t5jax.errors import DataError
from t5jax.metrics.classification import mean_multiclass_f1
from t5jax.metrics.confidence import with_confidence
from t5jax.metrics.rank_classification import choose

SCORES = [[-4.0, -3.0, -9.0], [-2.0, -2.0, -2.5], [-8.0, -6.0, -6.5], [-1.0, -3.0, -0.5]]
LENGTHS = [[4, 1, 3], [1, 2, 2], [2, 3, 5], [1, 4, 1]]


def test_choices_by_hand():
    assert choose(SCORES) == [1, 0, 1, 2]  # the first of equals
    # Per token: -1 -3 -3, -2 -1 -1.25, -4 -2 -1.3, -1 -0.75 -0.5.
    assert choose(SCORES, LENGTHS) == [0, 1, 2, 2]
    assert choose([[-1.0], [-2.0, float("-inf")]]) == [0, 0]


def test_the_choices_go_to_any_metric():
    scores = np.random.default_rng(3).normal(size=(97, 3)).tolist()
    correct = np.random.default_rng(4).integers(0, 3, 97).tolist()
    metric = mean_multiclass_f1(3)
    estimate = with_confidence(metric, correct, choose(scores))["mean_3class_f1"]
    assert estimate.value == metric(correct, np.argmax(scores, axis=1).tolist())["mean_3class_f1"]
    assert estimate.low < estimate.value < estimate.high


def test_what_cannot_be_ranked_is_refused():
    for scores, lengths, words in (
        ([[-1.0], []], None, r"example 1 has the scores \[\]"),
        ([[-1.0, float("nan")]], None, "example 0 has the scores"),
        ([[-1.0, -2.0]], [[3]], r"2 scores and the lengths \[3\]"),
        ([[-1.0, -2.0]], [[3, 0]], "wanted one of at least 1 for each"),
        ([[-1.0]], [[1], [1]], "scores of 1 examples but lengths of 2"),
    ):
        with pytest.raises(DataError, match=words):
            choose(scores, lengths)
