"""Rows of plain text, which an objective makes into inputs and targets.

The stream is one ring of N tokens. An epoch begins at a random token and cuts the ring into rows of
`raw` tokens, so that row borders move from epoch to epoch; the last row of an epoch has the N % raw
tokens that are left (if any) and is padded. Every token is in exactly one row per epoch.

Shapes: B rows, L tokens of a row before the objective.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from t5jax.data.objectives import Coded, Objective, lengths_of, objective_code
from t5jax.data.pipeline.converters import Features
from t5jax.data.pipeline.order import Order
from t5jax.data.pipeline.rows import usable_ids
from t5jax.data.rng import derive_seed, integers_below
from t5jax.data.store.reader import TokenStream
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError, DataError

_BLOCK_ROWS = (
    128  # rows worked on at once: enough to spread NumPy's overhead, few enough for a cache
)


class TextRows:
    """Rows of a stream of plain text; row i's noise is drawn from (seed, i).

    `prefix_ids` stand in front of every row's inputs. `num_tokens` limits the ring to the stream's
    first tokens, which are then repeated exactly (Raffel et al. 2020, section 3.4.2).
    Raises ConfigError when the objective does not fit the lengths or the vocabulary, or has no
    place for a prefix; DataError when the stream has no tokens.
    """

    examples_per_row = 1.0

    def __init__(
        self,
        stream: TokenStream,
        objective: Objective,
        vocabulary: Vocabulary,
        *,
        inputs_length: int,
        targets_length: int,
        seed: int,
        shuffle: bool = True,
        prefix_ids: np.ndarray | None = None,
        num_tokens: int | None = None,
        task: str = "",
    ):
        self._where = f"task {task}, " if task else ""
        self._prefix = np.zeros(0, np.int32) if prefix_ids is None else prefix_ids
        room = inputs_length - len(self._prefix)
        objective.check(
            inputs_length=room,
            targets_length=targets_length,
            num_sentinels=vocabulary.num_sentinels,
        )
        lengths = lengths_of(objective, room, targets_length)
        if len(self._prefix) and (objective.packs or not lengths.inputs):
            raise ConfigError(
                f"the task puts a prefix before its inputs, and the objective {objective.name} "
                "packs several of them into a row or has none: take another data.objective, or a "
                "task without a prefix"
            )
        self.objective, self.vocabulary, self.shuffle = objective, vocabulary, shuffle
        self.stream = WithEos(stream, vocabulary) if objective.documents_end_with_eos else stream
        if stream.num_tokens == 0:
            raise DataError("a task whose texts have no tokens: nothing to make rows of")
        self.num_tokens = min(num_tokens or self.stream.num_tokens, self.stream.num_tokens)
        self._shape = inputs_length, targets_length
        self._seed = seed
        self._vocab_size = vocabulary.vocab_size
        self._mask_seed = derive_seed(seed, "masks")
        self._border_seed = derive_seed(seed, "borders")
        self.raw = min(lengths.raw, self.num_tokens)
        self.num_rows = math.ceil(self.num_tokens / self.raw)
        self._last_length = self.num_tokens - (self.num_rows - 1) * self.raw
        self._order = Order(self.num_rows, seed)

    @property
    def packs(self) -> bool:
        return self.objective.packs

    def read(self, ids_B: np.ndarray) -> Features:
        """Rows number ids_B: inputs [B, inputs_length] and targets [B, targets_length], int32 with
        EOS, padded; segments and positions where the objective packs. Raises DataError for
        an id in the stream that is not a text id of the vocabulary."""
        starts_B, lengths_B = self._spans(ids_B)
        parts = []
        for first in range(0, len(ids_B), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            parts.append(self._code(ids_B[block], starts_B[block], lengths_B[block]))
        inputs_length, targets_length = self._shape
        inputs, targets = [part.inputs for part in parts], [part.targets for part in parts]
        pad_id = self.vocabulary.pad_id
        return Features(
            inputs=self._joined(inputs, inputs_length, pad_id, self._prefix),
            targets=self._joined(targets, targets_length, pad_id),
            **self._packing(parts),
        )

    def stretches(self, row_id: int) -> list[tuple[str, int, int, int | None]]:
        """(feature, first token, number of tokens, None) of what the row shows."""
        starts_B, lengths_B = self._spans(np.array([row_id]))
        start, length = int(starts_B[0]), int(lengths_B[0])
        found = []
        while length > 0:  # the ring may end inside the row
            piece = min(length, self.num_tokens - start)
            found.append(("text", *self._plain(start, piece), None))
            start, length = 0, length - piece
        return found

    def identity(self) -> dict[str, Any]:
        return {
            "objective": self.objective.to_dict(),
            "prefix": self._prefix.tolist(),
            "num_tokens": self.num_tokens,
            "lengths": self._shape,
            "seed": self._seed,
            "shuffle": self.shuffle,
        }

    def _plain(self, start: int, length: int) -> tuple[int, int]:
        """(start, length) among the text tokens alone."""
        if isinstance(self.stream, WithEos):
            return self.stream.plain(start, length)
        return start, length

    def _spans(self, ids_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(start, length) in the ring of each row; length 0 after a single pass's last."""
        if not self.shuffle:
            exists_B = ids_B < self.num_rows
            rows_B = np.where(exists_B, ids_B, 0)
            return rows_B * self.raw, np.where(exists_B, self._row_lengths(rows_B), 0)
        epochs_B, rows_B = self._order(ids_B)
        offsets_B = integers_below(self.num_tokens, self._border_seed, epochs_B)
        starts_B = (rows_B * self.raw + offsets_B) % self.num_tokens
        return starts_B, self._row_lengths(rows_B)

    def _row_lengths(self, rows_B: np.ndarray) -> np.ndarray:
        return np.where(rows_B == self.num_rows - 1, self._last_length, self.raw)

    def _code(self, ids_B: np.ndarray, starts_B: np.ndarray, lengths_B: np.ndarray) -> Coded:
        tokens_BL = self._tokens(starts_B)
        self._check_ids(tokens_BL, starts_B)
        ragged = bool((lengths_B != self.raw).any())
        inputs_length, targets_length = self._shape
        place = f"{self._where}rows {ids_B[0]} to {ids_B[-1]}"
        with objective_code(self.objective, place, DataError):
            return self.objective.apply(
                tokens_BL, ids_B, self._mask_seed, self.vocabulary, lengths_B if ragged else None
            ).trimmed(
                inputs_length - len(self._prefix),
                targets_length,
                pad_id=self.vocabulary.pad_id,
                eos_id=self.vocabulary.eos_id,
            )

    def _tokens(self, starts_B: np.ndarray) -> np.ndarray:
        tokens_BL = self.stream.read_rows(starts_B, self.raw)
        if self.num_tokens < self.stream.num_tokens:  # the ring closes before the stream's end
            beyond_B = self.num_tokens - starts_B
            for row in np.flatnonzero(beyond_B < self.raw):
                rest = self.raw - int(beyond_B[row])
                tokens_BL[row, -rest:] = self.stream.read_rows(np.zeros(1, np.int64), rest)[0]
        return tokens_BL

    def _check_ids(self, tokens_BL: np.ndarray, starts_B: np.ndarray) -> None:
        vocabulary = self.vocabulary
        refused = [vocabulary.pad_id]
        if not self.objective.documents_end_with_eos:
            refused.append(vocabulary.eos_id)
        if max(refused) < tokens_BL.min() and tokens_BL.max() < self._vocab_size:
            return
        bad_BL = (tokens_BL >= self._vocab_size) | (tokens_BL < 0) | np.isin(tokens_BL, refused)
        if not bad_BL.any():
            return
        row, column = np.argwhere(bad_BL)[0]
        position = int(starts_B[row] + column) % self.num_tokens
        raise DataError(
            f"feature text (encoder_input_tokens / decoder_target_tokens): id "
            f"{tokens_BL[row, column]} at token {position} of the stream is not a text id of the "
            f"vocabulary ({usable_ids(vocabulary.vocab_size, refused)}); the store is damaged: "
            "check it with t5jax cache CONFIG --verify, or delete it and run t5jax cache again"
        )

    def _joined(
        self, parts: Sequence[Any], width: int, fill: int, prefix: np.ndarray | None = None
    ) -> np.ndarray:
        """[B, width]: the parts below each other, padded; the prefix before each row with text."""
        start = 0 if prefix is None else len(prefix)
        if len(parts) == 1 and parts[0].shape[1] == width and not start:
            return parts[0]
        rows_BK = np.full((sum(len(part) for part in parts), width), fill, np.int32)
        first = 0
        for part in parts:
            rows_BK[first : first + len(part), start : start + part.shape[1]] = part
            first += len(part)
        if prefix is not None and start:
            rows_BK[(rows_BK != fill).any(axis=1), :start] = prefix
        return rows_BK

    def _packing(self, parts: list[Coded]) -> dict[str, np.ndarray]:
        """Segments and positions, where the objective gives them."""
        if parts[0].inputs_segments is None:
            return {}
        found = {}
        for side, width in zip(("inputs", "targets"), self._shape, strict=True):
            for name in (f"{side}_segments", f"{side}_positions"):
                found[name] = self._joined([getattr(part, name) for part in parts], width, 0)
        return found


class WithEos:
    """A stream with an EOS after each document, without storing one."""

    def __init__(self, stream: TokenStream, vocabulary: Vocabulary):
        self._stream, self._eos_id = stream, vocabulary.eos_id
        ends = stream.offsets()[1:]
        self._eos_positions = ends + np.arange(len(ends))
        self.num_tokens = stream.num_tokens + len(ends)

    def plain(self, start: int, length: int) -> tuple[int, int]:
        """(start, length) of the same stretch among the text tokens alone."""
        before, within = np.searchsorted(self._eos_positions, [start, start + length])
        return start - int(before), length - int(within - before)

    def read_rows(self, starts_B: np.ndarray, length: int) -> np.ndarray:
        """int32 [B, length], of the ring of text and EOS; as `TokenStream.read_rows`."""
        places_BL = (starts_B[:, None] + np.arange(length)) % self.num_tokens
        ordinal_BL = np.searchsorted(self._eos_positions, places_BL)
        last = len(self._eos_positions) - 1
        is_eos_BL = self._eos_positions[np.minimum(ordinal_BL, last)] == places_BL
        text_BL = places_BL - ordinal_BL
        num_text = self._stream.num_tokens
        first_B = text_BL[:, 0] % num_text
        width = min(length, num_text)
        rows_BL = self._stream.read_rows(first_B, width).astype(np.int32)
        columns_BL = (text_BL - first_B[:, None]) % num_text
        found_BL = np.take_along_axis(rows_BL, np.minimum(columns_BL, width - 1), axis=1)
        return np.where(is_eos_BL, self._eos_id, found_BL)
