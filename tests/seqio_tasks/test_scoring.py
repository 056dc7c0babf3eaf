"""seqio's Evaluator on tasks of t5jax: targets and values of t5jax's own metrics."""

import numpy as np
import pytest

from t5jax.data.registry import add_task
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.metrics import accuracy
from t5jax.metrics.grouped import group_exact_match, multirc_f1
from t5jax.seqio_tasks import register
from tests.seqio_tasks.small_tasks import small_task

BYTES = ByteVocabulary(extra_ids=30)


def grouped_targets(text, *, example, is_target):
    value = int(text == "yes")
    return {"value": value, "group": example["idx"][1][:1]} if is_target else {"value": value}


def mean_log_likelihood(of_targets, numbers):
    """Arguments of names that seqio does not know."""
    return {"mean": sum(numbers) / len(of_targets)}


def evaluate(seqio, name, answers, scores):
    """Of seqio's Evaluator, for a model whose outputs are `answers`, in order."""
    evaluator = seqio.Evaluator(
        name,
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        eval_split="validation",
        sequence_length={"inputs": 30, "targets": 12},
    )
    ids = [[*BYTES.encode(text).tolist(), *[1] * (9 - len(text))] for text in answers]
    found, _ = evaluator.evaluate(
        compute_metrics=True,
        step=1,
        predict_fn=lambda dataset: [(int(n), ids[int(n)]) for n, _ in dataset.as_numpy_iterator()],
        score_fn=lambda dataset: [(int(n), scores[int(n)]) for n, _ in dataset.as_numpy_iterator()],
    )
    values = {k: float(getattr(v, "value", v)) for k, v in found.result()[name].items()}
    return values, evaluator


ANSWERS = ["no", "yes", "yes", "yes", "no", "perhaps", "nothing"]
SCORES = [-0.5, -1.25, -2.0, -0.1, -3.0, -0.7, -1.1]


@pytest.mark.slow
def test_values_are_those_of_t5jax(seqio):
    add_task(small_task(score_metrics=(mean_log_likelihood,)))
    register(["so_small"], vocabulary=BYTES)
    values, _ = evaluate(seqio, "so_small", ANSWERS, SCORES)
    predicted = [{"no": 0, "yes": 1, "perhaps": 2}.get(text, -1) for text in ANSWERS]
    expected = accuracy([n % 2 for n in range(7)], predicted)
    assert values == {**expected, "mean": pytest.approx(np.mean(SCORES))}
    assert values["accuracy"] == pytest.approx(100 * 4 / 7)


def test_metrics_of_groups_meet_whole_groups(seqio):
    metrics = (multirc_f1, group_exact_match)
    add_task(small_task("so_groups", postprocess=grouped_targets, metrics=metrics))
    register(["so_groups"], vocabulary=BYTES)
    values, _ = evaluate(seqio, "so_groups", ANSWERS, SCORES)
    targets = [{"value": n % 2, "group": "v"} for n in range(7)]
    predictions = [{"value": int(text == "yes")} for text in ANSWERS]
    expected = multirc_f1(targets, predictions) | group_exact_match(targets, predictions)
    assert values == pytest.approx(expected)
    task = seqio.TaskRegistry.get("so_groups")
    assert [f.__name__ for f in task.metric_fns] == ["f1", "exact_match"]


def test_a_task_without_postprocess_compares_texts(seqio):
    add_task(small_task("so_plain", postprocess=None))
    register(["so_plain"], vocabulary=BYTES)
    values, _ = evaluate(seqio, "so_plain", ["no", "yes", "no", "no", "no", "yes", "no"], SCORES)
    assert values == {"accuracy": pytest.approx(100 * 6 / 7)}
