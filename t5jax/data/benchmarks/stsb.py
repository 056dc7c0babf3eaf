"""STS-B: a similarity score as text, and text as a score (Raffel et al. 2020, section 2.4)."""

from collections.abc import Iterator

import numpy as np

from t5jax.data.benchmarks.classification import keyed_text
from t5jax.data.records import BadColumn, Row
from t5jax.data.tasks.task import Example

UNPARSABLE = -1.0
UNLABELLED_SIMILARITY = "-1.0"  # T5's targets of a row without a score
LEAST, MOST = 0.0, 5.0


def similarity_examples(row: Row) -> Iterator[Example]:
    """`stsb sentence1: <sentence1> sentence2: <sentence2>` -> the score rounded to the nearest 0.2,
    with one decimal: 3.8. Without a score -1.0."""
    # float32 and ties to even, as T5 rounded: 2.5 is 12.5 steps of 0.2 and becomes 2.4.
    steps = np.round(np.float32(_similarity(row)) * np.float32(5))
    yield {
        "inputs": keyed_text("stsb", row, ("sentence1", "sentence2")),
        "targets": f"{steps / np.float32(5) + np.float32(0):.1f}",  # 0.0 of -0.0
        "idx": row.get("idx"),
    }


def _similarity(row: Row) -> float:
    """The row's score. Raises BadColumn for what is no number from 0 to 5, such as NaN."""
    label = row.get("label")
    if not isinstance(label, int | float) or isinstance(label, bool):
        raise BadColumn(f"column 'label' is {label!r}, not a number")
    if not (LEAST <= label <= MOST or label == UNPARSABLE):
        raise BadColumn(
            f"column 'label' is {label!r}: a similarity is a number from {LEAST} to {MOST}, or -1 "
            "in a split without labels"
        )
    return label


def similarity_of_text(
    text: str, *, example: Example | None = None, is_target: bool = False
) -> float:
    """A text as a number (T5's `string_to_float`), -1 for any other (a low score)."""
    try:
        value = float(text)
    except ValueError:
        return UNPARSABLE
    return value if np.isfinite(value) else UNPARSABLE
