"""Rows of examples that have inputs and targets, or targets alone: one in a row, or several packed.

Packing is decided once, from lengths alone (`packing.pack_examples`): what shares a row is fixed,
and an epoch permutes whole rows. So the packed order keeps the property of the unpacked one, that
row i is a function of (seed, i) which any host can compute at any time.

Shapes: B rows, M examples in them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5jax.data.pipeline.converters import Features
from t5jax.data.pipeline.order import Order
from t5jax.data.pipeline.packing import pack_examples
from t5jax.data.pipeline.rows import usable_ids
from t5jax.data.store.reader import TokenStream
from t5jax.data.tasks.task import EosRule
from t5jax.errors import DataError
from t5jax.types import EOS_ID, PAD_ID

_FEATURES = ("inputs", "targets")


class ExampleRows:
    """Rows of the streams `inputs` and `targets`, or `targets` alone, trimmed to their lengths.

    Every feature ends in EOS, however short it was cut, unless `eos` gives another rule for it.
    With a `joined_length` inputs and targets are packed to what they fill together, one behind the
    other, and either may be as wide as that. Raises DataError when there are no examples.
    """

    def __init__(
        self,
        streams: Mapping[str, TokenStream],
        *,
        inputs_length: int,
        targets_length: int,
        vocab_size: int,
        seed: int,
        shuffle: bool = True,
        pack: bool = True,
        eos: Mapping[str, EosRule] | None = None,
        joined_length: int | None = None,
        pad_id: int = PAD_ID,
        eos_id: int = EOS_ID,
    ):
        self._streams, self._seed, self.shuffle, self._packs = streams, seed, shuffle, pack
        self.features = tuple(name for name in _FEATURES if name in streams)
        self._limits = {"inputs": inputs_length, "targets": targets_length}
        self._joined_length = joined_length if pack else None
        self._widths = {n: self._joined_length or limit for n, limit in self._limits.items()}
        self._vocab_size, self._pad_id, self._eos_id = vocab_size, pad_id, eos_id
        self._eos: dict[str, EosRule] = {
            name: (eos or {}).get(name, "after_trim") for name in self.features
        }
        self._offsets = {name: streams[name].offsets() for name in self.features}
        self.num_examples = len(self._offsets["targets"]) - 1
        if self.num_examples == 0:
            raise DataError("a task without examples: nothing to make rows of")
        self._text_lengths = {name: self._trimmed(name) for name in self.features}
        self._lengths = {name: self._with_eos(name) for name in self.features}
        self._members, self._ends = self._row_members()
        self.num_rows = len(self._ends)
        self.examples_per_row = self.num_examples / self.num_rows
        self._order = Order(self.num_rows, seed)

    @property
    def packs(self) -> bool:
        return self._packs

    @property
    def num_trimmed(self) -> dict[str, int]:
        """How many examples are longer than their row, by feature."""
        return {
            name: int(np.sum(self._text_lengths[name] < np.diff(self._offsets[name])))
            for name in self.features
        }

    def lengths(self, feature: str) -> np.ndarray:
        """int64 [examples]: tokens of each example as stored, without EOS."""
        return np.diff(self._offsets[feature])

    @property
    def fill(self) -> dict[str, float]:
        """Share of the rows' positions that are not padding, by feature."""
        return {
            name: float(self._lengths[name].sum() / (self.num_rows * self._widths[name]))
            for name in self.features
        }

    def read(self, ids_B: np.ndarray) -> Features:
        """Rows number ids_B: inputs [B, inputs_length] and targets [B, targets_length] (or both
        [B, joined_length]), int32; packed rows with segments (1, 2, ... and 0 for padding) and
        positions in them. Inputs that the examples lack are padding."""
        examples_M, rows_M = self._examples(ids_B)
        filled = {name: self._fill(name, examples_M, rows_M, len(ids_B)) for name in _FEATURES}
        arrays = {name: tokens for name, (tokens, _, _) in filled.items()}
        if self.packs:
            for name, (_, segments, positions) in filled.items():
                arrays |= {f"{name}_segments": segments, f"{name}_positions": positions}
        return Features(**arrays)

    def stretches(self, row_id: int) -> list[tuple[str, int, int, int | None]]:
        """(feature, first token, number of tokens, example) of what the row shows."""
        return [
            (
                name,
                int(self._offsets[name][example]),
                int(self._text_lengths[name][example]),
                int(example),
            )
            for example in self._examples(np.array([row_id]))[0]
            for name in self.features
        ]

    def identity(self) -> dict[str, Any]:
        return {
            "pack": self.packs,
            "lengths": self._limits,
            "eos": self._eos,
            "rows": hashlib.sha256(self._members.tobytes() + self._ends.tobytes()).hexdigest(),
            "seed": self._seed,
            "shuffle": self.shuffle,
        }

    def _trimmed(self, name: str) -> np.ndarray:
        """int64 [examples]: tokens that a row shows, without EOS."""
        room = self._limits[name] - (self._eos[name] == "after_trim")
        return np.minimum(np.diff(self._offsets[name]), room)

    def _with_eos(self, name: str) -> np.ndarray:
        """int64 [examples]: tokens that a row shows, EOS included where it has one."""
        if self._eos[name] == "none":
            return self._text_lengths[name]
        return np.minimum(self._text_lengths[name] + 1, self._limits[name])

    def _row_members(self) -> tuple[np.ndarray, np.ndarray]:
        """(examples, row after row; where each row ends among them)."""
        if not self.packs:
            return np.arange(self.num_examples), np.arange(1, self.num_examples + 1)
        lengths_NF = np.stack([self._lengths[name] for name in self.features], axis=1)
        limits_F = np.array([self._limits[name] for name in self.features])
        if self._joined_length is not None:
            lengths_NF = lengths_NF.sum(axis=1, keepdims=True)
            limits_F = np.array([self._joined_length])
        return pack_examples(lengths_NF, limits_F, window=min(1024, self.num_examples))

    def _examples(self, ids_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(example, row of the batch) of all examples in the rows, in their order."""
        if self.shuffle:
            rows_B, exists_B = self._order(ids_B)[1], np.ones(len(ids_B), bool)
        else:
            exists_B = ids_B < self.num_rows
            rows_B = np.where(exists_B, ids_B, 0)
        ends_B = self._ends[rows_B]
        starts_B = np.where(rows_B > 0, self._ends[rows_B - 1], 0)
        counts_B = np.where(exists_B, ends_B - starts_B, 0)
        rows_M = np.repeat(np.arange(len(ids_B)), counts_B)
        nth_M = _counted_from_zero(counts_B)
        return self._members[starts_B[rows_M] + nth_M], rows_M

    def _fill(
        self, name: str, examples_M: np.ndarray, rows_M: np.ndarray, num_rows: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, segments, positions), int32 [num_rows, limit]."""
        limit = self._widths[name]
        if name not in self.features:
            tokens, segments, positions = np.zeros((3, num_rows, limit), np.int32)
            return tokens, segments, positions
        lengths_M = self._lengths[name][examples_M]
        counts_B = np.bincount(rows_M, minlength=num_rows)
        before_M = np.concatenate([[0], np.cumsum(lengths_M)])
        row_starts_B = np.concatenate([[0], np.cumsum(counts_B)])[:-1]
        first_M = before_M[:-1] - before_M[row_starts_B[rows_M]]
        positions = _counted_from_zero(lengths_M)
        places = np.repeat(rows_M * limit + first_M, lengths_M) + positions
        out = np.zeros((3, num_rows * limit), np.int32)
        out[0] = self._pad_id
        out[1, places] = np.repeat(_counted_from_zero(counts_B) + 1, lengths_M)
        out[2, places] = positions
        text_lengths_M = self._text_lengths[name][examples_M]
        is_text = positions < np.repeat(text_lengths_M, lengths_M)
        out[0, places[is_text]] = self._tokens(name, examples_M, text_lengths_M)
        out[0, places[~is_text]] = self._eos_id
        tokens, segments, positions = out.reshape(3, num_rows, limit)
        return tokens, segments, positions

    def _tokens(self, name: str, examples_M: np.ndarray, lengths_M: np.ndarray) -> np.ndarray:
        tokens = self._streams[name].read_pieces(self._offsets[name][examples_M], lengths_M)
        if not len(tokens):
            return tokens
        if not 0 <= tokens.min() <= tokens.max() < self._vocab_size or (
            self._pad_id >= tokens.min() and (tokens == self._pad_id).any()
        ):
            raise DataError(
                f"feature {name}: ids {tokens.min()} to {tokens.max()} are not all ids of the "
                f"vocabulary ({usable_ids(self._vocab_size, [self._pad_id])}); "
                "the store is damaged: check it with t5jax cache CONFIG --verify, or delete it and "
                "run t5jax cache again"
            )
        return tokens


def _counted_from_zero(counts: np.ndarray) -> np.ndarray:
    """0 .. counts[0]-1, then 0 .. counts[1]-1, ..."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
