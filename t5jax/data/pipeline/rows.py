"""The protocol of a task's rows: row number -> tokens of inputs and targets."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from t5jax.data.pipeline.converters import Features


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


def usable_ids(vocab_size: int, refused: Sequence[int]) -> str:
    """For an error message: "2 to 32099" without 0 and 1."""
    least = next(id for id in range(vocab_size) if id not in refused)
    others = [str(id) for id in refused if id > least]
    return f"{least} to {vocab_size - 1}" + (f" without {' and '.join(others)}" if others else "")
