"""The tokens of one feature of a store in a bucket: what `TokenStream` needs to read them."""

import collections
import hashlib
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from t5jax.data.store.local_copy import LocalCopy
from t5jax.data.store.ranges import Range, read_ranges
from t5jax.errors import DataError

_ENDS_KEPT = 64  # shards
_ENDS_AHEAD = 32


class ShardObjects(NamedTuple):
    """A feature of one shard: its two objects, their sizes in bytes and sha256."""

    tokens: str
    tokens_bytes: int
    tokens_sha256: str
    ends: str
    ends_bytes: int
    ends_sha256: str


class BucketTokens:
    """Tokens through the local copy; the ends of documents are read shard by shard, whole."""

    def __init__(
        self,
        shards: Sequence[ShardObjects],
        dtype: np.dtype,
        ends_dtype: np.dtype,
        copy: LocalCopy,
    ):
        self._shards, self._dtype, self._ends_dtype, self._copy = shards, dtype, ends_dtype, copy
        self._numbers = [copy.add(x.tokens, x.tokens_bytes, x.tokens_sha256) for x in shards]
        self._ends: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._next_ends = 0
        self._lock = threading.Lock()

    def load(self, shard: int) -> "_TokensOfShard":
        """The tokens of a shard; slices of it are arrays."""
        num_tokens = self._shards[shard].tokens_bytes // self._dtype.itemsize
        return _TokensOfShard(self._copy, self._numbers[shard], self._dtype, num_tokens)

    def fetch(self, spans: Iterable[tuple[int, int, int]]) -> None:
        """Reads what is not here of the spans (shard, first token, number of tokens) that do not
        end beyond their shard, all at a time."""
        size = self._dtype.itemsize
        self._copy.fetch(
            (
                self._numbers[shard],
                offset * size,
                min((offset + length) * size, self._shards[shard].tokens_bytes),
            )
            for shard, offset, length in spans
        )

    def ends(self, shard: int) -> np.ndarray:
        """The position after each document's last token. Shards that are asked for in their order
        are read ahead. Raises DataError for ends that are not those that were written."""
        with self._lock:
            if shard not in self._ends:
                ahead = _ENDS_AHEAD if shard == self._next_ends else 1
                self._read_ends(range(shard, min(shard + ahead, len(self._shards))))
            self._next_ends = shard + 1
            self._ends.move_to_end(shard)
            return self._ends[shard]

    def _read_ends(self, shards: range) -> None:
        wanted = [Range(x.ends, 0, x.ends_bytes) for x in map(self._shards.__getitem__, shards)]
        found = read_ranges(wanted, self._copy.traffic)
        for shard, data in zip(shards, found, strict=True):
            of = self._shards[shard]
            if hashlib.sha256(data).hexdigest() != of.ends_sha256:
                raise DataError(
                    f"{of.ends} is damaged: its sha256 is not the one in META.json; copy the store "
                    "again (t5jax cache CONFIG --verify reads all of it)"
                )
            self._ends[shard] = np.frombuffer(data, self._ends_dtype)
        while len(self._ends) > _ENDS_KEPT:
            self._ends.popitem(last=False)


class _TokensOfShard:
    """Slices of a shard's tokens, clipped as NumPy's are."""

    def __init__(self, copy: LocalCopy, number: int, dtype: np.dtype, num_tokens: int):
        self._copy, self._number, self._dtype, self._num_tokens = copy, number, dtype, num_tokens

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last, _ = part.indices(self._num_tokens)
        size = self._dtype.itemsize
        data = self._copy.read(self._number, first * size, max(first, last) * size)
        return np.frombuffer(data, self._dtype)
