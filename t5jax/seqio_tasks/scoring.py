"""Postprocessor and metrics of a task of t5jax, as seqio's Evaluator calls them."""

from collections.abc import Callable, Mapping
from typing import Any

from t5jax.data.tasks.task import ExampleTask, Metric
from t5jax.seqio_tasks.columns import columns_from_text
from t5jax.seqio_tasks.sources import COLUMNS


def postprocessor(task: ExampleTask) -> Callable[..., Any] | None:
    """`postprocess_fn(text, example=..., is_target=...)`: the task's own, with its own example."""
    own = task.postprocess
    if own is None:
        return None

    def postprocess(text: str, *, example: Any = None, is_target: bool = False, **_: Any) -> Any:
        made = None if example is None else example_of(example)
        return own(text, example=made, is_target=is_target)

    return postprocess


def example_of(features: Mapping[str, Any]) -> dict[str, Any]:
    """The task's example, of the features of a tokenised one."""
    texts = {name: _text(features[f"{name}_pretokenized"]) for name in ("inputs", "targets")}
    return {**texts, **columns_from_text(_text(features[COLUMNS]))}


def _text(value: Any) -> str:
    value = value.numpy() if hasattr(value, "numpy") else value
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def metric_functions(task: ExampleTask) -> list[Callable[..., Mapping[str, float]]]:
    """Functions of (targets, predictions) and (targets, scores): seqio tells them apart by these
    names, and metrics of t5jax may call their arguments anything."""
    return [
        *(_of_predictions(metric) for metric in task.metrics),
        *(_of_scores(metric) for metric in task.score_metrics),
    ]


def _of_predictions(metric: Metric) -> Callable[..., Mapping[str, float]]:
    def of_predictions(targets: Any, predictions: Any) -> Mapping[str, float]:
        return metric(targets, predictions)

    return _named(of_predictions, metric)


def _of_scores(metric: Metric) -> Callable[..., Mapping[str, float]]:
    def of_scores(targets: Any, scores: Any) -> Mapping[str, float]:
        return metric(targets, scores)

    return _named(of_scores, metric)


def _named(function: Any, metric: Any) -> Any:
    name = getattr(metric, "__name__", None) or "_".join(getattr(metric, "names", ()))
    function.__name__ = name or type(metric).__name__
    return function
