"""The metrics of a task by what they are given, and what is refused before anything is read."""

import dataclasses

import numpy as np
import pytest

from t5jax.data.registry import find_task
from t5jax.errors import ConfigError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.examples import load_task_examples
from t5jax.evaluation.predictions import TaskPrediction
from t5jax.evaluation.scores import benchmark_averages, score_predictions
from t5jax.evaluation.task_metrics import metrics_of
from t5jax.metrics.classification import accuracy
from t5jax.metrics.summarization import rouge
from t5jax.metrics.table import Result
from tests.evaluation import tiny_evaluation as tiny


def same(targets, predictions):
    return {"same": sum(t == p for t, p in zip(targets, predictions, strict=True))}


def of_scores(targets, scores):
    return {"mean": np.mean(scores)}


def with_aux(targets, predictions, aux_values):
    assert len(targets) == len(predictions)
    return {"first": aux_values["scores"][0]}


@pytest.fixture
def task():
    metrics = (same, of_scores, with_aux, accuracy, rouge)
    return tiny.task("tiny_kinds", postprocess=None, metrics=metrics, choices=None)


def test_metrics_are_told_apart_by_their_arguments(task):
    assert metrics_of(task) == ((same, accuracy, rouge), (of_scores, tiny.likelihood),
                                (with_aux,), ())  # fmt: skip
    data = tiny.data("tiny_kinds")
    examples = load_task_examples(find_task("tiny_kinds", data), data, "validation")
    assert examples.needs == {"predictions", "scores"}
    scores = -np.arange(1.0, tiny.NUM + 1)
    predictions = [
        TaskPrediction("yes", score / 2, target_score=score) for score in scores.tolist()
    ]
    found = score_predictions(examples, predictions, EvaluationConfig(bootstrap_samples=100))
    values = {line.metric: line for line in found.lines}
    right = sum(x.targets == "yes" for x in examples.examples)
    assert values["same"].value == right
    assert values["accuracy"].value == pytest.approx(100 * right / tiny.NUM)
    assert values["accuracy"].low < values["accuracy"].value < values["accuracy"].high
    assert values["mean"].value == values["likelihood"].value == scores.mean()
    assert values["first"].value == -0.5
    assert np.isnan([values[name].low for name in ("same", "mean", "first")]).all()
    without = score_predictions(examples, predictions, EvaluationConfig(bootstrap_samples=0))
    assert np.isnan([line.low for line in without.lines]).all()


def test_what_a_metric_cannot_see_is_a_note(task, monkeypatch):
    monkeypatch.setattr(tiny, "CHOICES", ("да", "нет", "maybe"))
    data = tiny.data("tiny_kinds")
    examples = load_task_examples(find_task("tiny_kinds", data), data, "validation")
    texts = [TaskPrediction(x.targets, -1.0, -1.0) for x in examples.examples]
    found = score_predictions(examples, texts, EvaluationConfig())
    (note,) = found.notes
    assert note.startswith("tiny_kinds: ROUGE: 9 of 13 references have no token under tokenizer")
    assert {x.metric: x.value for x in found.lines}["rouge1"] == pytest.approx(100 * 4 / 13)


def test_a_missing_package_is_named():
    needy = dataclasses.replace(accuracy, packages=("json", "a_package"))
    tiny.task("tiny_needy", metrics=(needy,))
    with pytest.raises(
        ConfigError, match=r"accuracy needs the package a_package, .*pip install a-pa"
    ):
        metrics_of(find_task("tiny_needy", tiny.data("tiny_needy")))


def test_there_is_no_average_over_what_did_not_fail():
    names = (("glue_cola_v002", "matthews_corrcoef"), ("glue_sst2_v002", "accuracy"))
    lines = [Result(task=task, metric=name, value=30.0, examples=5) for task, name in names]
    assert benchmark_averages(lines)["glue"].value == 30.0
    failed = Result(
        task="glue_mrpc_v002", metric="f1", value=float("nan"), examples=5, error="KeyError: 1"
    )
    assert benchmark_averages([*lines, failed]) == {}
    other = dataclasses.replace(failed, task="own")
    assert benchmark_averages([*lines, other])["glue"].value == 30.0
