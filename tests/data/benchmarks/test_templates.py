"""Tasks in several wordings: each used, each a function of the row."""

import collections
import string

import pytest

from t5jax.data.benchmarks.templates import TASKS, Templates
from t5jax.data.records import Row
from t5jax.errors import ConfigError

BY_NAME = {task.name: task for task in TASKS}

ROWS = {
    "rte_templates_v001": {"premise": "P{i} {{x}}", "hypothesis": "H{i}", "label": 1},
    "snli_templates_v001": {"premise": "P{i}", "hypothesis": "H{i}", "label": 2},
    "boolq_templates_v001": {"passage": "P{i}", "question": "q{i}", "label": 1},
    "sst2_templates_v001": {"sentence": "S{i}", "label": 0},
    "squad_templates_v001": {"context": "C{i}", "question": "q{i}?", "answers": {"text": ["a"]}},
    "nq_open_templates_v001": {"question": "q{i}", "answer": ["a", "b"]},
    "multi30k_ende_templates_v001": {"en": "E{i}", "de": "D{i}"},
    "cnn_dailymail_templates_v001": {"article": "A{i}", "highlights": "H{i}"},
}
TARGETS = {
    "rte_templates_v001": "no",
    "snli_templates_v001": "no",
    "boolq_templates_v001": "yes",
    "sst2_templates_v001": "negative",
    "squad_templates_v001": "a",
    "nq_open_templates_v001": "a",
    "multi30k_ende_templates_v001": "D7",
    "cnn_dailymail_templates_v001": "H7",
}


def row(name, i):
    columns = {
        key: value.replace("{i}", str(i)) if isinstance(value, str) else value
        for key, value in ROWS[name].items()
    }
    return Row(columns, f"made, line {i}")


@pytest.mark.parametrize("name", list(ROWS))
def test_every_template_is_used_and_is_a_function_of_the_row(name):
    task = BY_NAME[name]
    examples = [next(iter(task.examples(row(name, i)))) for i in range(301)]
    again = [next(iter(task.examples(row(name, i)))) for i in reversed(range(301))][::-1]
    assert examples == again
    counts = collections.Counter(example["template"] for example in examples)
    assert set(counts) == set(task.examples.wordings)
    assert min(counts.values()) > 0.6 * 301 / len(counts)
    for i, example in enumerate(examples):
        fields = [field for _, field, _, _ in string.Formatter().parse(example["template"])]
        assert len(set(fields)) >= 1
        assert str(i) in example["inputs"]
    assert examples[7]["targets"] == TARGETS[name]


def test_braces_in_text_are_literal():
    example = next(iter(BY_NAME["rte_templates_v001"].examples(row("rte_templates_v001", 3))))
    assert "P3 {{x}}" in example["inputs"]


def test_every_task_is_tested():
    assert set(ROWS) == set(BY_NAME)


def test_seed_changes_the_assignment():
    task = BY_NAME["sst2_templates_v001"]
    other = Templates(fields=task.examples.fields, wordings=task.examples.wordings, seed=1)
    rows = [row("sst2_templates_v001", i) for i in range(97)]
    ours = [next(task.examples(r))["template"] for r in rows]
    assert 0 < sum(a == next(other(r))["template"] for a, r in zip(ours, rows, strict=True)) < 97


def test_unlabelled_rows_have_no_example_and_choices_become_classes():
    task = BY_NAME["snli_templates_v001"]
    unlabelled = Row({"premise": "P", "hypothesis": "H", "label": -1}, "p")
    assert list(task.examples(unlabelled)) == []
    assert task.choices({}) == ["yes", "it is not possible to tell", "no"]
    assert [task.postprocess(t, example={}, is_target=False) for t in ("no", "No!")] == [2, -1]


def test_templates_are_validated():
    with pytest.raises(ConfigError, match="wordings"):
        Templates(fields=lambda row: row, wordings=("{a}", "{a}"))
