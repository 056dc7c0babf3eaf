"""docs/tasks.md lists every task and mixture, with its prefix, its metrics and its size."""

import pathlib
import re

from t5jax.data.tasks.classification import KeyedText
from t5jax.data.tasks.mixtures import MIXTURES
from t5jax.data.tasks.supervised import SUPERVISED_TASKS
from t5jax.metrics.sums import SumMetric

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "tasks.md"


def table():
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if "| `" in line]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in rows}


def test_every_task_and_mixture_has_a_line_and_no_other():
    assert set(table()) == set(SUPERVISED_TASKS) | set(MIXTURES)


def test_lines_say_what_the_tasks_do():
    for name, task in SUPERVISED_TASKS.items():
        inputs, targets, metrics, size, run = table()[name]
        if isinstance(task.examples, KeyedText):
            keys = [task.examples.prefix, *task.examples.columns]
            assert inputs == f"`{keys[0]} {' '.join(f'{key}: …' for key in keys[1:])}`", name
            assert targets == " / ".join(task.examples.labels)
        names = [
            n
            for metric in task.metrics
            for n in (metric.names if isinstance(metric, SumMetric) else (metric.__name__,))
        ]
        assert metrics == (", ".join(names) or metrics), name
        assert bool(names) != metrics.startswith("("), name
        shown = {None: "unknown", 0: "–"}.get(task.num_examples, f"{task.num_examples or 0:,}")
        assert size == shown, name
        assert run, name


def test_numbers_of_examples_are_those_of_the_real_data_tests():
    source = (pathlib.Path(__file__).parent / "test_tasks_on_real_data.py").read_text()
    counts = {
        (name, split): int(count)
        for name, split, count in re.findall(
            r'\(\s*"(\w+)",\s*"(train|validation|test)",\s*(\d+),', source
        )
    }
    assert len(counts) > 40
    for (name, _), count in counts.items():
        assert f"{count:,}" in table()[name][-1], name
