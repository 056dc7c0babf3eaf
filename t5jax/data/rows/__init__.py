"""Rows of a task as a function of their number: what stands between a token store and a batch.

order.py      which row of the store is the i-th: a keyed permutation, new in every epoch
text.py       rows of plain text, made into inputs and targets by an objective
examples.py   rows of examples with an input and a target each, one or several in a row
"""

from typing import Any, Protocol

import numpy as np

from t5jax.data.converters import Features
from t5jax.data.rows.examples import ExampleRows
from t5jax.data.rows.text import TextRows

__all__ = ["ExampleRows", "Rows", "TextRows"]


class Rows(Protocol):
    """The rows of one task. Shuffled they go on for ever, epoch after epoch; in order they are one
    pass, and what lies beyond it is empty."""

    num_rows: int  # of one epoch
    examples_per_row: float

    @property
    def packs(self) -> bool:
        """Whether rows come with segments and positions."""
        ...

    def read(self, ids_B: np.ndarray) -> Features:
        """Rows number ids_B: inputs [B, inputs_length] and targets [B, targets_length], int32."""
        ...

    def stretches(self, row_id: int) -> list[tuple[str, int, int, int | None]]:
        """(feature, first token, number of tokens, example) of what the row shows."""
        ...

    def identity(self) -> dict[str, Any]:
        """Whatever decides what row i is, besides the tokens."""
        ...
