"""What a metric may look like and give back; what is refused says why."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from t5jax.errors import ConfigError
from t5jax.metrics.classification import accuracy, mean_multiclass_f1
from t5jax.metrics.contract import (
    call_metric,
    metric_name,
    needs_of,
    numbers_of,
    without_nan,
)
from t5jax.metrics.regression import pearson_corrcoef


def predicted(targets, predictions, weight=1.0):
    return {}


def scored(targets, scores, num_classes=None):
    return {}


def with_aux(targets, predictions, aux_values):
    return {}


@pytest.mark.parametrize(
    ("metric", "needs"),
    [
        (predicted, "predictions"),
        (lambda t, p, /: {}, "predictions"),
        (lambda *both: {}, "predictions"),
        (max, "predictions"),
        (functools.partial(predicted, weight=2), "predictions"),
        (accuracy, "predictions"),
        (pearson_corrcoef, "predictions"),
        (scored, "scores"),
        (functools.partial(scored, num_classes=3), "scores"),
        (with_aux, "predictions_with_aux"),
    ],
)
def test_the_arguments_say_what_a_metric_needs(metric, needs):
    assert needs_of(metric, "own") == needs


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        (functools.partial(predicted, wight=2), "predicted has a keyword that is not its own"),
        (lambda targets: {}, r"takes \(targets\); a metric is called with"),
        (lambda targets, predictions, contexts: {}, r"takes \(targets, predictions, contexts\)"),
        (lambda targets, predictions, *, key: {}, "a metric is called with"),
        (3, "is 3: give a function"),
        (dict, "is <class 'dict'>: give a function"),
    ],
)
def test_what_cannot_be_called_is_refused(metric, words):
    with pytest.raises(ConfigError, match=f"^task own: its metric .*{words}"):
        needs_of(metric, "own")


def test_names_are_those_of_values_or_of_the_function():
    named = functools.partial(predicted, weight=2)
    metrics = (predicted, named, accuracy, mean_multiclass_f1(3), pearson_corrcoef)
    assert [metric_name(metric) for metric in metrics] == [
        "predicted",
        "predicted",
        "accuracy",
        "mean_3class_f1",
        "pearson_corrcoef",
    ]


def test_all_kinds_of_numbers_are_taken():
    numbers = {
        "int": 3,
        "float": 2.5,
        "bool": True,
        "numpy": np.float32(1.5),
        "numpy bool": np.bool_(False),
        "array": np.array(4),
        "jax": jnp.asarray(0.25, jnp.bfloat16),
    }
    values, error, _ = numbers_of(numbers)
    assert error is None
    assert values == dict(zip(numbers, (3, 2.5, 1, 1.5, 0, 4, 0.25), strict=True))
    assert all(type(value) is float for value in values.values())


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (3.5, "TypeError: it returned float 3.5, not a mapping {name: number}"),
        (None, "TypeError: it returned nothing, not a mapping {name: number}"),
        ([("x", 1.0)], "TypeError: it returned list [('x', 1.0)], not a mapping"),
        ({"x": "good"}, "TypeError: of what it returned 'x' is str 'good': not a number"),
        ({"x": None}, "'x' is NoneType None"),
        ({"x": [1.0, 2.0]}, "'x' is list [1.0, 2.0]"),
        ({"x": np.ones(2)}, "'x' is ndarray array([1., 1.])"),
        ({"x": 1j}, "'x' is complex 1j"),
        ({"x": np.datetime64("2026-11-30")}, "'x' is datetime64"),
    ],
)
def test_what_is_no_number_is_said(returned, error):
    values, said, _ = call_metric(lambda targets, predictions: returned, [1], [1])
    assert values == {}
    assert error in said


def test_good_values_stand_beside_bad_ones():
    returned = numbers_of({"good": 1.0, "undefined": float("nan"), "text": "x"})
    values, error, _ = without_nan(returned)
    assert values == {"good": 1.0}
    assert "'text' is str 'x'" in error
    assert error.endswith("ValueError: it returned NaN for undefined")


class Odd(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AssertionError("3 rows\nof 4"), "AssertionError: 3 rows of 4"),
        (AssertionError(), "AssertionError"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (ModuleNotFoundError("No module named 'nlp'"), "ModuleNotFoundError: No module named"),
        (KeyError("label"), "KeyError: 'label'"),
        (StopIteration(), "StopIteration"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "SystemExit: 3"),
        (Odd(), "Odd: (its message cannot be shown"),
    ],
)
def test_whatever_a_metric_raises_is_named(error, said):
    def metric(targets, predictions):
        raise error

    values, found, _ = call_metric(metric, [1], [1])
    assert values == {}
    assert found.startswith(said)


def test_an_interrupt_is_no_failure():
    def metric(targets, predictions):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_metric(metric, [1], [1])
