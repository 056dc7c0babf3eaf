"""Sentinel variants of tasks, in the form of span corruption: the answer fills a sentinel.

`inputs <extra_id_0>` -> `<extra_id_0> targets`: known to help checkpoints that saw nothing but span
corruption (seqio's `add_task_with_sentinels`, T5 1.1's `…_1_sentinel` tasks).
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from t5jax.data.records import Row
from t5jax.data.tasks.task import Example, ExampleTask, Postprocess

SENTINEL = "<extra_id_0>"
_BEFORE = re.compile(r"_(?:train|dev|test|eval)")


def with_sentinel(task: ExampleTask) -> ExampleTask:
    """The task under the name that seqio gives it: `…_1_sentinel`, before `_train` and `_eval`."""
    at = match.start() if (match := _BEFORE.search(task.name)) else len(task.name)
    choices = task.choices and _SentinelChoices(task.choices)
    return dataclasses.replace(
        task,
        name=f"{task.name[:at]}_1_sentinel{task.name[at:]}",
        description=f"{task.description}; the answer fills a sentinel",
        examples=_SentinelExamples(task.examples),
        eval_examples=task.eval_examples and _SentinelExamples(task.eval_examples),
        postprocess=_SentinelPostprocess(task.postprocess),
        choices=choices,
    )


def without_sentinel(text: str) -> str:
    """A text without the sentinel that it begins with."""
    return text.removeprefix(SENTINEL).strip() if text.startswith(SENTINEL) else text


@dataclasses.dataclass(frozen=True, slots=True)
class _SentinelExamples:
    examples: Callable[[Row], Iterable[Example]]

    def __call__(self, row: Row) -> Iterator[Example]:
        for example in self.examples(row):
            yield {
                **example,
                "inputs": f"{example['inputs']} {SENTINEL}",
                "targets": f"{SENTINEL} {example['targets']}",
            }


@dataclasses.dataclass(frozen=True, slots=True)
class _SentinelPostprocess:
    postprocess: Postprocess | None

    def __call__(self, text: str, *, example: Example, is_target: bool = False) -> Any:
        plain = without_sentinel(text)
        if self.postprocess is None:
            return plain
        targets = without_sentinel(example["targets"])
        return self.postprocess(plain, example={**example, "targets": targets}, is_target=is_target)


@dataclasses.dataclass(frozen=True, slots=True)
class _SentinelChoices:
    choices: Callable[[Example], list[str]]

    def __call__(self, example: Example) -> list[str]:
        return [f"{SENTINEL} {choice}" for choice in self.choices(example)]
