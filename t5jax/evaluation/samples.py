"""Sample predictions of a task as text: input, prediction, target."""

import math
from collections.abc import Sequence

from t5jax.data.vocabularies.one_line import one_line
from t5jax.evaluation.examples import TaskExamples
from t5jax.evaluation.predictions import TaskPrediction


def most_confident(task: TaskExamples, predictions: Sequence[TaskPrediction], number: int) -> str:
    """The predictions with the highest scores, right or wrong, no text twice: the input, and below
    it the prediction and the target, each in one line."""
    scores = [prediction.score for prediction in predictions]
    by_score = sorted(range(len(scores)), key=lambda i: (math.isnan(scores[i]), -scores[i]))
    by_text: dict[str, int] = {}
    for i in by_score:
        by_text.setdefault(predictions[i].text, i)
    chosen = list(by_text.values())[:number]
    lines = [f"{task.task}: the {len(chosen)} most confident of the different predictions"]
    for i in chosen:
        target = f"   (target: {one_line(task.examples[i].targets)})" if task.has_targets else ""
        lines.append(f"  {one_line(task.examples[i].inputs)}")
        lines.append(f"    -> {one_line(predictions[i].text)}{target}")
    return "\n".join(lines) + "\n"
