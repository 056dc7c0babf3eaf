"""Pearson and Spearman correlation, in percent (STS-B).

Where a correlation is not defined (a constant side, fewer than two examples, a value that is not
finite) it is NaN, as in SciPy and T5.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from t5jax.errors import DataError
from t5jax.metrics.sums import check_pairs


def pearson_corrcoef(targets: Sequence, predictions: Sequence) -> dict[str, float]:
    """{"pearson_corrcoef": 100 r} of numbers; NaN where r is not defined."""
    from scipy.stats import pearsonr

    return {"pearson_corrcoef": _correlation(pearsonr, targets, predictions)}


def spearman_corrcoef(targets: Sequence, predictions: Sequence) -> dict[str, float]:
    """{"spearman_corrcoef": 100 rho} of numbers, ties by mean rank; NaN where it is not defined."""
    from scipy.stats import spearmanr

    return {"spearman_corrcoef": _correlation(spearmanr, targets, predictions)}


def _correlation(function, targets: Sequence, predictions: Sequence) -> float:
    check_pairs(targets, predictions)
    x_N, y_N = _numbers(targets, "target"), _numbers(predictions, "prediction")
    if len(x_N) < 2 or not (np.isfinite(x_N).all() and np.isfinite(y_N).all()):
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant values, whose correlation is NaN
        return 100.0 * float(function(x_N, y_N)[0])


def _numbers(values: Sequence, what: str) -> np.ndarray:
    for i, value in enumerate(values):
        if isinstance(value, str):
            raise DataError(f"{what} {i} is the text {value!r}: postprocess must return a number")
    return np.asarray(values, np.float64)
