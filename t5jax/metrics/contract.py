"""What a metric must look like and give back, checked: before anything is decoded where it can be.

A metric is any callable of (targets, predictions), of (targets, scores), or of (targets,
predictions, aux_values), told apart by the names of its arguments as seqio does, that returns a
mapping from names to numbers.
"""

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from t5jax.errors import ConfigError, is_failure, message_of

# What a metric is given beside the targets; aux values are {"scores": float64 [N]}.
Needs = Literal["predictions", "scores", "predictions_with_aux"]
_ARGUMENTS: dict[tuple[str, ...], Needs] = {
    ("targets", "scores"): "scores",
    ("targets", "predictions", "aux_values"): "predictions_with_aux",
}
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Returned(NamedTuple):
    """What a metric gave: its numbers, why it gave no more (None: nothing is missing), and the
    values for seqio's loggers alone (`NAME (Text)`)."""

    values: dict[str, float]
    error: str | None
    left_out: tuple[str, ...] = ()


def metric_name(metric: Any) -> str:
    """For people: the names of a metric's values, or its own."""
    inner = metric.func if isinstance(metric, functools.partial) else metric
    names = getattr(inner, "names", None)
    if isinstance(names, tuple) and all(isinstance(name, str) for name in names):
        return ", ".join(names)
    name = getattr(inner, "__name__", None) or getattr(inner, "name", None)
    return name if isinstance(name, str) else type(inner).__name__


def needs_of(metric: Any, task: str) -> Needs:
    """What the metric of a task is given, by the arguments that it has no default for.

    Raises ConfigError for what cannot be called so: no callable, a partial with an unknown keyword,
    further arguments without a default.
    """
    where = f"task {task}: its metric {metric_name(metric)}"
    if isinstance(metric, type) or not callable(metric):
        raise ConfigError(f"{where} is {metric!r:.200}: give a function of (targets, predictions)")
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (ValueError, TypeError) as error:
        if isinstance(metric, functools.partial):
            raise ConfigError(f"{where} has a keyword that is not its own: {error}") from error
        return "predictions"  # written in C: nothing is known of its arguments
    required = tuple(p.name for p in parameters if p.default is p.empty and p.kind in _POSITIONAL)
    needs = _ARGUMENTS.get(required, "predictions")
    given = dict.fromkeys(required) if needs == "predictions_with_aux" else ()
    try:
        inspect.signature(metric).bind(*given or (None, None))
    except TypeError as error:
        raise ConfigError(
            f"{where} takes ({', '.join(map(str, parameters))}); a metric is called with "
            "(targets, predictions), (targets, scores) or (targets, predictions, aux_values)"
        ) from error
    return needs


def call_metric(metric: Callable[..., Any], *arguments: Any) -> Returned:
    """One call, whatever comes of it: also of a metric that raises or gives no numbers."""
    try:
        return numbers_of(metric(*arguments))
    except BaseException as error:
        if not is_metric_failure(error):
            raise
        return Returned({}, describe(error))


def is_metric_failure(error: BaseException) -> bool:
    """Whether the metric failed, rather than being told to stop; one that exits has failed."""
    return is_failure(error) or isinstance(error, SystemExit)


def numbers_of(returned: Any) -> Returned:
    """The numbers among what a metric returned; texts, images and other values that seqio lets a
    metric give to its loggers are left out, anything else that is no number is an error."""
    if not isinstance(returned, Mapping):
        kind = "nothing" if returned is None else f"{type(returned).__name__} {returned!r:.80}"
        return Returned({}, f"TypeError: it returned {kind}, not a mapping {{name: number}}")
    values, wrong, left_out = {}, [], []
    for name, value in returned.items():
        kinds = {c.__name__ for c in type(value).__mro__}
        if "MetricValue" in kinds and "Scalar" not in kinds:
            left_out.append(f"{name} ({type(value).__name__})")
            continue
        value = value.value if "MetricValue" in kinds else value
        if isinstance(name, str) and _is_number(value):
            values[name] = float(value)
        else:
            wrong.append(f"{name!r} is {type(value).__name__} {value!r:.80}")
    error = f"TypeError: of what it returned {'; '.join(wrong)}: not a number" if wrong else None
    return Returned(values, error, tuple(left_out))


def without_nan(returned: Returned) -> Returned:
    """A value that is NaN as an error: for a metric that does not declare when it has no value."""
    undefined = [name for name, value in returned.values.items() if math.isnan(value)]
    if not undefined:
        return returned
    values = {k: v for k, v in returned.values.items() if k not in undefined}
    error = f"ValueError: it returned NaN for {', '.join(undefined)}"
    error = f"{returned.error}; {error}" if returned.error else error
    return returned._replace(values=values, error=error)


def describe(error: BaseException) -> str:
    """`ZeroDivisionError: division by zero`, on one line, whatever the exception's text is."""
    kind, message = type(error).__name__, message_of(error)
    return f"{kind}: {message}" if message else kind


def _is_number(value: Any) -> bool:
    if isinstance(value, numbers.Real | np.bool_):
        return True
    # An array without dimensions, of NumPy or JAX: numbers, not text, dates, objects or complex.
    return getattr(value, "shape", None) == () and np.asarray(value).dtype.kind not in "OSUMmc"
