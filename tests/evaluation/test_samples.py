"""Sample predictions as text."""

import numpy as np

from t5jax.evaluation.examples import EvaluationExample, TaskExamples
from t5jax.evaluation.predictions import TaskPrediction
from t5jax.evaluation.samples import most_confident


def task(*targets: str) -> TaskExamples:
    examples = [
        EvaluationExample(f"question {n}", target, np.zeros(1, np.int32), {})
        for n, target in enumerate(targets)
    ]
    return TaskExamples(
        task="colours", examples=examples, num_truncated=0, postprocess=lambda text, **_: text,
        metrics=(), score_metrics=(), choices=None,
    )  # fmt: skip


PREDICTIONS = [
    TaskPrediction("red", -2.0),
    TaskPrediction("blue", -0.5),
    TaskPrediction("red", -0.1),
    TaskPrediction("green", -0.7),
]


def test_the_surest_of_each_text_right_or_wrong():
    assert most_confident(task("red", "red", "red", "green"), PREDICTIONS, 2) == (
        "colours: the 2 most confident of the different predictions\n"
        "  question 2\n"
        "    -> red   (target: red)\n"
        "  question 1\n"
        "    -> blue   (target: red)\n"
    )


def test_fewer_texts_than_asked_for():
    said = most_confident(task("red", "red", "red", "green"), PREDICTIONS, 9)
    assert said.count("->") == 3
    assert "the 3 most confident" in said


def test_a_split_without_targets():
    said = most_confident(task("<unk>", "<unk>", "<unk>", "<unk>"), PREDICTIONS, 1)
    assert said.splitlines()[1:] == ["  question 2", "    -> red"]


def test_a_text_with_line_ends_is_one_line():
    predictions = [TaskPrediction("red\nor \u2028 blue", -0.5)]
    said = most_confident(task("a\r\nb"), predictions, 1)
    assert said.splitlines()[1:] == said.removesuffix("\n").split("\n")[1:]
    assert said.splitlines()[-1] == r"    -> red\nor \u2028 blue   (target: a\r\nb)"
