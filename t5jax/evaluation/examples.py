"""Evaluation examples of a task: input ids as the model reads them, targets, postprocessing,
metrics.

An `ExampleTask` of t5jax and a task registered with seqio become the same `TaskExamples`.
"""

import copy
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
from t5jax.data.records import BadRecord, BadRecordPolicy, Rejected
from t5jax.data.registry.texts import TaskDocuments
from t5jax.data.store.documents import encode_document, leave_out
from t5jax.data.tasks.task import Example, ExampleTask, Metric, SeqioTask, Task
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError, foreign_code
from t5jax.evaluation.task_metrics import metrics_of
from t5jax.metrics.contract import Needs

_log = logging.getLogger("t5jax")


class EvaluationExample(NamedTuple):
    """One example of an evaluation."""

    inputs: str
    targets: str
    ids: np.ndarray  # int32, of the inputs, truncated to data.inputs_length, EOS included
    features: Example  # the task's whole example, for its postprocessing
    target_ids: np.ndarray | None = None  # int32, where the task tokenises its targets itself
    place: str = ""  # of the row that it was made of: `file, line 3`

    def own_features(self) -> Example:
        """A copy for a task's function, which may change it: the next call sees the example as it
        was. What cannot be copied is given as it is."""
        try:
            return copy.deepcopy(self.features)
        except Exception:  # an object of the user's in it
            return self.features


class ModelOutputs(NamedTuple):
    """What a model gave for every example of a split, in order."""

    ids: list[list[int]]  # of the predictions, EOS included where they ended
    scores: list[float]  # of the predictions
    target_scores: list[float | None]  # log-likelihoods of the targets in nats, where asked for


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
    aux_metrics: tuple[Metric, ...] = ()  # of (targets, predictions, {"scores": of these})
    output_metrics: tuple[Any, ...] = ()  # of (features, ModelOutputs): seqio's metric objects
    unlabelled: tuple[str, ...] = (UNLABELLED_TEXT,)  # targets of rows without a label

    @property
    def needs(self) -> set[Needs]:
        """What the model has to give for the metrics."""
        needs: set[Needs] = {metric.needs for metric in self.output_metrics}
        needs |= {"predictions"} if self.metrics or self.aux_metrics else set()
        return needs | ({"scores"} if self.score_metrics else set())

    @property
    def has_targets(self) -> bool:
        """False for the test split of a benchmark that keeps its labels."""
        return any(example.targets not in self.unlabelled for example in self.examples)

    @property
    def num_unlabelled(self) -> int:
        """Of the examples, those without a label."""
        return sum(example.targets in self.unlabelled for example in self.examples)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of sha256 over input ids, inputs and targets, in order."""
        digest = hashlib.sha256()
        for x in self.examples:
            # Key names and spelling are part of the hash: an older evaluation's settings have it.
            record = {"ids": x.ids.tolist(), "asked": x.inputs, "right": x.targets}
            digest.update(json_line(record, escape_ends=False))
        return digest.hexdigest()[:16]

    def choices_of(self, example: EvaluationExample) -> list[str]:
        """The answers among which rank classification chooses. Raises DataError, with the example's
        place, where the task's function fails or gives none."""
        assert self.choices is not None
        with foreign_code(f"the choices of task {self.task}", example.place):
            choices = list(self.choices(example.own_features()))
            if not choices or not all(isinstance(choice, str) for choice in choices):
                raise DataError(f"task {self.task}: choices are {choices!r}: strings are expected")
        return choices

    def postprocessed_targets(self) -> list[Any]:
        """The targets as metrics take them. Raises DataError, with the example's place, where the
        task's postprocessing fails."""
        texts = [x.targets for x in self.examples]
        return self._postprocessed(texts, is_target=True)

    def postprocessed_predictions(self, texts: list[str]) -> list[Any]:
        """The model's output texts as metrics take them. Raises as `postprocessed_targets`."""
        return self._postprocessed(texts, is_target=False)

    def _postprocessed(self, texts: list[str], *, is_target: bool) -> list[Any]:
        values = []
        for number, (text, x) in enumerate(zip(texts, self.examples, strict=True)):
            kind = "target" if is_target else "prediction"
            place = x.place or f"{self.task}, example {number}"
            what = f"the postprocessing of a {kind} of task {self.task}"
            with foreign_code(what, place):
                features = x.own_features()
                values.append(self.postprocess(text, example=features, is_target=is_target))
        return values


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
    if loaded is not None:
        loaded = _usable(loaded, data, split)
    if loaded is not None and not loaded.examples:
        raise DataError(f"split {split!r} of {task.name} has no examples: nothing to evaluate")
    return loaded


def _usable(loaded: TaskExamples, data: DataConfig, split: str) -> TaskExamples:
    """The examples that the task's own functions take, tried before anything is decoded: one whose
    target cannot be postprocessed, or that has no choices, is a bad record, under the policy."""
    policy = BadRecordPolicy(policy=data.on_bad_record, max_fraction=data.max_bad_fraction)
    usable, rejected, has_targets = [], Rejected(), loaded.has_targets
    for number, x in enumerate(loaded.examples):
        try:
            if has_targets:
                _refuse_unlabelled(loaded, x)
                dataclasses.replace(loaded, examples=[x]).postprocessed_targets()
            if loaded.choices is not None:
                loaded.choices_of(x)
        except DataError as error:
            if policy.policy == "error":
                raise
            rejected.add(f"example {number}", str(error))
        else:
            usable.append(x)
    if rejected.records:
        policy.check_share(rejected.records, len(loaded.examples), rejected.places)
        _log.warning("%s of %s: %s", split, loaded.task, rejected)
    return dataclasses.replace(loaded, examples=usable)


def _refuse_unlabelled(loaded: TaskExamples, x: EvaluationExample) -> None:
    """T5's `<unk>` is scored as T5 scores it, as a class of its own; a number would be a label."""
    if x.targets in loaded.unlabelled and x.targets != UNLABELLED_TEXT:
        raise DataError(
            f"{x.place}: no label (its target would be {x.targets!r}), where other rows of the "
            "split have one; on_bad_record='skip' leaves such rows out"
        )


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
        for example in texts.placed_examples(split, shard, rejected)
    )
    encoded = _encode_inputs(raw_examples, data.vocabulary, texts.policy, rejected)
    examples, num_truncated = _truncate_inputs(encoded, data, num_examples)
    if rejected.places:
        _log.warning("%s of %s: %s", split, task.name, rejected)
    return TaskExamples(
        task=task.name,
        examples=examples,
        num_truncated=num_truncated,
        postprocess=task.postprocess or _identity,
        choices=task.choices,
        unlabelled=(UNLABELLED_TEXT, *([task.unlabelled] if task.unlabelled else ())),
        **metrics_of(task)._asdict(),
    )


def _from_seqio_task(
    task: SeqioTask, data: DataConfig, split: str, num_examples: int | None
) -> TaskExamples | None:
    # TensorFlow is imported for such a task only.
    from t5jax.data.seqio_bridge import evaluation
    from t5jax.data.seqio_bridge.examples import seqio_examples

    metrics = metrics_of(task)
    if split not in task.splits or not any(metrics):
        return None
    rejected = Rejected()
    made = list(itertools.islice(seqio_examples(task, data, split, rejected), num_examples))
    if rejected.places:
        _log.warning("%s of %s: %s", split, task.name, rejected)
    return TaskExamples(
        task=task.name,
        examples=[
            EvaluationExample(
                x.inputs,
                x.targets,
                x.ids,
                x.features,
                x.target_ids,
                place=f"task {task.name}, {split} example {number}",
            )
            for number, x in enumerate(made)
        ],
        num_truncated=sum(x.is_truncated for x in made),
        postprocess=evaluation.seqio_scoring(task.name).postprocess,
        choices=None,
        **metrics._asdict(),
    )


def _encode_inputs(
    examples: Iterator[tuple[str, Mapping[str, Any]]],
    vocabulary: Vocabulary,
    policy: BadRecordPolicy,
    rejected: Rejected,
) -> Iterator[tuple[np.ndarray, Mapping[str, Any], str]]:
    for place, example in examples:
        encoded = encode_document({"inputs": example["inputs"]}, vocabulary, place)
        if isinstance(encoded, BadRecord):
            leave_out(encoded, policy, rejected)
        else:
            yield encoded["inputs"].astype(np.int32), example, place


def _truncate_inputs(
    encoded: Iterator[tuple[np.ndarray, Mapping[str, Any], str]],
    data: DataConfig,
    num_examples: int | None,
) -> tuple[list[EvaluationExample], int]:
    """(the first examples with EOS appended, how many of them were truncated)."""
    examples, num_truncated, length = [], 0, data.inputs_length
    for ids, example, place in itertools.islice(encoded, num_examples):
        num_truncated += len(ids) >= length
        ids = np.append(ids[: length - 1], data.vocabulary.eos_id).astype(np.int32)
        inputs, targets = example["inputs"], example["targets"]
        examples.append(EvaluationExample(inputs, targets, ids, example, place=place))
    return examples, num_truncated


def _identity(text: str, *, example: Example | None = None, is_target: bool = False) -> str:
    return text
