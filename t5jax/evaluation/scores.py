"""Task metrics with confidence intervals, and benchmark averages, from predictions."""

import math
from collections.abc import Iterable, Mapping

from t5jax.errors import DataError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.examples import TaskExamples
from t5jax.evaluation.predictions import TaskPrediction
from t5jax.metrics.averages import Average, glue_average, superglue_average
from t5jax.metrics.confidence import with_confidence
from t5jax.metrics.majority import majority_baseline
from t5jax.metrics.table import Result, metric_results

BENCHMARK_AVERAGES = {"glue": glue_average, "super_glue": superglue_average}


def score_predictions(
    task: TaskExamples, predictions: list[TaskPrediction], config: EvaluationConfig
) -> list[Result]:
    """The values of all metrics of a task; none without targets.

    Raises DataError for a metric that fails, by name.
    """
    if not task.has_targets:
        return []
    targets = task.postprocessed_targets()
    texts = [prediction.text for prediction in predictions]
    outputs = [(metric, task.postprocessed_predictions(texts)) for metric in task.metrics]
    target_scores = [prediction.target_score for prediction in predictions]
    outputs += [(metric, target_scores) for metric in task.score_metrics]
    lines: list[Result] = []
    for metric, compared in outputs:
        try:
            values = with_confidence(
                metric,
                targets,
                compared,
                level=config.confidence_level,
                samples=config.bootstrap_samples,
            )
            majority = majority_baseline(metric, targets)
        except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError) as error:
            name = getattr(metric, "__name__", type(metric).__name__)
            raise DataError(
                f"task {task.task}: its metric {name} failed: {type(error).__name__}: {error}"
            ) from error
        lines += metric_results(task.task, values, len(targets), majority)
    return lines


def benchmark_averages(lines: Iterable[Result]) -> dict[str, Average]:
    """`glue` and `super_glue`, over the entries that were evaluated, where at least two were."""
    by_task: dict[str, dict[str, float]] = {}
    for line in lines:
        by_task.setdefault(line.task, {})[line.metric] = line.value
    averages = {}
    for name, average in BENCHMARK_AVERAGES.items():
        try:
            value = average(by_task, partial=True)
        except DataError:  # none of the benchmark's tasks
            continue
        if len(value.entries) > 1:
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
