"""Postprocessor and metrics of a task registered with seqio."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.seqio_bridge.tasks import seqio_task
from t5jax.data.tasks.task import Metric
from t5jax.errors import ConfigError


class Scoring(NamedTuple):
    """The postprocessor and metrics of a task registered with seqio."""

    postprocess: Callable[..., Any]
    metrics: tuple[Metric, ...]  # of targets and predictions
    score_metrics: tuple[Metric, ...]  # of targets and log-likelihoods


def seqio_scoring(name: str) -> Scoring:
    """Of a `seqio.Task`. Raises ConfigError for metrics that are no functions of (targets,
    predictions) or (targets, scores)."""
    task = seqio_task(name)
    others = len(task.metric_objs) - len(task.metric_fns) + len(task.predict_with_aux_metric_fns)
    if others:
        raise ConfigError(
            f"task {name} has {others} metrics that are not functions of (targets, predictions) or "
            "(targets, scores), which t5jax does not compute: give such functions as metric_fns"
        )
    functions = (task.predict_metric_fns, task.score_metric_fns)
    plain = [tuple(_scalars_of(f) for f in some) for some in functions]
    return Scoring(task.postprocess_fn, *plain)


def _scalars_of(metric: Callable) -> Metric:
    """The numbers among what a metric returns: seqio lets it return texts and plots as well."""

    @functools.wraps(metric)
    def call(targets: list, predictions: list) -> dict[str, float]:
        values = {k: getattr(v, "value", v) for k, v in metric(targets, predictions).items()}
        return {k: float(v) for k, v in values.items() if isinstance(v, int | float | np.number)}

    return call
