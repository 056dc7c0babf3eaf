"""The metrics of a task, by what they are given; checked before anything is read or decoded."""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

from t5jax.data.tasks.task import ExampleTask, Metric, SeqioTask, Task
from t5jax.errors import ConfigError
from t5jax.metrics.contract import Needs, metric_name, needs_of


class TaskMetrics(NamedTuple):
    """The metrics of a task. `output_metrics` are metric objects of seqio, which see token ids."""

    metrics: tuple[Metric, ...] = ()  # of (targets, predictions)
    score_metrics: tuple[Metric, ...] = ()  # of (targets, log-likelihoods of the targets in nats)
    aux_metrics: tuple[Metric, ...] = ()  # of (targets, predictions, {"scores": of these})
    output_metrics: tuple[Any, ...] = ()  # seqio_bridge.evaluation.OutputMetric


def metrics_of(task: Task) -> TaskMetrics:
    """The metrics of a task; none of a text task.

    Raises ConfigError for a metric that cannot be called as metrics are, that needs a package which
    is not installed, or that wants what t5jax's models do not give.
    """
    if isinstance(task, ExampleTask):
        return _by_needs(task.metrics, task.score_metrics, task.name)
    if not isinstance(task, SeqioTask):
        return TaskMetrics()
    from t5jax.data.seqio_bridge.evaluation import seqio_scoring  # imports TensorFlow

    scoring = seqio_scoring(task.name)
    found = _by_needs(scoring.metrics, scoring.score_metrics, task.name)
    return found._replace(output_metrics=scoring.output_metrics)


def _by_needs(metrics: Sequence[Metric], score_metrics: Sequence[Metric], task: str) -> TaskMetrics:
    by_needs: dict[Needs, tuple[Metric, ...]] = {}
    for metric in metrics:
        needs = needs_of(metric, task)
        by_needs[needs] = (*by_needs.get(needs, ()), metric)
    for metric in score_metrics:
        needs_of(metric, task)
    for metric in (*metrics, *score_metrics):
        _check_packages(metric, task)
    return TaskMetrics(
        by_needs.get("predictions", ()),
        (*by_needs.get("scores", ()), *score_metrics),
        by_needs.get("predictions_with_aux", ()),
    )


def _check_packages(metric: Metric, task: str) -> None:
    for package in getattr(metric, "packages", ()):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"task {task}: its metric {metric_name(metric)} needs the package {package}, "
                f"which is not installed: pip install {package.replace('_', '-')}"
            )
