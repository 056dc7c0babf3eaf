"""From answers to the lines of a table: every metric of a task, with its interval; averages."""

import math
from collections.abc import Iterable, Mapping

from t5jax.errors import DataError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.evaluation.examples import TaskQuestions, predictions_of, targets_of
from t5jax.evaluation.predictions import Answer
from t5jax.metrics.averages import Average, glue_average, superglue_average
from t5jax.metrics.confidence import with_confidence
from t5jax.metrics.table import Result, results

AVERAGES = {"glue": glue_average, "super_glue": superglue_average}


def score_answers(
    task: TaskQuestions, answers: list[Answer], config: EvaluationConfig
) -> list[Result]:
    """The values of all metrics of a task. None without targets.

    Raises DataError for a metric that fails, by name.
    """
    if not task.has_targets:
        return []
    targets = targets_of(task)
    outputs = [(metric, predictions_of(task, [a.text for a in answers])) for metric in task.metrics]
    outputs += [(metric, [a.target_score for a in answers]) for metric in task.score_metrics]
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
        except (ValueError, KeyError, TypeError, IndexError, ZeroDivisionError) as error:
            name = getattr(metric, "__name__", type(metric).__name__)
            raise DataError(
                f"task {task.task}: its metric {name} failed: {type(error).__name__}: {error}"
            ) from error
        lines += results(task.task, values, len(targets))
    return lines


def values_of(lines: Iterable[Result]) -> dict[str, dict[str, float]]:
    """{task: {metric: value}}."""
    values: dict[str, dict[str, float]] = {}
    for line in lines:
        values.setdefault(line.task, {})[line.metric] = line.value
    return values


def averages(lines: Iterable[Result]) -> dict[str, Average]:
    """`glue` and `super_glue`, of the entries that are there, where there are at least two."""
    found = {}
    for name, average in AVERAGES.items():
        try:
            value = average(values_of(lines), partial=True)
        except DataError:  # of none of the benchmark's tasks
            continue
        if len(value.entries) > 1:
            found[name] = value
    return found


def average_lines(found: Mapping[str, Average]) -> list[Result]:
    """An average as a line of the table: `glue (4 of 8)`."""
    lines = []
    for name, average in found.items():
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
