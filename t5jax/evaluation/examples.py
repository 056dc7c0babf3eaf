"""What a task asks in an evaluation: its examples, as the model reads them, and how it scores.

An `ExampleTask` of ours and a task of seqio's become the same `TaskQuestions`.
"""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.atomic_files import json_line
from t5jax.data.benchmarks.classification import UNLABELLED_TEXT
from t5jax.data.config import DataConfig
from t5jax.data.records import Rejected
from t5jax.data.registry.texts import TaskTexts
from t5jax.data.tasks.task import EosRule, Example, ExampleTask, Metric, SeqioTask, Task
from t5jax.data.vocabularies import EOS_ID, Vocabulary
from t5jax.errors import DataError

_log = logging.getLogger("t5jax")


class Question(NamedTuple):
    """One example of an evaluation."""

    inputs: str
    targets: str
    ids: np.ndarray  # int32, of the inputs as the model reads them: cut to data.inputs_length, EOS
    example: Example  # with whatever else the task's postprocessing needs


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskQuestions:
    """A split of a task, in its order."""

    task: str
    questions: list[Question]
    num_cut: int  # inputs that were too long
    postprocess: Callable[..., Any]  # (text, *, example, is_target) -> what metrics compare
    metrics: tuple[Metric, ...]  # of (targets, predictions), both postprocessed
    score_metrics: tuple[Metric, ...]  # of (targets, log-likelihoods of the targets in nats)
    choices: Callable[[Example], list[str]] | None

    @property
    def has_targets(self) -> bool:
        """False for the test split of a benchmark that keeps its labels."""
        return any(question.targets != UNLABELLED_TEXT for question in self.questions)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of sha256 over what is asked and what is right, in order."""
        digest = hashlib.sha256()
        for q in self.questions:
            digest.update(json_line({"ids": q.ids.tolist(), "asked": q.inputs, "right": q.targets}))
        return digest.hexdigest()[:16]


def read_questions(
    task: Task, data: DataConfig, split: str, num_examples: int | None = None
) -> TaskQuestions | None:
    """The first `num_examples` of a split (None: all); None if the task has no such split, or
    neither metrics nor a postprocessing. Raises DataError for a split without examples."""
    if isinstance(task, SeqioTask):
        found = _of_seqio(task, data, split, num_examples)
    elif isinstance(task, ExampleTask) and _is_asked(task):
        found = _of_ours(task, data, split, num_examples)
    else:
        return None
    if found is not None and not found.questions:
        raise DataError(f"split {split!r} of {task.name} has no examples: nothing to evaluate")
    return found


def _is_asked(task: ExampleTask) -> bool:
    """Diagnostics such as GLUE's AX have no metrics, but predictions are submitted."""
    return bool(task.metrics or task.score_metrics or task.postprocess)


def _of_ours(
    task: ExampleTask, data: DataConfig, split: str, num_examples: int | None
) -> TaskQuestions | None:
    texts, rejected = TaskTexts(task.name, data), Rejected()
    if split not in texts.splits():
        _log.warning("%s has no split %r: it is not answered", task.name, split)
        return None
    examples = (
        example
        for shard in texts.shards(split)
        for example in texts.examples(split, shard, rejected)
    )
    questions, num_cut = _read(_encoded(examples, data.vocabulary), data, num_examples)
    for place in rejected.places:
        _log.warning("%s of %s, left out: %s", split, task.name, place)
    return TaskQuestions(
        task=task.name,
        questions=questions,
        num_cut=num_cut,
        postprocess=task.postprocess or _as_it_is,
        metrics=task.metrics,
        score_metrics=task.score_metrics,
        choices=task.choices,
    )


def _of_seqio(
    task: SeqioTask, data: DataConfig, split: str, num_examples: int | None
) -> TaskQuestions | None:
    from t5jax.data.seqio_bridge import (
        evaluation,  # TensorFlow is imported for such a task only
    )

    found = evaluation.scoring_of(task.name)
    if split not in task.splits or not (found.metrics or found.score_metrics):
        return None
    examples = evaluation.examples(task, data, split)
    questions, num_cut = _read(examples, data, num_examples, task.eos["inputs"])
    return TaskQuestions(
        task=task.name,
        questions=questions,
        num_cut=num_cut,
        postprocess=found.postprocess,
        metrics=found.metrics,
        score_metrics=found.score_metrics,
        choices=None,
    )


def _encoded(
    examples: Iterator[Mapping[str, Any]], vocabulary: Vocabulary
) -> Iterator[tuple[np.ndarray, Mapping[str, Any]]]:
    for example in examples:
        yield vocabulary.encode(example["inputs"]).astype(np.int32), example


def _read(
    examples: Iterator[tuple[np.ndarray, Mapping[str, Any]]],
    data: DataConfig,
    num_examples: int | None,
    eos: EosRule = "after_trim",
) -> tuple[list[Question], int]:
    """(the first questions, how many of them were cut)."""
    questions, num_cut, length = [], 0, data.inputs_length
    end = np.full(int(eos != "none"), EOS_ID)
    for ids, example in examples:
        if num_examples is not None and len(questions) == num_examples:
            break
        num_cut += len(ids) + len(end) > length
        if eos == "after_trim":
            ids = ids[: length - 1]
        read = np.append(ids, end)[:length].astype(np.int32)
        questions.append(Question(example["inputs"], example["targets"], read, example))
    return questions, num_cut


def _as_it_is(text: str, *, example: Example | None = None, is_target: bool = False) -> str:
    return text


def targets_of(questions: TaskQuestions) -> list[Any]:
    """What metrics compare predictions with."""
    compare = functools.partial(questions.postprocess, is_target=True)
    return [compare(q.targets, example=q.example) for q in questions.questions]


def predictions_of(questions: TaskQuestions, texts: list[str]) -> list[Any]:
    """What metrics compare with the targets, of the model's answers."""
    compare = functools.partial(questions.postprocess, is_target=False)
    return [
        compare(text, example=q.example) for text, q in zip(texts, questions.questions, strict=True)
    ]
