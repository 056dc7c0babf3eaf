"""A model's answers to a task's questions, kept in a file from which an evaluation goes on.

Every host computes all answers together with the others; the first one writes. The file holds a
JSON object a line, in the order of the questions; a line that was not finished is made again.
"""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from t5jax.data.atomic_files import json_line
from t5jax.data.vocabularies import Vocabulary
from t5jax.decoding import DecodingConfig, Generator
from t5jax.errors import DataError
from t5jax.evaluation.config import Ranking
from t5jax.evaluation.examples import Question, TaskQuestions
from t5jax.metrics.rank_classification import choose
from t5jax.runtime import agree

_BATCHES_AT_A_TIME = 32  # sorted by length among themselves, then written


class Answer(NamedTuple):
    """What the model says to one question."""

    text: str
    score: float  # of the output, as the decoding gives it, or log-likelihood of the choice; nats
    target_score: float | None = None  # log-likelihood of the target, if a metric asks for it
    choices: dict[str, float] | None = None  # log-likelihood of each choice, if they were ranked


class Answerer(NamedTuple):
    """A model and how it is asked."""

    generator: Generator
    vocabulary: Vocabulary
    decoding: DecodingConfig
    ranking: Ranking

    def answer(self, task: TaskQuestions, start: int, stop: int) -> list[Answer]:
        """Answers to the questions number `start` up to `stop`."""
        questions = task.questions[start:stop]
        inputs = [question.ids for question in questions]
        if task.choices is not None and self.ranking != "never":
            answers = self._ranked(task, questions)
        elif task.metrics or not task.score_metrics:
            answers = [
                Answer(self.vocabulary.decode(best.ids), best.score)
                for best, *_ in self.generator.generate(
                    inputs, self.decoding, row_numbers=range(start, start + len(inputs))
                )
            ]
        else:
            answers = [Answer("", 0.0)] * len(questions)
        if task.score_metrics:
            scores = self.generator.score(inputs, [self._ids(q.targets) for q in questions])
            answers = [
                a._replace(target_score=s.total) for a, s in zip(answers, scores, strict=True)
            ]
        return answers

    def _ranked(self, task: TaskQuestions, questions: Sequence[Question]) -> list[Answer]:
        assert task.choices is not None
        options = [task.choices(question.example) for question in questions]
        asked = [
            (q.ids, self._ids(c)) for q, some in zip(questions, options, strict=True) for c in some
        ]
        scored = iter(self.generator.score(*zip(*asked, strict=True)))  # pyright: ignore
        answers = []
        for texts in options:
            found = [next(scored) for _ in texts]
            totals = [one.total for one in found]
            lengths = [[len(one.tokens) for one in found]]
            best = choose([totals], lengths if self.ranking == "per_token" else None)[0]
            by_choice = dict(zip(texts, totals, strict=True))
            answers.append(Answer(texts[best], totals[best], choices=by_choice))
        return answers

    def _ids(self, target: str) -> np.ndarray:
        return np.append(self.vocabulary.encode(target), self.vocabulary.eos_id).astype(np.int32)


def answer_all(
    answerer: Answerer,
    task: TaskQuestions,
    file: pathlib.Path | None,
    after_chunk: Callable[[int], None] = lambda done: None,
) -> list[Answer]:
    """The answers to all questions; those that `file` holds already are taken from there.

    Args:
      after_chunk: called with the number of questions answered so far.

    Raises DataError when the file holds answers to other questions.
    """
    written = file if jax.process_index() == 0 else None
    size = _BATCHES_AT_A_TIME * answerer.generator.batch_size
    answers = read_answers(file, task, chunk=size) if file is not None else []
    while len(answers) < len(task.questions):
        start = len(answers)
        answers += answerer.answer(task, start, start + size)
        if written is not None:
            _append(_unfinished(written), task.questions[start : start + size], answers[start:])
        after_chunk(len(answers))
    if written is not None and _unfinished(written).exists():
        os.replace(_unfinished(written), written)
    return answers


def read_answers(file: pathlib.Path, task: TaskQuestions, chunk: int = 1) -> list[Answer]:
    """Those that have been written so far, on all hosts alike; whole chunks of them, because a
    score's last digit depends on what it was computed with. The rest is cut off the file.

    Raises DataError when they answer other questions.
    """
    there = file if file.exists() else _unfinished(file)
    written = there.read_bytes().splitlines(keepends=True) if there.exists() else []
    num = len(written) - bool(written and not written[-1].endswith(b"\n"))
    num = num if num >= len(task.questions) else num // chunk * chunk
    lines = [json.loads(line) for line in written[:num]]
    agree(f"the answers in {there}", str(len(lines)))
    for line, question in zip(lines, task.questions, strict=False):
        if (line["inputs"], line["targets"]) != (question.inputs, question.targets):
            raise DataError(
                f"{there} holds answers to other questions than {task.task} asks now (its data has "
                "changed): delete it, or write elsewhere with --output"
            )
    if jax.process_index() == 0 and num < len(written):
        os.truncate(there, sum(map(len, written[:num])))
    return [
        Answer(line["prediction"], line["score"], line.get("target_score"), line.get("choices"))
        for line in lines[: len(task.questions)]
    ]


def _unfinished(file: pathlib.Path) -> pathlib.Path:
    return file.with_suffix(".unfinished")


def _append(file: pathlib.Path, questions: Sequence[Question], answers: Sequence[Answer]) -> None:
    with open(file, "ab") as stream:
        for question, answer in zip(questions, answers, strict=True):
            line = {
                "inputs": question.inputs,
                "targets": question.targets,
                "prediction": answer.text,
                "score": answer.score,
            }
            if answer.target_score is not None:
                line["target_score"] = answer.target_score
            if answer.choices is not None:
                line["choices"] = answer.choices
            stream.write(json_line(line))
        stream.flush()
        os.fsync(stream.fileno())
