"""Evaluation examples and metrics of a task registered with seqio."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.config import DataConfig
from t5jax.data.seqio_bridge.tasks import seqio_task
from t5jax.data.tasks.task import Metric, SeqioTask
from t5jax.data.tensorflow_import import import_tensorflow
from t5jax.errors import ConfigError, DataError


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


def seqio_examples(
    task: SeqioTask, data: DataConfig, split: str
) -> Iterator[tuple[np.ndarray, Mapping[str, Any]]]:
    """(ids of the inputs without EOS, the example with strings `inputs` and `targets`) in order.

    Raises DataError where the task's steps fail.
    """
    tensorflow, vocabulary = import_tensorflow(), data.vocabulary
    untrimmed = dict.fromkeys(("inputs", "targets"))
    try:
        dataset = seqio_task(task.name).get_dataset(
            untrimmed, split, use_cached=False, shuffle=False
        )
        for example in dataset.as_numpy_iterator():
            ids = {name: _without_eos(example[name], vocabulary.eos_id) for name in untrimmed}
            strings = {name: _text(example, name, ids[name], vocabulary) for name in untrimmed}
            yield ids["inputs"], {**example, **strings}
    except (ValueError, KeyError, tensorflow.errors.OpError) as error:
        raise DataError(f"task {task.name}, split {split!r}: {error}") from error


def _without_eos(ids: np.ndarray, eos_id: int) -> np.ndarray:
    return ids[:-1] if len(ids) and ids[-1] == eos_id else ids


def _text(example: Mapping[str, Any], name: str, ids: np.ndarray, vocabulary: Any) -> str:
    """What the ids were made of, where the task's steps kept it."""
    kept = example.get(f"{name}_pretokenized")
    return vocabulary.decode(ids) if kept is None else kept.decode("utf-8")
