"""What all metrics share: how they are called, and what they refuse."""

import copy
import inspect
import pickle

import numpy as np
import pytest

from t5jax.errors import DataError
from t5jax.metrics.classification import accuracy, f1, matthews_corrcoef, mean_multiclass_f1
from t5jax.metrics.grouped import group_exact_match, multirc_f1, record
from t5jax.metrics.question_answering import span_squad, squad, trivia_qa
from t5jax.metrics.regression import pearson_corrcoef, spearman_corrcoef
from t5jax.metrics.summarization import rouge
from t5jax.metrics.sums import SumMetric, percentages
from t5jax.metrics.translation import bleu, chrf

ANSWERED = {"value": ["mint"], "group": 3}
METRICS = {
    "accuracy": (accuracy, 1, 1),
    "f1": (f1, 1, 1),
    "matthews": (matthews_corrcoef, 1, 1),
    "macro f1": (mean_multiclass_f1(3), 2, 2),
    "pearson": (pearson_corrcoef, 1.5, 1.5),
    "spearman": (spearman_corrcoef, 1.5, 1.5),
    "squad": (squad, ["mint"], "mint"),
    "span squad": (span_squad, {"answers": ["mint"], "context": "mint"}, "start: 0 end: 0"),
    "trivia_qa": (trivia_qa, ["mint"], "mint"),
    "multirc": (multirc_f1, {"value": 1, "group": 3}, {"value": 1}),
    "group match": (group_exact_match, {"value": 1, "group": 3}, {"value": 1}),
    "record": (record, ANSWERED, {"value": "mint"}),
    "bleu": (bleu, "mint", "mint"),
    "chrf": (chrf, "mint", "mint"),
    "rouge": (rouge, "mint", "mint"),
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_called_as_seqios_are(name):
    metric, target, prediction = METRICS[name]
    parameters = inspect.signature(metric).parameters.values()
    assert [p.name for p in parameters if p.default is p.empty] == ["targets", "predictions"]
    scores = metric([target] * 3, [prediction] * 3)
    assert scores
    assert all(type(value) is float for value in scores.values())
    again = pickle.loads(pickle.dumps(copy.deepcopy(metric)))
    np.testing.assert_equal(again([target] * 3, [prediction] * 3), scores)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_refuses_lists_that_do_not_fit(name):
    metric, target, prediction = METRICS[name]
    with pytest.raises(DataError, match="no examples to score"):
        metric([], [])
    with pytest.raises(DataError, match="5 targets but 4 predictions"):
        metric([target] * 5, [prediction] * 4)


def test_values_are_those_of_the_sums():
    metric = SumMetric(
        names=("a", "b"),
        statistics=lambda targets, predictions: np.array(
            [[t, p, 1] for t, p in zip(targets, predictions, strict=True)], float
        ),
        score=percentages,
    )
    assert metric([1, 0, 1, 1, 0], [0, 0, 1, 0, 0]) == {"a": 60.0, "b": 20.0}
    assert metric([1], [0]) == {"a": 100.0, "b": 0.0}
    assert metric.values(np.array([3.0, 1.0, 4.0])) == {"a": 75.0, "b": 25.0}


@pytest.mark.parametrize("metric", [bleu, chrf, rouge, squad, trivia_qa])
def test_predictions_and_targets_of_the_wrong_type_are_named(metric):
    with pytest.raises(DataError, match="prediction 1 is None, not a string"):
        metric(["a", "b"], ["a", None])
    with pytest.raises(DataError, match="target 1 has no answers"):
        metric([["a"], []], ["a", "b"])
    with pytest.raises(DataError, match="target 0, answer 1 is 7, not a string"):
        metric([["a", 7], ["b"]], ["a", "b"])


@pytest.mark.parametrize(("metric", "value"), [(group_exact_match, 1), (record, ["mint"])])
def test_grouped_metrics_name_the_entry_without_its_key(metric, value):
    whole, part = {"value": value, "group": 3}, {"value": value}
    with pytest.raises(DataError, match=r"target 1 is .*expected a dict with 'group'"):
        metric([whole, part], [part, part])
    with pytest.raises(DataError, match=r"prediction 0 is 'a': expected a dict with 'value'"):
        metric([whole, whole], ["a", part])
