"""Assertions for tests of a task: its examples and its metrics.

    def test_my_task():
        rows = [{"question": "Is it?", "answer": "yes"}]
        assert_examples(my_task, rows, [{"inputs": "ask: Is it?", "targets": "yes"}])
        assert_metrics(my_task, ["yes"], ["yes"], {"accuracy": 100.0})

Both raise AssertionError with the expected and the actual value and the first difference.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.records import BadColumn, Row
from t5jax.data.registry.texts import examples_of
from t5jax.data.tasks.task import ExampleTask, TextTask
from t5jax.data.vocabularies import ByteVocabulary


def assert_examples(
    task: ExampleTask | TextTask,
    rows: Sequence[Mapping[str, Any]],
    expected: Sequence[Mapping[str, Any]],
    split: str = "train",
) -> None:
    """Asserts that the rows (columns by name) give exactly these examples, in this order.

    Only the expected keys of an example are compared: {"inputs", "targets", …} of an `ExampleTask`,
    {"targets"} (the text) of a `TextTask`. `split` selects the examples of training or those of
    evaluation.
    """
    __tracebackhide__ = True
    actual = [
        example
        for number, row in enumerate(rows)
        for example in _examples_of_row(task, number, row, split)
    ]
    problems = [
        _difference(number, key, wanted[key], example.get(key, _ABSENT))
        for number, (wanted, example) in enumerate(zip(expected, actual, strict=False))
        for key in wanted
        if key not in example or example[key] != wanted[key]
    ]
    if len(actual) != len(expected):
        problems.append(f"{len(actual)} examples, not {len(expected)}; those found:")
        problems += [f"  {number}: {example}" for number, example in enumerate(actual)]
    if problems:
        raise AssertionError("\n".join([f"examples of {task.name}, {split}:", *problems]))


def assert_metrics(
    task: ExampleTask,
    predictions: Sequence[str],
    examples: Sequence[Mapping[str, Any] | str],
    expected: Mapping[str, float],
    *,
    tolerance: float = 1e-6,
) -> None:
    """Asserts that the task's metrics give these values (percentages, as T5 reports them) for the
    predictions.

    `examples` are those of the task, or only their targets where postprocessing needs no more. Only
    the expected metrics are compared; `tolerance` is relative, and absolute around 0.
    """
    __tracebackhide__ = True
    if len(predictions) != len(examples):
        raise AssertionError(f"{len(predictions)} predictions for {len(examples)} examples")
    features = [{"targets": x} if isinstance(x, str) else x for x in examples]
    targets = [_postprocessed(task, x["targets"], x, is_target=True) for x in features]
    outputs = [
        _postprocessed(task, text, x, is_target=False)
        for text, x in zip(predictions, features, strict=True)
    ]
    actual = {
        name: value for metric in task.metrics for name, value in metric(targets, outputs).items()
    }
    problems = []
    for name, value in expected.items():
        if name not in actual:
            problems.append(f"  {name}: expected {value}, but there is no such metric")
        elif not math.isclose(actual[name], value, rel_tol=tolerance, abs_tol=tolerance):
            problems.append(f"  {name}: expected {value}, found {actual[name]}")
    if problems:
        listed = ", ".join(f"{name} = {value}" for name, value in actual.items())
        raise AssertionError("\n".join([f"metrics of {task.name} ({listed}):", *problems]))


@dataclasses.dataclass(frozen=True, slots=True)
class _Absent:
    def __repr__(self) -> str:
        return "nothing: the example has no such key"


_ABSENT = _Absent()


def _examples_of_row(
    task: ExampleTask | TextTask, number: int, row: Mapping[str, Any], split: str
) -> list[dict[str, Any]]:
    data = DataConfig(mixture=task.name, vocabulary=ByteVocabulary(), cache_dir=None)
    try:
        return examples_of(Row(dict(row), f"row {number}"), task, split, data)
    except BadColumn as error:
        raise AssertionError(f"row {number} of {task.name} has no example: {error}") from error


def _postprocessed(
    task: ExampleTask, text: str, example: Mapping[str, Any], *, is_target: bool
) -> Any:
    if task.postprocess is None:
        return text
    return task.postprocess(text, example=example, is_target=is_target)


def _difference(number: int, key: str, expected: Any, actual: Any) -> str:
    lines = [f"example {number}, {key}:", f"  expected {expected!r}", f"  found    {actual!r}"]
    if isinstance(expected, str) and isinstance(actual, str):
        texts = repr(expected), repr(actual)
        pairs = enumerate(zip(*texts, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), min(map(len, texts)))
        lines.append(" " * (11 + first) + "^")
    return "\n".join(lines)
