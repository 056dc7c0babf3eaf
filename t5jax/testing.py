"""For the author of a task: its examples and metrics, asserted in three lines of a test.

    def test_my_task():
        rows = [{"question": "Is it?", "answer": "yes"}]
        assert_examples(my_task, rows, [{"inputs": "ask: Is it?", "targets": "yes"}])
        assert_metrics(my_task, ["yes"], ["yes"], {"accuracy": 100.0})

Both raise AssertionError with what was expected, what was found and where the two part.
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
    """The rows (columns by name) give these examples, in this order and no others.

    Of an example only the keys that are expected are compared: {"inputs", "targets", …} of an
    `ExampleTask`, {"targets"} (the text) of a `TextTask`. `split` decides between the examples of
    training and those of evaluation.
    """
    __tracebackhide__ = True
    found = [
        example for number, row in enumerate(rows) for example in _made(task, number, row, split)
    ]
    problems = [
        _difference(number, key, wanted[key], example.get(key, _ABSENT))
        for number, (wanted, example) in enumerate(zip(expected, found, strict=False))
        for key in wanted
        if key not in example or example[key] != wanted[key]
    ]
    if len(found) != len(expected):
        problems.append(f"{len(found)} examples, not {len(expected)}; those found:")
        problems += [f"  {number}: {example}" for number, example in enumerate(found)]
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
    """The task's metrics give these values (percentages, as T5 reports them) for what a model said.

    `examples` are those of the task, or only their targets where postprocessing needs no more. Only
    the metrics that are expected are compared; `tolerance` is relative, and absolute around 0.
    """
    __tracebackhide__ = True
    if len(predictions) != len(examples):
        raise AssertionError(f"{len(predictions)} predictions for {len(examples)} examples")
    whole = [{"targets": one} if isinstance(one, str) else one for one in examples]
    targets = [_postprocessed(task, one["targets"], one, is_target=True) for one in whole]
    said = [
        _postprocessed(task, text, one, is_target=False)
        for text, one in zip(predictions, whole, strict=True)
    ]
    found = {
        name: value for metric in task.metrics for name, value in metric(targets, said).items()
    }
    problems = []
    for name, value in expected.items():
        if name not in found:
            problems.append(f"  {name}: expected {value}, but there is no such metric")
        elif not math.isclose(found[name], value, rel_tol=tolerance, abs_tol=tolerance):
            problems.append(f"  {name}: expected {value}, found {found[name]}")
    if problems:
        shown = ", ".join(f"{name} = {value}" for name, value in found.items())
        raise AssertionError("\n".join([f"metrics of {task.name} ({shown}):", *problems]))


@dataclasses.dataclass(frozen=True, slots=True)
class _Absent:
    def __repr__(self) -> str:
        return "nothing: the example has no such key"


_ABSENT = _Absent()


def _made(
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


def _difference(number: int, key: str, wanted: Any, found: Any) -> str:
    lines = [f"example {number}, {key}:", f"  expected {wanted!r}", f"  found    {found!r}"]
    if isinstance(wanted, str) and isinstance(found, str):
        one, other = repr(wanted), repr(found)
        pairs = zip(one, other, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        lines.append(" " * (11 + same) + "^")
    return "\n".join(lines)
