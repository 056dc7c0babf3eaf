"""Correlations against NumPy and hand-made ranks; what is not defined is NaN."""

import csv
import gzip
import math

import numpy as np
import pytest

from t5jax.errors import DataError
from t5jax.metrics.regression import pearson_corrcoef, spearman_corrcoef


def numbers(count, seed):
    return np.random.default_rng(seed).normal(3, 2, count)


def mean_ranks(x):
    return np.array([np.mean(x < a) * len(x) + (np.sum(x == a) + 1) / 2 for a in x])


@pytest.mark.parametrize("count", [2, 7, 61])
def test_pearson_and_spearman_against_numpy(count):
    x = numbers(count, 1)
    y = np.round(x + numbers(count, 2), 0)  # with ties
    y[0] += 0.5
    pearson = 100 * np.corrcoef(x, y)[0, 1]
    spearman = 100 * np.corrcoef(mean_ranks(x), mean_ranks(y))[0, 1]
    assert pearson_corrcoef(x.tolist(), y.tolist())["pearson_corrcoef"] == pytest.approx(pearson)
    assert spearman_corrcoef(x.tolist(), y.tolist())["spearman_corrcoef"] == pytest.approx(spearman)


def test_by_hand():
    # x - 3 = -2 -1 0 1 2; y - 4 = -3 0 -1 1 3; sum xy 13, xx 10, yy 20.
    x, y = [1, 2, 3, 4, 5], [1, 4, 3, 5, 7]
    assert pearson_corrcoef(x, y)["pearson_corrcoef"] == pytest.approx(1300 / math.sqrt(200))
    # Ranks of y: 1 3 2 4 5; squared rank differences 0 1 1 0 0.
    assert spearman_corrcoef(x, y)["spearman_corrcoef"] == pytest.approx(100 * (1 - 6 * 2 / 120))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", [pearson_corrcoef, spearman_corrcoef])
def test_what_is_not_defined_is_nan_without_a_warning(metric):
    undefined = [
        ([1.0, 2.0, 4.0], [-1.0, -1.0, -1.0]),
        ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0]),
        ([1.0], [2.0]),
        ([1.0, 2.0, 4.0], [1.0, float("nan"), 2.0]),
        ([1.0, 2.0, 4.0], [1.0, float("inf"), 2.0]),
    ]
    for targets, predictions in undefined:
        (value,) = metric(targets, predictions).values()
        assert math.isnan(value)
    with pytest.raises(DataError, match=r"prediction 1 is the text '3\.8'"):
        metric([1.0, 2.0], [1.0, "3.8"])


def test_rounding_the_real_stsb_to_its_targets(real_data):
    path = real_data / "glue/STS-B/validation.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        scores = [
            float(row["score"])
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    assert len(scores) == 1344
    rounded = [float(f"{round(score * 5) / 5:.1f}") for score in scores]
    assert rounded != scores
    pearson = pearson_corrcoef(scores, rounded)["pearson_corrcoef"]
    assert pearson == pytest.approx(100 * np.corrcoef(scores, rounded)[0, 1], rel=1e-12)
    assert 99.5 < pearson < 100
    assert 99.5 < spearman_corrcoef(scores, rounded)["spearman_corrcoef"] < 100
    assert spearman_corrcoef(scores, np.exp(scores).tolist())["spearman_corrcoef"] == (
        pytest.approx(100)
    )
