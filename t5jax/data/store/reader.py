"""Reading a tokenised store by position: memory-mapped, or from a bucket through a local copy.

A store is one directory per split of a corpus or task. Its features are `text` (plain documents, of
which an objective makes inputs and targets) or `inputs` and `targets` (examples):

    shard-00000.text.tokens   uint16 (uint32 beyond 65536 ids), documents back to back, no EOS
    shard-00000.text.ends     uint64, the position after each document's last token
    shard-00000.json          what the files are: source, counts, checksums; written after them
    vocabulary.model          the file that made the ids (tokenizer.json; bytes need none)
    META.json                 all that a reader checks; written last, so it means complete
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from t5jax.data import vocabularies
from t5jax.data.store import version_2
from t5jax.data.store.bucket_tokens import BucketTokens, ShardObjects
from t5jax.data.store.directories import file_sizes, in_bucket, read_file, store_path
from t5jax.data.store.local_copy import local_copy
from t5jax.data.store.mapped_tokens import MappedTokens, allow_open_files
from t5jax.data.store.ranges import Traffic
from t5jax.data.store.spelling import SpellingCounts
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError

FORMAT = "t5jax token store"
FORMAT_VERSION = 3
META = "META.json"
CHECKSUM = "sha256"
ENDS_DTYPE = np.dtype("<u8")
MAKE_IT = "make it with: t5jax cache CONFIG"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FeatureInfo:
    """One feature of one shard; `spelling` are the `SpellingCounts` of its texts as JSON (None in
    stores of before they were counted)."""

    tokens: int
    characters: int
    utf8_bytes: int
    tokens_sha256: str
    ends_sha256: str
    spelling: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard: `source` is its name there, the fingerprints are those of what made it.

    `documents` counts examples where the store has inputs and targets. `rejected` says what was
    left out, {"records": n, "damaged_files": n, "places": [the first of them]}, and what the
    source's own rules took out, {"dropped": {rule: n}}.
    """

    name: str
    source: str
    source_fingerprint: str
    vocabulary_fingerprint: str
    documents: int
    features: dict[str, FeatureInfo]
    rejected: dict[str, Any]

    def files(self, dtype: np.dtype) -> Iterator[tuple[str, int, str]]:
        """(name, bytes, sha256) of the shard's files, but for its record."""
        for feature, info in self.features.items():
            stem = f"{self.name}.{feature}"
            yield f"{stem}.tokens", info.tokens * dtype.itemsize, info.tokens_sha256
            yield f"{stem}.ends", self.documents * ENDS_DTYPE.itemsize, info.ends_sha256


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CacheInfo:
    """META.json: what the store holds, what made it, and its sums over shards."""

    split: str
    dtype: str
    vocabulary: dict[str, Any]
    source: dict[str, Any]
    features: tuple[str, ...]
    shards: list[ShardInfo]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def rejected(self) -> int:
        """Records and files that were left out."""
        return sum(s.rejected["records"] + s.rejected["damaged_files"] for s in self.shards)

    @property
    def dropped(self) -> dict[str, int]:
        """What the source's own rules took out, by rule."""
        sums: dict[str, int] = {}
        for shard in self.shards:
            for rule, count in shard.rejected.get("dropped", {}).items():
                sums[rule] = sums.get(rule, 0) + count
        return sums

    def spelling(self) -> dict[str, SpellingCounts]:
        """What the vocabulary cannot spell, by feature; of shards that were counted."""
        sums = {name: SpellingCounts() for name in self.features}
        for shard in self.shards:
            for name, feature in shard.features.items():
                if feature.spelling is not None:
                    sums[name].add(SpellingCounts(**feature.spelling))
        return sums

    def total(self, what: str, feature: str | None = None) -> int:
        """Sum of `tokens`, `characters` or `utf8_bytes` over shards (and features)."""
        names = self.features if feature is None else (feature,)
        return sum(getattr(shard.features[name], what) for shard in self.shards for name in names)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the vocabulary and of every shard's bytes: equal stores, equal rows."""
        digest = hashlib.sha256(f"{self.dtype} {self.vocabulary['fingerprint']}".encode())
        for shard in self.shards:
            for name in self.features:
                info = shard.features[name]
                digest.update(f"{name} {info.tokens_sha256}{info.ends_sha256}".encode())
        return digest.hexdigest()


def shard_info(record: dict[str, Any]) -> ShardInfo:
    """Inverse of `dataclasses.asdict`. Raises TypeError or KeyError when it does not fit."""
    features = {name: FeatureInfo(**info) for name, info in record["features"].items()}
    fields: dict[str, Any] = record | {"features": features}
    return ShardInfo(**fields)


def read_info(directory: str | os.PathLike) -> CacheInfo:
    """META.json of a complete store; DataError when there is none or another format's."""
    path = store_path(directory) / META
    try:
        record = json.loads(read_file(path))
    except FileNotFoundError as error:
        unfinished = any(name.startswith("shard-") for name in file_sizes(path.parent))
        state = (
            "the tokenised store in {} is not finished"
            if unfinished
            else "no tokenised store in {}"
        )
        raise DataError(f"{state.format(directory)}; {MAKE_IT}") from error
    except ValueError as error:
        raise _damaged(path, error) from error
    written = record.pop(CHECKSUM, None)  # absent in stores that an older t5jax made
    version = (record.get("format"), record.get("format_version"))
    if version[0] != FORMAT or version[1] not in (version_2.FORMAT_VERSION, FORMAT_VERSION):
        raise DataError(
            f"{path} has format {version}, this t5jax reads {(FORMAT, FORMAT_VERSION)}; delete "
            f"{directory}, then {MAKE_IT}"
        )
    if written is not None and written != checksum(record):
        raise _damaged(path, "its own checksum is another")
    try:
        shards = [shard_info(shard) for shard in record["shards"]]
        return CacheInfo(**record | {"shards": shards, "features": tuple(record["features"])})
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def checksum(record: dict[str, Any]) -> str:
    """sha256 (hex) of a record, which META.json carries as `CHECKSUM` beside it."""
    return hashlib.sha256(json.dumps(record, default=str).encode()).hexdigest()


def _damaged(path: pathlib.Path, error: Exception | str) -> DataError:
    return DataError(f"{path} is damaged ({error}); delete {path.parent}, then {MAKE_IT}")


class Place(NamedTuple):
    """A piece of one shard: where tokens of a row come from."""

    shard: str
    source: str
    token_offset: int
    num_tokens: int
    first_document: int
    last_document: int


class TokenStream:
    """The tokens of one feature as one sequence of `num_tokens`, shard after shard.

    `shard_tokens` are the shards' sizes, `load(i)` gives the tokens of one of them (its slices are
    arrays) and `ends(i)` the position after each of its documents' last token. `fetch(spans)` is
    told what will be sliced: (shard, offset, number of tokens).
    """

    def __init__(self, dtype: np.dtype, shard_tokens: Sequence[int], load, ends, fetch=None):
        self.dtype = dtype
        self.num_tokens = int(sum(shard_tokens))
        self._starts = np.cumsum([0, *shard_tokens])
        self._load, self._ends, self._fetch = load, ends, fetch
        self._tokens: dict[int, np.ndarray] = {}

    @classmethod
    def of_documents(cls, documents: Sequence[np.ndarray]) -> "TokenStream":
        """A stream in memory, of int32 ids of each document."""
        tokens = np.concatenate([np.zeros(0, np.int32), *documents])
        ends = np.cumsum([len(document) for document in documents]).astype(ENDS_DTYPE)
        return cls(tokens.dtype, [len(tokens)], lambda _: tokens, lambda _: ends)

    def read_rows(self, starts_B: np.ndarray, length: int) -> np.ndarray:
        """[B, length] tokens in the store's dtype; row b begins at position starts_B[b].

        The sequence is a ring: after its last token comes its first. length <= num_tokens.
        """
        assert 0 < length <= self.num_tokens, (length, self.num_tokens)
        rows_BL = np.empty((len(starts_B), length), self.dtype)
        shards_B = np.searchsorted(self._starts, starts_B, side="right") - 1
        offsets_B = starts_B - self._starts[shards_B]
        if self._fetch is not None:
            lengths_B = [length] * len(starts_B)
            self._fetch(zip(shards_B.tolist(), offsets_B.tolist(), lengths_B, strict=True))
        for row_L, shard, offset in zip(
            rows_BL, shards_B.tolist(), offsets_B.tolist(), strict=True
        ):
            piece = self._shard(shard)[offset : offset + length]
            if len(piece) == length:
                row_L[:] = piece
            else:
                self._read_across(row_L, shard, offset)
        return rows_BL

    def read_pieces(self, starts_M: np.ndarray, lengths_M: np.ndarray) -> np.ndarray:
        """The tokens of M pieces, one after the other; no piece crosses a shard's end."""
        shards_M = np.searchsorted(self._starts, starts_M, side="right") - 1
        offsets_M = starts_M - self._starts[shards_M]
        spans = [
            span
            for span in zip(shards_M.tolist(), offsets_M.tolist(), lengths_M.tolist(), strict=True)
            if span[2]
        ]
        if self._fetch is not None:
            self._fetch(spans)
        pieces = [self._shard(shard)[offset : offset + length] for shard, offset, length in spans]
        return np.concatenate([np.zeros(0, self.dtype), *pieces])

    def offsets(self) -> np.ndarray:
        """int64 [documents + 1]: where each document begins, and where the last one ends."""
        ends = [
            self._ends(shard).astype(np.int64) + start
            for shard, start in enumerate(self._starts[:-1])
        ]
        return np.concatenate([np.zeros(1, np.int64), *ends])

    def locate(self, position: int) -> tuple[int, int]:
        """(shard, offset in it) of a position."""
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        return shard, position - int(self._starts[shard])

    def pieces(self, start: int, length: int) -> list[tuple[int, int, int, int, int]]:
        """(shard, offset, tokens, first document, last document) of a stretch of the ring."""
        found = []
        shard, offset = self.locate(start)
        sizes = np.diff(self._starts)
        while length > 0:
            count = min(length, int(sizes[shard]) - offset)
            if count > 0:
                span = [offset, offset + count - 1]
                documents = np.searchsorted(self._ends(shard), span, side="right")
                found.append((shard, offset, count, *map(int, documents)))
                length -= count
            shard, offset = (shard + 1) % len(sizes), 0
        return found

    def _read_across(self, row_L: np.ndarray, shard: int, offset: int) -> None:
        filled = 0
        while filled < len(row_L):
            piece = self._shard(shard)[offset : offset + len(row_L) - filled]
            row_L[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard, offset = (shard + 1) % (len(self._starts) - 1), 0

    def _shard(self, shard: int) -> np.ndarray:
        """Mapped on first use: a pod's host need not open thousands of shards to start."""
        tokens = self._tokens.get(shard)
        if tokens is None:
            tokens = self._tokens[shard] = self._load(shard)
        return tokens


class TokenStore:
    """A store on a disk or in a bucket: `info`, and a `TokenStream` per feature. `traffic` is what
    all stores of this process have read from buckets, None for a store on a disk."""

    def __init__(self, directory: pathlib.Path, info: CacheInfo):
        self.directory = directory
        self.info = info
        self.fingerprint = info.fingerprint
        self.traffic: Traffic | None = local_copy().traffic if in_bucket(directory) else None
        self.streams = {name: self._stream(name) for name in info.features}

    @classmethod
    def open(
        cls, directory: str | os.PathLike, vocabulary: Vocabulary | None = None
    ) -> "TokenStore":
        """Checks META.json and the files' sizes (not their bytes: see `verify.py`).

        Raises DataError when the store is missing, unfinished, empty, cut short, or made with
        another vocabulary than the given one.
        """
        directory = store_path(directory)
        store = cls(directory, read_info(directory))
        if store.traffic is None:
            allow_open_files(len(store.info.shards) * len(store.info.features))
        if store.info.total("tokens") == 0:
            raise DataError(
                f"the tokenised store in {directory} is empty; delete it, then {MAKE_IT}"
            )
        if vocabulary is not None:
            store.check_vocabulary(vocabulary)
        sizes = file_sizes(directory)
        for shard in store.info.shards:
            for name, size, _ in shard.files(store.dtype):
                if problem := wrong_size(directory / name, size, sizes.get(name)):
                    raise DataError(problem)
        return store

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.info.dtype).newbyteorder("<")

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        made_with = self.info.vocabulary["fingerprint"]
        if vocabulary.fingerprint != made_with:
            raise DataError(
                f"the tokenised store in {self.directory} was made with vocabulary "
                f"{made_with[:12]}…, this run uses {vocabulary.fingerprint[:12]}…; use the "
                f"vocabulary's copy in {self.directory}, or another cache directory and {MAKE_IT}"
            )

    def vocabulary(self) -> Vocabulary:
        """The vocabulary the store was made with, from the store itself."""
        return vocabularies.vocabulary_from_dict(self.info.vocabulary, self.directory)

    def places(self, feature: str, start: int, length: int) -> list[Place]:
        """Where a stretch of a feature's tokens comes from: one place per shard that it touches."""
        shards = self.info.shards
        return [
            Place(shards[shard].name, shards[shard].source, *rest)
            for shard, *rest in self.streams[feature].pieces(start, length)
        ]

    def place_of_example(self, example: int) -> Place:
        """Where an example comes from; its number within the shard is first_document."""
        starts = np.cumsum([0] + [shard.documents for shard in self.info.shards])
        shard = int(np.searchsorted(starts, example, side="right")) - 1
        info, number = self.info.shards[shard], example - int(starts[shard])
        return Place(info.name, info.source, 0, 0, number, number)

    def _stream(self, feature: str) -> TokenStream:
        shards = self.info.shards
        sizes = [shard.features[feature].tokens for shard in shards]
        if self.traffic is None:
            stems = [self.directory / f"{shard.name}.{feature}" for shard in shards]
            of = MappedTokens(stems, sizes, self.dtype, ENDS_DTYPE)
            return TokenStream(self.dtype, sizes, of.load, of.ends)
        objects = [self._objects(shard, feature) for shard in shards]
        of = BucketTokens(objects, self.dtype, ENDS_DTYPE, local_copy())
        return TokenStream(self.dtype, sizes, of.load, of.ends, of.fetch)

    def _objects(self, shard: ShardInfo, feature: str) -> ShardObjects:
        stem, info = f"{self.directory}/{shard.name}.{feature}", shard.features[feature]
        return ShardObjects(
            tokens=f"{stem}.tokens",
            tokens_bytes=info.tokens * self.dtype.itemsize,
            tokens_sha256=info.tokens_sha256,
            ends=f"{stem}.ends",
            ends_bytes=shard.documents * ENDS_DTYPE.itemsize,
            ends_sha256=info.ends_sha256,
        )


def wrong_size(path: pathlib.Path, size: int, found: int | None) -> str | None:
    """What is wrong with a file of `found` bytes (None: there is none) where META.json says `size`;
    None: nothing."""
    if found == size:
        return None
    is_so = "is missing" if found is None else f"has {found} bytes, {META} says {size}"
    return f"{path} {is_so}: not copied whole; copy the store again, or delete it and {MAKE_IT}"
