"""Evaluation metrics: T5's by their names, confidence intervals, benchmark averages, tables.

A metric is called as seqio's are: `metric(targets, predictions) -> {name: value}`, lists of one
entry per example. Values are percentages (0 to 100, correlations -100 to 100), as T5 reports them.
Empty lists and lists of different lengths raise DataError; a setting that there is not is a
ConfigError when the metric is made. Any other callable of that form is a metric too; one that
declares its units (`UnitMetric`) has confidence intervals.
"""

from t5jax.metrics.classification import (
    accuracy,
    binary_f1,
    matthews_corrcoef,
    mean_multiclass_f1,
    multiclass_f1,
)
from t5jax.metrics.question_answering import squad, trivia_qa, unicode_answers
from t5jax.metrics.regression import pearson_corrcoef, spearman_corrcoef
from t5jax.metrics.summarization import rouge
from t5jax.metrics.sums import SumMetric
from t5jax.metrics.translation import bleu, chrf, sacre_bleu
from t5jax.metrics.units import UnitMetric

__all__ = [
    "SumMetric",
    "UnitMetric",
    "accuracy",
    "binary_f1",
    "bleu",
    "chrf",
    "matthews_corrcoef",
    "mean_multiclass_f1",
    "multiclass_f1",
    "pearson_corrcoef",
    "rouge",
    "sacre_bleu",
    "spearman_corrcoef",
    "squad",
    "trivia_qa",
    "unicode_answers",
]
