"""The protocol of an objective: rows of token ids to inputs and targets.

Shapes: B rows, L tokens of a row's text, K tokens of inputs or targets. Rows shorter than L are
padded at their end and described by `lengths_B`. Padding and EOS are the vocabulary's.
"""

import contextlib
import dataclasses
import enum
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np

from t5jax.data.modules import import_path
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError, user_code
from t5jax.types import EOS_ID, PAD_ID


def objective_code(
    objective: "Objective", place: str = "", kind: type[ValueError] = ConfigError
) -> contextlib.AbstractContextManager[None]:
    """The boundary around an objective (`errors.user_code`)."""
    return user_code(objective, "objective", place, kind)


def lengths_of(
    objective: "Objective", inputs_length: int, targets_length: int | None = None
) -> "ObjectiveLengths":
    """`objective.lengths`. Raises ConfigError for whatever a user's objective raises."""
    with objective_code(objective):
        return objective.lengths(inputs_length, targets_length)


class Stream(enum.IntEnum):
    """Counters of a row's random numbers, one per use, so that no two uses share numbers.

    The examples of a seed depend on these values: add to the end, never renumber.
    """

    NOISE_SPANS = 1
    TEXT_SPANS = 2
    IID_NOISE = 3
    REGULAR_SPANS = 4
    SPLIT = 5
    RANDOM_IDS = 6
    RANDOM_OR_MASK = 7
    GATHERED_PLACES = 8
    PERMUTATION = 9


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ObjectiveLengths:
    """Lengths of a full row under an objective, in tokens, EOS included where a side ends with it.

    Where a row's lengths are drawn at random, these are the lengths to run with: what hardly any
    row exceeds (`Denoising` says how few).
    """

    raw: int
    inputs: int
    targets: int
    joined: int | None = None  # inputs and targets together, where that is less than their sum


class Coded(NamedTuple):
    """Inputs and targets of rows, as an objective makes them: int32 [B, K] each, padded.

    Segments (1, 2, ...; 0 is padding) and positions (0, 1, ... in each segment) are there only for
    objectives that put several examples into one row.
    """

    inputs: np.ndarray
    targets: np.ndarray
    inputs_segments: np.ndarray | None = None
    targets_segments: np.ndarray | None = None
    inputs_positions: np.ndarray | None = None
    targets_positions: np.ndarray | None = None

    def trimmed(
        self,
        inputs_length: int,
        targets_length: int,
        *,
        pad_id: int = PAD_ID,
        eos_id: int = EOS_ID,
    ) -> "Coded":
        """Inputs and targets cut to the lengths; a row that was cut ends with EOS.

        As T5's `append_eos_after_trim`. Rows with segments are never longer than they were asked
        to be.
        """
        if self.inputs_segments is not None:
            assert self.inputs.shape[1] <= inputs_length, (self.inputs.shape, inputs_length)
            assert self.targets.shape[1] <= targets_length, (self.targets.shape, targets_length)
        return self._replace(
            inputs=_trim(self.inputs, inputs_length, pad_id, eos_id),
            targets=_trim(self.targets, targets_length, pad_id, eos_id),
        )


def _trim(rows_BK: np.ndarray, length: int, pad_id: int, eos_id: int) -> np.ndarray:
    if rows_BK.shape[1] <= length:
        return rows_BK
    cut_BK = rows_BK[:, :length].copy()
    cut_BK[rows_BK[:, length] != pad_id, -1] = eos_id
    return cut_BK


@runtime_checkable
class Objective(Protocol):
    """A self-supervised objective: makes inputs and targets of rows of unlabelled text.

    `documents_end_with_eos`: the text that `apply` gets has EOS after every document, and no EOS is
    added at the ends of rows. Otherwise the text has none, and inputs and targets each end with it.
    `packs`: several examples stand in a row, so `apply` gives segments and positions.

    One's own is a frozen dataclass of a module, which may inherit `to_dict` (docs/extending.md).
    """

    name: ClassVar[str]
    documents_end_with_eos: ClassVar[bool]
    packs: ClassVar[bool]

    def lengths(self, inputs_length: int, targets_length: int | None = None) -> ObjectiveLengths:
        """The longest text whose inputs (or targets, for objectives without inputs) fit.

        Raises ConfigError when a length is missing or too short for any row.
        """
        ...

    def check(self, *, inputs_length: int, targets_length: int, num_sentinels: int) -> None:
        """Raises ConfigError, with the arithmetic, when lengths or sentinels cannot hold a row."""
        ...

    def apply(
        self,
        tokens_BL: np.ndarray,
        row_ids_B: np.ndarray,
        seed: int,
        vocabulary: Vocabulary,
        lengths_B: np.ndarray | None = None,
    ) -> Coded:
        """Inputs and targets of the rows; row b is a function of (seed, row_ids_B[b], its text).

        `lengths_B` is needed only when some row is shorter than L; a row of length 0 stays empty
        (no EOS). Integers of any width in, int32 out.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """A record (JSON) of which `objective_from_dict` makes an equal objective."""
        settings = dataclasses.asdict(self)  # pyright: ignore[reportArgumentType]
        return {"objective": import_path(type(self)), **settings}


def slices(
    tokens_BL: np.ndarray,
    starts_B: np.ndarray,
    counts_B: np.ndarray,
    width: int,
    pad_id: int = PAD_ID,
) -> np.ndarray:
    """int32 [B, width]: `counts_B` tokens of each row from `starts_B` on, then padding."""
    columns_K = np.arange(width)
    if tokens_BL.shape[1] == 0:
        return np.full((len(tokens_BL), width), pad_id, np.int32)
    places_BK = np.minimum(starts_B[:, None] + columns_K, tokens_BL.shape[1] - 1)
    taken_BK = np.take_along_axis(tokens_BL, places_BK, axis=1).astype(np.int32)
    taken_BK[columns_K >= counts_B[:, None]] = pad_id
    return taken_BK


def end_with_eos(
    rows_BK: np.ndarray,
    counts_B: np.ndarray,
    exists_B: np.ndarray,
    eos_id: int = EOS_ID,
) -> np.ndarray:
    """The rows, in place, with EOS behind their `counts_B` tokens where they exist."""
    rows_B = np.flatnonzero(exists_B)
    rows_BK[rows_B, counts_B[rows_B]] = eos_id
    return rows_BK


def lengths_or_full(tokens_BL: np.ndarray, lengths_B: np.ndarray | None) -> np.ndarray:
    """int64 [B]: the tokens of each row."""
    if lengths_B is None:
        return np.full(len(tokens_BL), tokens_BL.shape[1], np.int64)
    return np.asarray(lengths_B, np.int64)
