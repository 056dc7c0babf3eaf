"""Task metrics with confidence intervals, and benchmark averages, from predictions.

A metric is called once, on all examples in the order of the data set; one that declares its units
(`metrics.units`) is also resampled for an interval. One that fails takes nothing else with it.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from t5jax.errors import DataError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.examples import ModelOutputs, TaskExamples
from t5jax.evaluation.predictions import TaskPrediction
from t5jax.metrics.averages import (
    GLUE,
    SUPERGLUE,
    Average,
    glue_average,
    superglue_average,
    without_sentinel,
)
from t5jax.metrics.confidence import Estimate, with_confidence
from t5jax.metrics.contract import (
    call_metric,
    describe,
    is_metric_failure,
    metric_name,
    without_nan,
)
from t5jax.metrics.majority import majority_baseline
from t5jax.metrics.table import Result, metric_results
from t5jax.metrics.units import UnitMetric

BENCHMARK_AVERAGES = {"glue": glue_average, "super_glue": superglue_average}
_TASKS = {
    name: {task for pairs in entries.values() for task, _ in pairs}
    for name, entries in (("glue", GLUE), ("super_glue", SUPERGLUE))
}


@dataclasses.dataclass
class TaskScores:
    """The values of a task's metrics, the metrics that failed among them, and caveats."""

    task: TaskExamples
    config: EvaluationConfig
    lines: list[Result] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, metric: Any, arguments: Callable[[], tuple]) -> None:
        """The values of a metric; `arguments` makes what it is called with."""
        name = metric_name(metric)
        try:
            compared = arguments()
            if isinstance(metric, UnitMetric):
                self._add_with_intervals(metric, *compared)
                return
        except BaseException as error:
            if not is_metric_failure(error):
                raise
            self._failed(name, describe(error))
            return
        values, error, left_out = without_nan(call_metric(metric, *compared))
        self._add_values(name, {k: Estimate(x) for k, x in values.items()})
        if left_out or not (values or error):
            gave = ", ".join(left_out) + ": not in this table" if left_out else "no value"
            self.notes.append(f"{self.task.task}: its metric {name} gave {gave}")
        if error is not None:
            self._failed(name, error)

    def _add_with_intervals(self, metric: UnitMetric, targets: list, compared: list) -> None:
        config = self.config
        values = with_confidence(
            metric,
            targets,
            compared,
            level=config.confidence_level,
            samples=config.bootstrap_samples,
        )
        self._add_values(metric_name(metric), values, majority_baseline(metric, targets))
        undefined = [name for name, estimate in values.items() if math.isnan(estimate.value)]
        notes = metric.notes(targets, compared)
        if undefined:
            notes.append(f"{', '.join(undefined)} is not defined for these predictions (NaN)")
        self.notes += [f"{self.task.task}: {note}" for note in notes]

    def _add_values(
        self, name: str, values: Mapping[str, Estimate], majority: Mapping[str, float] | None = None
    ) -> None:
        taken = {line.metric for line in self.lines if line.error is None}
        kept = {k: x for k, x in values.items() if k not in taken}
        number = len(self.task.examples)
        self.lines += metric_results(self.task.task, kept, number, majority)
        if len(kept) < len(values):
            again = ", ".join(k for k in values if k not in kept)
            self._failed(name, f"ValueError: another metric of the task gives {again} too")

    def _failed(self, name: str, error: str) -> None:
        self.lines.append(
            Result(
                task=self.task.task,
                metric=name,
                value=math.nan,
                examples=len(self.task.examples),
                error=error,
            )
        )


def score_predictions(
    task: TaskExamples, predictions: list[TaskPrediction], config: EvaluationConfig
) -> TaskScores:
    """The values of all metrics of a task, none without targets; a metric that fails, whatever it
    raises or returns, has a line that says so. Each gets lists of its own, which it may change."""
    scores = TaskScores(task, config)
    if not task.has_targets:
        return scores
    targets = functools.cache(task.postprocessed_targets)
    texts = [prediction.text for prediction in predictions]
    of_targets = [prediction.target_score for prediction in predictions]
    aux = {"scores": np.array([prediction.score for prediction in predictions])}
    compared = lambda: (list(targets()), task.postprocessed_predictions(texts))
    features = lambda: [example.own_features() for example in task.examples]
    for metric in task.metrics:
        scores.add(metric, compared)
    for metric in task.score_metrics:
        scores.add(metric, lambda: (list(targets()), list(of_targets)))
    for metric in task.aux_metrics:
        scores.add(metric, lambda: (*compared(), copy.deepcopy(aux)))
    for metric in task.output_metrics:
        scores.add(metric, lambda: (features(), _model_outputs(predictions)))
    return scores


def _model_outputs(predictions: list[TaskPrediction]) -> ModelOutputs:
    return ModelOutputs(
        [list(prediction.ids or ()) for prediction in predictions],
        [prediction.score for prediction in predictions],
        [prediction.target_score for prediction in predictions],
    )


def benchmark_averages(lines: Iterable[Result]) -> dict[str, Average]:
    """`glue` and `super_glue`, over the entries that were evaluated, where at least two were and no
    metric of theirs failed: an average over fewer of them is another number."""
    by_task: dict[str, dict[str, float]] = {}
    failed = set()
    for line in lines:
        by_task.setdefault(line.task, {})[line.metric] = line.value
        if line.error is not None:
            failed.add(without_sentinel(line.task))
    averages = {}
    for name, average in BENCHMARK_AVERAGES.items():
        try:
            value = average(by_task, partial=True)
        except DataError:  # none of the benchmark's tasks
            continue
        if len(value.entries) > 1 and not failed & _TASKS[name]:
            averages[name] = value
    return averages


def average_lines(averages: Mapping[str, Average]) -> list[Result]:
    """Averages as lines of the table: `glue (4 of 8)`."""
    lines = []
    for name, average in averages.items():
        total = len(average.entries) + len(average.missing)
        part = f" ({len(average.entries)} of {total})" if average.missing else ""
        lines.append(
            Result(
                task=f"{name}{part}",
                metric="average",
                value=average.value,
                low=math.nan,
                high=math.nan,
                examples=0,
            )
        )
    return lines
