"""Predictions of a model for a task's examples, written to a JSON lines file and resumed from it.

All hosts compute all predictions together; the first one writes. The file holds a JSON object a
line, in the order of the examples; an incomplete last line is computed again.
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
from t5jax.decoding import DecodingConfig, Generated, Generator
from t5jax.errors import DataError, writing
from t5jax.evaluation.config import Ranking
from t5jax.evaluation.examples import EvaluationExample, TaskExamples
from t5jax.metrics.rank_classification import choose
from t5jax.runtime import agree

_BATCHES_PER_CHUNK = 32  # sorted by length among themselves, then written


class TaskPrediction(NamedTuple):
    """The model's output for one example."""

    text: str
    score: float  # of the output, as decoding gives it, or log-likelihood of the choice; nats
    target_score: float | None = None  # log-likelihood of the target, if a metric needs it
    choices: dict[str, float] | None = None  # log-likelihood of each choice, if they were ranked
    ids: list[int] | None = None  # of the output, EOS included if it ended, if a metric needs them


class Predictor(NamedTuple):
    """A model with the settings of decoding and ranking."""

    generator: Generator
    vocabulary: Vocabulary
    decoding: DecodingConfig
    ranking: Ranking

    def predict(self, task: TaskExamples, start: int, stop: int) -> list[TaskPrediction]:
        """Predictions for the examples number `start` up to `stop`."""
        examples = task.examples[start:stop]
        inputs = [example.ids for example in examples]
        if task.choices is not None and self.ranking != "never":
            predictions = self._rank_choices(task, examples)
        elif task.needs != {"scores"}:
            predictions = [
                TaskPrediction(
                    self.vocabulary.decode(best.ids), best.score, ids=self._kept_ids(task, best)
                )
                for best, *_ in self.generator.generate(
                    inputs, self.decoding, row_numbers=range(start, start + len(inputs))
                )
            ]
        else:
            predictions = [TaskPrediction("", 0.0)] * len(examples)
        if "scores" in task.needs:
            targets = [
                self._target_ids(x.targets) if x.target_ids is None else x.target_ids
                for x in examples
            ]
            scores = self.generator.score(inputs, targets)
            predictions = [
                prediction._replace(target_score=score.total)
                for prediction, score in zip(predictions, scores, strict=True)
            ]
        return predictions

    def _kept_ids(self, task: TaskExamples, best: Generated) -> list[int] | None:
        if not task.output_metrics:
            return None
        return [*best.ids.tolist(), *([self.vocabulary.eos_id] if best.ended else [])]

    def _rank_choices(
        self, task: TaskExamples, examples: Sequence[EvaluationExample]
    ) -> list[TaskPrediction]:
        choices = [task.choices_of(example) for example in examples]
        pairs = [
            (example.ids, self._target_ids(text))
            for example, texts in zip(examples, choices, strict=True)
            for text in texts
        ]
        scored = iter(self.generator.score(*zip(*pairs, strict=True)))  # pyright: ignore
        predictions = []
        for texts in choices:
            scores = [next(scored) for _ in texts]
            totals = [score.total for score in scores]
            lengths = [[len(score.tokens) for score in scores]]
            best = choose([totals], lengths if self.ranking == "per_token" else None)[0]
            by_choice = dict(zip(texts, totals, strict=True))
            predictions.append(TaskPrediction(texts[best], totals[best], choices=by_choice))
        return predictions

    def _target_ids(self, target: str) -> np.ndarray:
        return np.append(self.vocabulary.encode(target), self.vocabulary.eos_id).astype(np.int32)


def predict_task(
    predictor: Predictor,
    task: TaskExamples,
    file: pathlib.Path | None,
    after_chunk: Callable[[int], None] = lambda done: None,
) -> list[TaskPrediction]:
    """Predictions for all examples; those that `file` holds already are read from it.

    Args:
      after_chunk: called with the number of examples done so far.

    Raises DataError when the file holds predictions for other examples.
    """
    output = file if jax.process_index() == 0 else None
    size = _BATCHES_PER_CHUNK * predictor.generator.batch_size
    predictions = read_predictions(file, task, chunk=size) if file is not None else []
    while len(predictions) < len(task.examples):
        start = len(predictions)
        predictions += predictor.predict(task, start, start + size)
        if output is not None:
            chunk = task.examples[start : start + size]
            _append(_unfinished(output), chunk, predictions[start:])
        after_chunk(len(predictions))
    if output is not None and _unfinished(output).exists():
        os.replace(_unfinished(output), output)
    return predictions


def read_predictions(
    file: pathlib.Path, task: TaskExamples, chunk: int = 1
) -> list[TaskPrediction]:
    """The predictions written so far, the same on all hosts; whole chunks of them, because a
    score's last digit depends on what it was batched with. The rest is cut off the file.

    Raises DataError when they are for other examples.
    """
    existing = file if file.exists() else _unfinished(file)
    written = existing.read_bytes().splitlines(keepends=True) if existing.exists() else []
    num = len(written) - bool(written and not written[-1].endswith(b"\n"))
    num = num if num >= len(task.examples) else num // chunk * chunk
    lines = [json.loads(line) for line in written[:num]]
    agree(f"the predictions in {existing}", str(len(lines)))
    for line, example in zip(lines, task.examples, strict=False):
        if (line["inputs"], line["targets"]) != (example.inputs, example.targets):
            raise DataError(
                f"{existing} holds predictions for other examples than {task.task} has now (its "
                "data has changed): delete it, or write elsewhere with --output"
            )
    if task.output_metrics and any("ids" not in line for line in lines):
        raise DataError(
            f"{existing} holds predictions without the token ids that {task.task}'s metrics now "
            "need: delete it, or write elsewhere with --output"
        )
    if jax.process_index() == 0 and num < len(written):
        os.truncate(existing, sum(map(len, written[:num])))
    return [
        TaskPrediction(
            line["prediction"],
            line["score"],
            line.get("target_score"),
            line.get("choices"),
            line.get("ids"),
        )
        for line in lines[: len(task.examples)]
    ]


def _unfinished(file: pathlib.Path) -> pathlib.Path:
    return file.with_suffix(".unfinished")


def _append(
    file: pathlib.Path, examples: Sequence[EvaluationExample], predictions: Sequence[TaskPrediction]
) -> None:
    with writing(file), open(file, "ab") as stream:
        for example, prediction in zip(examples, predictions, strict=True):
            line = {
                "inputs": example.inputs,
                "targets": example.targets,
                "prediction": prediction.text,
                "score": prediction.score,
            }
            if prediction.target_score is not None:
                line["target_score"] = prediction.target_score
            if prediction.choices is not None:
                line["choices"] = prediction.choices
            if prediction.ids is not None:
                line["ids"] = prediction.ids
            stream.write(json_line(line))
        stream.flush()
        os.fsync(stream.fileno())
