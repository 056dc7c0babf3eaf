"""Postprocessor and metrics of a task registered with seqio."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from t5jax.data.seqio_bridge.tasks import seqio_task
from t5jax.data.tasks.task import Metric
from t5jax.data.tensorflow_import import import_seqio
from t5jax.errors import ConfigError

seqio = import_seqio()
Needs = Literal["predictions", "scores", "predictions_with_aux"]  # as in metrics.contract


class Scoring(NamedTuple):
    """The postprocessor and metrics of a task registered with seqio."""

    postprocess: Callable[..., Any]
    metrics: tuple[Metric, ...]  # of targets and predictions, with aux_values or without
    score_metrics: tuple[Metric, ...]  # of targets and log-likelihoods
    output_metrics: tuple["OutputMetric", ...]


@dataclasses.dataclass(frozen=True)
class OutputMetric:
    """A metric object of a seqio task (`metric_objs`): made of token ids or scores and the whole
    examples, as seqio's Evaluator makes it.

    Called with the features of the examples, and with lists of one entry each: `outputs.ids` of the
    predictions, their `scores`, and the `target_scores`.
    """

    name: str
    needs: Needs
    metric: Any
    output_features: Mapping[str, Any]

    def __call__(self, examples: Sequence[Mapping[str, Any]], outputs: Any) -> Any:
        """What the object computes: {name: number or MetricValue}."""
        metric = self.metric
        if isinstance(metric, seqio.metrics.LegacyMetric):  # keeps the targets of its first call
            metric = metric.replace(metric_fn_kwargs={}, targets_and_inferences={})
        made = metric.from_model_output(
            examples, self._model_output(outputs), self.output_features, "targets"
        )
        if isinstance(made, seqio.metrics.CollectingMetric):
            return made.actual_compute(examples, self.output_features, "targets", [])[0]
        return made.compute()

    def _model_output(self, outputs: Any) -> Any:
        """int32 [N, T] of predictions, padded; float64 [N] of scores; both, {"scores": ...}."""
        if self.needs == "scores":
            return np.array(outputs.target_scores)
        pad_id = self.output_features["targets"].vocabulary.pad_id
        ids_NT = np.full((len(outputs.ids), max(map(len, outputs.ids), default=0)), pad_id)
        for row, ids in zip(ids_NT, outputs.ids, strict=True):
            row[: len(ids)] = ids
        ids_NT = ids_NT.astype(np.int32)
        if self.needs == "predictions":
            return ids_NT
        return ids_NT, {"scores": np.array(outputs.scores)}


def seqio_scoring(name: str) -> Scoring:
    """Of a `seqio.Task`. Raises ConfigError for metric functions whose arguments are not seqio's,
    and for metric objects of other outputs than predictions and scores."""
    task = seqio_task(name)
    try:
        objects = task.metric_objs[: len(task.metric_objs) - len(task.metric_fns)]
    except ValueError as error:  # of the functions' arguments
        raise ConfigError(f"task {name}: {error}") from error
    return Scoring(
        task.postprocess_fn,
        metrics=(*task.predict_metric_fns, *task.predict_with_aux_metric_fns),
        score_metrics=tuple(_of_array(metric) for metric in task.score_metric_fns),
        output_metrics=tuple(_output_metric(task, metric) for metric in objects),
    )


def _output_metric(task: Any, metric: Any) -> OutputMetric:
    name = metric.__name__ if isinstance(metric, type) else type(metric).__name__
    types = seqio.metrics.ModelOutputType
    known: dict[Any, Needs] = {
        types.PREDICTION: "predictions",
        types.SCORE: "scores",
        types.PREDICTION_WITH_AUX: "predictions_with_aux",
    }
    wanted = getattr(metric, "model_output_type", None)
    if wanted not in known or not hasattr(metric, "from_model_output"):
        raise ConfigError(
            f"task {task.name}: its metric object {name} is made of "
            f"{getattr(wanted, 'name', wanted)}: its model_output_type must be one of "
            f"{', '.join(x.name for x in known)}"
        )
    return OutputMetric(name, known[wanted], metric, task.output_features)


def _of_array(metric: Callable) -> Metric:
    """The metric, given an array of scores, as seqio gives it."""

    @functools.wraps(metric)
    def call(targets: list, scores: Sequence[float]) -> Mapping[str, Any]:
        return metric(targets, np.array(scores))

    return call
