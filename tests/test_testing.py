"""Assertions for tests of a task: they pass in silence, and name every difference."""

import pytest

from t5jax.data.benchmarks.glue import TASKS
from t5jax.data.benchmarks.squad import TASKS as SQUAD
from t5jax.data.registry.corpora import TEXT_TASKS
from t5jax.data.sources import JsonLines
from t5jax.data.tasks import ExampleTask
from t5jax.testing import assert_examples, assert_metrics

COLA = next(task for task in TASKS if task.name == "glue_cola_v002")
RTE = next(task for task in TASKS if task.name == "glue_rte_v002")
ROWS = [
    {"sentence": "Kim left early.", "label": 1, "idx": 7},
    {"sentence": "Left Kim early.", "label": 0, "idx": 9},
]


def twice(row):
    for text in row.text("words").split():
        yield {"inputs": text, "targets": text.upper()}


def evaluated(row):
    yield {"inputs": row.text("words"), "targets": ""}


TWICE = ExampleTask(
    name="twice",
    description="",
    source=lambda data: JsonLines(train_files=("x",)),
    examples=twice,
    eval_examples=evaluated,
)


def test_examples_that_are_as_expected():
    assert_examples(
        COLA,
        ROWS,
        [
            {"inputs": "cola sentence: Kim left early.", "targets": "acceptable", "idx": 7},
            {"targets": "unacceptable"},
        ],
    )
    assert_examples(TWICE, [{"words": "a b"}, {"words": "c"}], [{"targets": t} for t in "ABC"])
    assert_examples(TWICE, [{"words": "a b"}], [{"inputs": "a b"}], split="validation")
    text = TEXT_TASKS["c4_span_corruption"]
    assert_examples(text, [{"text": "Once upon"}], [{"targets": "Once upon"}])


@pytest.mark.parametrize(
    ("rows", "expected", "message"),
    [
        (
            ROWS[:1],
            [{"inputs": "cola sentence: Kim went early."}],
            "example 0, inputs:\n"
            "  expected 'cola sentence: Kim went early.'\n"
            "  found    'cola sentence: Kim left early.'\n" + " " * 31 + "^",
        ),
        (ROWS[:1], [{"answer": "yes"}], "found    nothing: the example has no such key"),
        (
            ROWS,
            [{"idx": 7}],
            "2 examples, not 1; those found:\n  0: {'inputs': 'cola sentence: Kim",
        ),
        (ROWS[:1], [{"idx": 7}, {"idx": 9}], "1 examples, not 2"),
        ([{"text": "Kim"}], [], "row 0 of glue_cola_v002 has no example: no column 'sentence'"),
    ],
)
def test_examples_that_are_not(rows, expected, message):
    with pytest.raises(AssertionError) as failed:
        assert_examples(COLA, rows, expected)
    assert message in str(failed.value)


def test_metrics_that_are_as_expected():
    predictions = ["entailment", "not_entailment", "nonsense"]
    true = ["entailment", "entailment", "not_entailment"]
    assert_metrics(RTE, predictions, true, {"accuracy": 100 / 3})
    example = {"targets": "Ann", "answers": ["Ann", "Ann Lee"]}
    assert_metrics(SQUAD[0], ["ann lee", "the Ann"], [example, example], {"em": 100.0, "f1": 100.0})


def test_metrics_that_are_not():
    with pytest.raises(AssertionError, match=r"accuracy: expected 51.0, found 50.0"):
        assert_metrics(
            RTE, ["entailment"] * 2, ["entailment", "not_entailment"], {"accuracy": 51.0}
        )
    with pytest.raises(AssertionError, match=r"bleu: expected 1.0, but there is no such metric"):
        assert_metrics(RTE, ["entailment"], ["entailment"], {"bleu": 1.0})
    with pytest.raises(AssertionError, match="1 predictions for 2 examples"):
        assert_metrics(RTE, ["entailment"], ["entailment"] * 2, {})
