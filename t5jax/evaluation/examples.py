"""Evaluation examples of a task: input ids as the model reads them, targets, postprocessing,
metrics.

An `ExampleTask` of t5jax and a task registered with seqio become the same `TaskExamples`.
"""

import dataclasses
import functools
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.atomic_files import json_line
from t5jax.data.benchmarks.classification import UNLABELLED_TEXT
from t5jax.data.config import DataConfig
from t5jax.data.records import Rejected
from t5jax.data.registry.texts import TaskDocuments
from t5jax.data.tasks.task import Example, ExampleTask, Metric, SeqioTask, Task
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError
from t5jax.types import EOS_ID

_log = logging.getLogger("t5jax")


class EvaluationExample(NamedTuple):
    """One example of an evaluation."""

    inputs: str
    targets: str
    ids: np.ndarray  # int32, of the inputs, truncated to data.inputs_length, EOS included
    features: Example  # the task's whole example, for its postprocessing
    target_ids: np.ndarray | None = None  # int32, where the task tokenises its targets itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskExamples:
    """A split of a task, in its order, with all that its evaluation needs."""

    task: str
    examples: list[EvaluationExample]
    num_truncated: int  # inputs that were too long
    postprocess: Callable[..., Any]  # (text, *, example, is_target) -> what metrics compare
    metrics: tuple[Metric, ...]  # of (targets, predictions), both postprocessed
    score_metrics: tuple[Metric, ...]  # of (targets, log-likelihoods of the targets in nats)
    choices: Callable[[Example], list[str]] | None

    @property
    def has_targets(self) -> bool:
        """False for the test split of a benchmark that keeps its labels."""
        return any(example.targets != UNLABELLED_TEXT for example in self.examples)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of sha256 over input ids, inputs and targets, in order."""
        digest = hashlib.sha256()
        for x in self.examples:
            # The key names are part of the hash: settings.json of an older evaluation has it.
            digest.update(json_line({"ids": x.ids.tolist(), "asked": x.inputs, "right": x.targets}))
        return digest.hexdigest()[:16]

    def postprocessed_targets(self) -> list[Any]:
        """The targets as metrics take them."""
        postprocess = functools.partial(self.postprocess, is_target=True)
        return [postprocess(x.targets, example=x.features) for x in self.examples]

    def postprocessed_predictions(self, texts: list[str]) -> list[Any]:
        """The model's output texts as metrics take them."""
        postprocess = functools.partial(self.postprocess, is_target=False)
        return [
            postprocess(text, example=x.features)
            for text, x in zip(texts, self.examples, strict=True)
        ]


def load_task_examples(
    task: Task, data: DataConfig, split: str, num_examples: int | None = None
) -> TaskExamples | None:
    """The first `num_examples` of a split (None: all); None if the task has no such split, or
    neither metrics nor a postprocessing. Raises DataError for a split without examples."""
    if isinstance(task, SeqioTask):
        loaded = _from_seqio_task(task, data, split, num_examples)
    elif isinstance(task, ExampleTask) and _is_evaluated(task):
        loaded = _from_example_task(task, data, split, num_examples)
    else:
        return None
    if loaded is not None and not loaded.examples:
        raise DataError(f"split {split!r} of {task.name} has no examples: nothing to evaluate")
    return loaded


def _is_evaluated(task: ExampleTask) -> bool:
    """Diagnostics such as GLUE's AX have no metrics, but predictions are submitted."""
    return bool(task.metrics or task.score_metrics or task.postprocess)


def _from_example_task(
    task: ExampleTask, data: DataConfig, split: str, num_examples: int | None
) -> TaskExamples | None:
    texts, rejected = TaskDocuments(task.name, data), Rejected()
    if split not in texts.splits():
        _log.warning("%s has no split %r: it is not evaluated", task.name, split)
        return None
    raw_examples = (
        example
        for shard in texts.shards(split)
        for example in texts.examples(split, shard, rejected)
    )
    encoded = _encode_inputs(raw_examples, data.vocabulary)
    examples, num_truncated = _truncate_inputs(encoded, data, num_examples)
    for place in rejected.places:
        _log.warning("%s of %s, left out: %s", split, task.name, place)
    return TaskExamples(
        task=task.name,
        examples=examples,
        num_truncated=num_truncated,
        postprocess=task.postprocess or _identity,
        metrics=task.metrics,
        score_metrics=task.score_metrics,
        choices=task.choices,
    )


def _from_seqio_task(
    task: SeqioTask, data: DataConfig, split: str, num_examples: int | None
) -> TaskExamples | None:
    # TensorFlow is imported for such a task only.
    from t5jax.data.seqio_bridge import evaluation
    from t5jax.data.seqio_bridge.examples import seqio_examples

    scoring = evaluation.seqio_scoring(task.name)
    if split not in task.splits or not (scoring.metrics or scoring.score_metrics):
        return None
    made = list(itertools.islice(seqio_examples(task, data, split), num_examples))
    return TaskExamples(
        task=task.name,
        examples=[
            EvaluationExample(x.inputs, x.targets, x.ids, x.features, x.target_ids) for x in made
        ],
        num_truncated=sum(x.is_truncated for x in made),
        postprocess=scoring.postprocess,
        metrics=scoring.metrics,
        score_metrics=scoring.score_metrics,
        choices=None,
    )


def _encode_inputs(
    examples: Iterator[Mapping[str, Any]], vocabulary: Vocabulary
) -> Iterator[tuple[np.ndarray, Mapping[str, Any]]]:
    for example in examples:
        yield vocabulary.encode(example["inputs"]).astype(np.int32), example


def _truncate_inputs(
    encoded: Iterator[tuple[np.ndarray, Mapping[str, Any]]],
    data: DataConfig,
    num_examples: int | None,
) -> tuple[list[EvaluationExample], int]:
    """(the first examples with EOS appended, how many of them were truncated)."""
    examples, num_truncated, length = [], 0, data.inputs_length
    for ids, example in itertools.islice(encoded, num_examples):
        num_truncated += len(ids) >= length
        ids = np.append(ids[: length - 1], EOS_ID).astype(np.int32)
        examples.append(EvaluationExample(example["inputs"], example["targets"], ids, example))
    return examples, num_truncated


def _identity(text: str, *, example: Example | None = None, is_target: bool = False) -> str:
    return text
