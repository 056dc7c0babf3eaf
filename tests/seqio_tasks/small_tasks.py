"""Small tasks with examples that hold more than inputs and targets."""

from collections.abc import Mapping
from typing import Any

from t5jax.data.records import Row
from t5jax.data.tasks import ExampleTask
from t5jax.metrics import accuracy
from tests.data.rows_in_memory import Rows


def row(text: str, label: int, place: str = "row") -> Row:
    return Row({"text": text, "label": label}, place)


def classify(row: Row):
    """An example, of which the label is only in the columns beside inputs and targets."""
    yield {
        "inputs": f"say <extra_id_0>: {row.text('text')}",
        "targets": ("no", "yes", "perhaps")[row["label"]],
        "idx": (row["label"], row.place),
        "words": set(row.text("text").split()),
    }


def label_and_place(text: str, *, example: Mapping[str, Any], is_target: bool):
    """What the metrics of the task compare: a tuple, of the example for targets."""
    if is_target:
        assert isinstance(example["idx"], tuple)
        return example["idx"][0]
    return ("no", "yes", "perhaps").index(text) if text in ("no", "yes", "perhaps") else -1


SHARDS = {
    "train": [
        [row(f"the {n} of {shard} é", n % 3, f"{shard}/{n}") for n in range(5 + 2 * shard)]
        for shard in range(3)
    ],
    "validation": [[row(f"row {n}", n % 2, f"v/{n}") for n in range(7)]],
    "extra": [[row("none", 0)]],
}


def small_task(name: str = "so_small", content: Any = None, **fields: Any) -> ExampleTask:
    defaults: dict[str, Any] = {
        "description": "rows in memory",
        "source": lambda data: Rows(SHARDS if content is None else content),
        "examples": classify,
        "postprocess": label_and_place,
        "metrics": (accuracy,),
    }
    return ExampleTask(name=name, **(defaults | fields))
