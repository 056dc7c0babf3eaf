"""Reading the offline token store that `cache.py` builds: memory-mapped and by position.

A store is one directory per split:

    shard-00000.tokens   uint16 (uint32 beyond 65536 ids), documents back to back, no EOS
    shard-00000.ends     uint64, the position after each document's last token
    shard-00000.json     what the two files are: source, counts, checksums; written after them
    vocabulary.model     the SentencePiece file that made the ids (bytes need none)
    META.json            everything a reader checks; written last, so its presence means complete
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, Vocabulary
from t5jax.errors import DataError

FORMAT = "t5jax token store"
FORMAT_VERSION = 1
META = "META.json"
VOCABULARY_FILE = "vocabulary.model"
ENDS_DTYPE = np.dtype("<u8")
MAKE_IT = "make it with: t5jax cache CONFIG"
NAME_RULE = (
    "begin with a letter or digit, then letters, digits and _ . : # - (no '..', at most 128)"
)
# seqio's own pattern for the names of tasks also takes ".", ".." and a trailing newline.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:#-]{0,127}")


def can_name_directory(name: str) -> bool:
    """Whether a task or split of this name can be a folder of the cache everywhere: NAME_RULE."""
    return _NAME.fullmatch(name) is not None and ".." not in name


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard: `source` is its name there, the fingerprints are those of what made it."""

    name: str
    source: str
    source_fingerprint: str
    vocabulary_fingerprint: str
    documents: int
    tokens: int
    characters: int
    utf8_bytes: int
    tokens_sha256: str
    ends_sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CacheInfo:
    """META.json. `objective` is what the store was made for; its tokens are plain text's."""

    split: str
    dtype: str
    vocabulary: dict[str, Any]
    objective: dict[str, Any] | None
    source: dict[str, Any]
    documents: int
    tokens: int
    characters: int
    utf8_bytes: int
    shards: list[ShardInfo]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the vocabulary and of every shard's bytes: equal stores, equal rows."""
        digest = hashlib.sha256(f"{self.dtype} {self.vocabulary['fingerprint']}".encode())
        for shard in self.shards:
            digest.update(f"{shard.tokens_sha256}{shard.ends_sha256}".encode())
        return digest.hexdigest()


def read_info(directory: str | os.PathLike) -> CacheInfo:
    """META.json of a complete store; DataError when there is none or another format's."""
    path = pathlib.Path(directory) / META
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        unfinished = any(pathlib.Path(directory).glob("shard-*"))
        state = "the token store in {} is not finished" if unfinished else "no token store in {}"
        raise DataError(f"{state.format(directory)}; {MAKE_IT}") from error
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}); delete {directory}, then {MAKE_IT}"
        ) from error
    version = (record.get("format"), record.get("format_version"))
    if version != (FORMAT, FORMAT_VERSION):
        raise DataError(
            f"{path} has format {version}, this t5jax reads {(FORMAT, FORMAT_VERSION)}; delete "
            f"{directory}, then {MAKE_IT}"
        )
    return CacheInfo(**record | {"shards": [ShardInfo(**shard) for shard in record["shards"]]})


class Place(NamedTuple):
    """A piece of one shard: where tokens of a row come from."""

    shard: str
    source: str
    token_offset: int
    num_tokens: int
    first_document: int
    last_document: int


class TokenCache:
    """The tokens of a store as one sequence of `num_tokens`, shard after shard."""

    def __init__(self, directory: pathlib.Path, info: CacheInfo):
        self.directory = directory
        self.info = info
        self.fingerprint = info.fingerprint
        self.num_tokens = info.tokens
        self._starts = np.cumsum([0] + [shard.tokens for shard in info.shards])
        self._tokens: dict[int, np.ndarray] = {}

    @classmethod
    def open(
        cls, directory: str | os.PathLike, vocabulary: Vocabulary | None = None
    ) -> "TokenCache":
        """Checks META.json and the files' sizes (not their bytes: see `verify`).

        Raises DataError when the store is missing, unfinished, empty, cut short, or made with
        another vocabulary than the given one.
        """
        directory = pathlib.Path(directory)
        cache = cls(directory, read_info(directory))
        if cache.num_tokens == 0:
            raise DataError(f"the token store in {directory} is empty; delete it, then {MAKE_IT}")
        if vocabulary is not None:
            cache.check_vocabulary(vocabulary)
        for shard in cache.info.shards:
            for suffix, size in (
                (".tokens", shard.tokens * np.dtype(cache.info.dtype).itemsize),
                (".ends", shard.documents * ENDS_DTYPE.itemsize),
            ):
                cache._check_size(directory / (shard.name + suffix), size)
        return cache

    def check_vocabulary(self, vocabulary: Vocabulary) -> None:
        made_with = self.info.vocabulary["fingerprint"]
        if vocabulary.fingerprint != made_with:
            raise DataError(
                f"the token store in {self.directory} was made with vocabulary {made_with[:12]}…, "
                f"this run uses {vocabulary.fingerprint[:12]}…; use {self.directory}/"
                f"{VOCABULARY_FILE}, or another cache directory and {MAKE_IT}"
            )

    def vocabulary(self) -> Vocabulary:
        """The vocabulary the store was made with, from the store itself."""
        extra_ids = self.info.vocabulary["extra_ids"]
        if self.info.vocabulary["type"] == "bytes":
            return ByteVocabulary(extra_ids=extra_ids)
        return SentencePieceVocabulary(
            path=str(self.directory / VOCABULARY_FILE), extra_ids=extra_ids
        )

    def verify(self) -> None:
        """Reads every byte; DataError names the first file that is not what was written."""
        for shard in self.info.shards:
            for suffix, wanted in ((".tokens", shard.tokens_sha256), (".ends", shard.ends_sha256)):
                path = self.directory / (shard.name + suffix)
                with open(path, "rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != wanted:
                    raise DataError(
                        f"{path} is damaged: sha256 {found[:12]}…, written was {wanted[:12]}…; "
                        f"delete {shard.name}.* and {META} there, then {MAKE_IT}"
                    )
        self.check_vocabulary(self.vocabulary())

    def read_rows(self, starts_B: np.ndarray, length: int) -> np.ndarray:
        """[B, length] tokens in the store's dtype; row b begins at position starts_B[b].

        The sequence is a ring: after its last token comes its first. length <= num_tokens.
        """
        assert 0 < length <= self.num_tokens, (length, self.num_tokens)
        rows_BL = np.empty((len(starts_B), length), self.info.dtype)
        shards_B = np.searchsorted(self._starts, starts_B, side="right") - 1
        offsets_B = starts_B - self._starts[shards_B]
        for row_L, shard, offset in zip(
            rows_BL, shards_B.tolist(), offsets_B.tolist(), strict=True
        ):
            piece = self._shard_tokens(shard)[offset : offset + length]
            if len(piece) == length:
                row_L[:] = piece
            else:
                self._read_across(row_L, shard, offset)
        return rows_BL

    def places(self, start: int, length: int) -> list[Place]:
        """Where the tokens of a row come from: one place per shard that it touches."""
        found = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        offset = start - int(self._starts[shard])
        while length > 0:
            info = self.info.shards[shard]
            count = min(length, info.tokens - offset)
            if count > 0:
                documents = np.searchsorted(
                    self.document_ends(shard), [offset, offset + count - 1], side="right"
                )
                found.append(Place(info.name, info.source, offset, count, *map(int, documents)))
                length -= count
            shard, offset = (shard + 1) % len(self.info.shards), 0
        return found

    def document_ends(self, shard: int) -> np.ndarray:
        """uint64: for each document of a shard, the position after its last token."""
        return np.fromfile(self.directory / f"{self.info.shards[shard].name}.ends", ENDS_DTYPE)

    def _read_across(self, row_L: np.ndarray, shard: int, offset: int) -> None:
        filled = 0
        while filled < len(row_L):
            piece = self._shard_tokens(shard)[offset : offset + len(row_L) - filled]
            row_L[filled : filled + len(piece)] = piece
            filled += len(piece)
            shard, offset = (shard + 1) % len(self.info.shards), 0

    def _shard_tokens(self, shard: int) -> np.ndarray:
        """Mapped on first use: a pod's host need not open thousands of shards to start."""
        tokens = self._tokens.get(shard)
        if tokens is None:
            info = self.info.shards[shard]
            path = self.directory / f"{info.name}.tokens"
            dtype = np.dtype(self.info.dtype).newbyteorder("<")
            # A plain view of the map: np.memmap's own slicing costs ten times as much.
            tokens = np.asarray(np.memmap(path, dtype, "r")) if info.tokens else np.empty(0, dtype)
            self._tokens[shard] = tokens
        return tokens

    @staticmethod
    def _check_size(path: pathlib.Path, size: int) -> None:
        found = path.stat().st_size if path.exists() else None
        if found != size:
            raise DataError(
                f"{path} has {found} bytes, {META} says {size}: cut short, or not copied whole; "
                f"copy the store again, or delete it and {MAKE_IT}"
            )
