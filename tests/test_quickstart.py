"""The quickstart's tasks, from invented rows, and what its mixture is made of."""

import pathlib

import pytest

from t5jax.config import load_config
from t5jax.data.records import BadColumn, Row
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import checked_tasks, find_stages

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def data(monkeypatch):
    monkeypatch.chdir(ROOT)
    return load_config("configs/quickstart.py").data


@pytest.fixture
def tasks(data):
    return {task.name: task for task in checked_tasks(data)}


def examples(task, **columns) -> list:
    return [(e["inputs"], e["targets"]) for e in task.examples(Row(columns, "here"))]


def test_texts(tasks):
    text = "Returns the tea."
    assert examples(tasks["parameter_type"], text=text, type="int") == [(f"type: {text}", "int")]
    named = examples(tasks["package"], text=text, package="nltk")
    assert named == [(f"package: {text}", "nltk")]
    with pytest.raises(BadColumn, match="no column 'type'"):
        examples(tasks["parameter_type"], text=text)


@pytest.mark.parametrize(
    ("text", "inputs", "target"),
    [
        ("Brew the value Array now.", "Brew the <extra_id_0> Array now.", "value"),
        ("A pot-list, for a pot.", "A pot-<extra_id_0>, for a pot.", "list"),
        ("The only_name lists value2.", None, None),
    ],
)
def test_a_word_is_hidden(tasks, text, inputs, target):
    expected = [(inputs, f"<extra_id_0> {target}")] if target else []
    assert examples(tasks["hidden_word"], text=text) == expected


def test_any_word_may_be_hidden(tasks):
    texts = [f"The size, shape, name and index {n}." for n in range(200)]
    found = [examples(tasks["hidden_word"], text=text)[0] for text in texts]
    words = [target.removeprefix("<extra_id_0> ") for _, target in found]
    assert all(30 < words.count(word) < 70 for word in ("size", "shape", "name", "index"))
    filled = [
        inputs.replace("<extra_id_0>", w) for (inputs, _), w in zip(found, words, strict=True)
    ]
    assert filled == texts


def test_the_mixture_trains_on_four_tasks_and_asks_three(data, tasks):
    definitions = find_definitions(data)
    assert definitions.mixture is not None
    assert set(definitions.mixture.tasks) == set(tasks)
    ((_, drawn),) = find_stages(definitions, dict.fromkeys(tasks, 100))
    assert drawn.keys() == tasks.keys()
    asked = {name for name, task in tasks.items() if getattr(task, "metrics", ())}
    assert asked == {"parameter_type", "package", "hidden_word"}
