"""Text-to-text classification: columns to text, label names to class ids and back.

T5 writes such a row as `<benchmark> <column>: <text> <column>: <text> …` and its class by name
(Raffel et al. 2020, appendix D; `glue` in T5's published preprocessors).
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data.benchmarks.datasets import Dataset
from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.task import Example, ExampleTask

UNLABELLED = -1
UNLABELLED_TEXT = "<unk>"  # T5's targets of a test row
FALSE_TRUE = ("False", "True")
_NO_LABEL = (None, "", "-", UNLABELLED)  # SNLI writes - where its annotators did not agree


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """A row of a file -> a row of TFDS's columns.

    `texts`: each text column and the names it may have in a file, the first present one counts.
    `label` likewise; `labels` are the class names in TFDS's order, or None where the label is a
    number. `idx` is the file's own, or the row's number in the file, as TFDS counts.
    """

    texts: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...] | None
    label: tuple[str, ...] = ("label",)

    def __call__(self, row: Row, number: int) -> Iterator[Row]:
        columns: dict[str, Any] = {
            name: row.text(_present(row, name, names)) for name, names in self.texts.items()
        }
        name = next((name for name in self.label if name in row), None)
        value = UNLABELLED if name is None else row[name]
        columns["label"] = score_of(value) if self.labels is None else class_of(value, self.labels)
        columns["idx"] = own_index(row, number)
        yield Row(columns, row.place)


def same_name(*names: str) -> dict[str, tuple[str, ...]]:
    """`texts` of columns that a file calls as TFDS does."""
    return {name: (name,) for name in names}


def own_index(row: Row, number: int) -> Any:
    """The row's `idx` where it has one, else its number in the file."""
    return row["idx"] if isinstance(row.get("idx"), int | dict) else number


def class_of(value: Any, labels: tuple[str, ...]) -> int:
    """The class number of a label as files write it: a name, a number, a bool, or none (-1).

    Raises BadColumn for anything else.
    """
    if value in _NO_LABEL:
        return UNLABELLED
    if isinstance(value, str) and value in labels:
        return labels.index(value)
    if isinstance(value, str) and value in ("-1", *map(str, range(len(labels)))):
        return int(value)
    if isinstance(value, int) and 0 <= value < len(labels):
        return int(value)
    raise BadColumn(f"label {value!r} is none of {labels}, nor its number, nor -1 for unknown")


def score_of(value: Any) -> float:
    """A score as files write it, -1 for none. Raises BadColumn for what is no finite number: an
    empty cell or NaN would become the target text `nan`."""
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise BadColumn(
            f"score {value!r} is not a number; a split without scores has no such column, or -1"
        )
    return score


def _present(row: Row, name: str, names: tuple[str, ...]) -> str:
    return next((candidate for candidate in names if candidate in row), name)


def keyed_text(prefix: str, row: Row, columns: tuple[str, ...]) -> str:
    """`<prefix> <column>: <text> <column>: <text>`, columns in the order given."""
    return " ".join([prefix, *(f"{column}: {row.text(column)}" for column in columns)])


def label_text(row: Row, labels: tuple[str, ...]) -> str:
    """The name of a row's class; `<unk>` for -1. Raises BadColumn for a label outside `labels`."""
    if "label" not in row:
        raise BadColumn(f"no column 'label'; there are {sorted(row)[:10]}")
    label = class_of(row["label"], labels)
    return UNLABELLED_TEXT if label == UNLABELLED else labels[label]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KeyedText:
    """Examples of a classification task: `inputs` are the columns after their names, `targets` the
    class."""

    prefix: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]

    def __call__(self, row: Row) -> Iterator[Example]:
        yield {
            "inputs": keyed_text(self.prefix, row, self.columns),
            "targets": label_text(row, self.labels),
            "idx": row.get("idx"),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class ClassOfText:
    """Postprocess: a label's name -> its class id, -1 for other text (T5's
    `string_label_to_class_id`)."""

    labels: tuple[str, ...]

    def __call__(self, text: str, *, example: Example | None = None, is_target: bool = False):
        return self.labels.index(text) if text in self.labels else UNLABELLED


def classification_task(
    dataset: Dataset, labels: tuple[str, ...], *, splits: tuple[str, ...], **fields: Any
) -> ExampleTask:
    """A task whose answers are the names of classes, for generation and for ranking."""
    return dataset.task(
        postprocess=ClassOfText(labels),
        choices=FixedChoices(labels),
        splits=splits,
        train_splits=("train",) if "train" in splits else (),
        **fields,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class FixedChoices:
    """The answers among which rank classification chooses, the same for every example."""

    labels: tuple[str, ...]

    def __call__(self, example: Example) -> list[str]:
        return list(self.labels)
