"""Evaluation metrics: T5's by their names, confidence intervals, benchmark averages, tables.

A metric is called as seqio's are: `metric(targets, predictions) -> {name: value}`, lists of one
entry per example. Values are percentages (0 to 100, correlations -100 to 100), as T5 reports them.
Empty lists and lists of different lengths raise DataError.
"""

from t5jax.metrics.classification import (
    accuracy,
    binary_f1,
    matthews_corrcoef,
    mean_multiclass_f1,
)
from t5jax.metrics.question_answering import squad, trivia_qa
from t5jax.metrics.regression import pearson_corrcoef, spearman_corrcoef
from t5jax.metrics.summarization import rouge
from t5jax.metrics.sums import SumMetric
from t5jax.metrics.translation import bleu, chrf, sacre_bleu

__all__ = [
    "SumMetric",
    "accuracy",
    "binary_f1",
    "bleu",
    "chrf",
    "matthews_corrcoef",
    "mean_multiclass_f1",
    "pearson_corrcoef",
    "rouge",
    "sacre_bleu",
    "spearman_corrcoef",
    "squad",
    "trivia_qa",
]
