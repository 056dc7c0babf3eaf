"""Files by paths and glob patterns, local or remote: listing, opening, decompression.

A path is local, a URL of any fsspec protocol (`gs://`, `s3://`, `memory://` …), or `-`, which is
standard input where a single path is read (no pattern names it). gzip and zstd are
found by their magic. Whatever ends too early is a `DamagedFile`: TensorFlow's reader of gzip takes
truncated files for whole ones.

Lines are counted from 1, as editors do; rows and records from 0, as indices do.
"""

import abc
import contextlib
import dataclasses
import gzip
import logging
import os
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from t5jax.data.records import POLICIES, DamagedFile, Record
from t5jax.data.sources.patterns import expand_patterns, refuse_shared_files
from t5jax.data.sources.remote import file_system, remote_errors
from t5jax.data.sources.zstd import ZstdError, is_zstd, open_zstd
from t5jax.errors import OWN_ERRORS, ConfigError, DataError, failure
from t5jax.paths import expand

GZIP_MAGIC = b"\x1f\x8b"
_UNREAD_COMPRESSIONS = (".bz2", ".xz", ".lz4", ".zip", ".7z", ".rar", ".br")
STANDARD_INPUT = "-"
_log = logging.getLogger("t5jax")


@dataclasses.dataclass(kw_only=True, slots=True)
class Files(abc.ABC):
    """Files of up to three splits, given as paths or glob patterns (`**` for any depth of folders).

    One shard is one file. A format is a subclass that says how one file is read (`_records`).
    `empty_files` says whether one without records is refused ("error": a mistake upstream) or left
    out with a warning ("skip": Spark and Hadoop write such parts).
    """

    train_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    # Not shown: which rows a store has does not depend on it.
    empty_files: str = dataclasses.field(default="error", repr=False)

    def __post_init__(self) -> None:
        check_policy("empty_files", self.empty_files)
        for split, patterns in self._patterns().items():
            if isinstance(patterns, str):
                raise ConfigError(f"{split}_files={patterns!r}: give a tuple, ({patterns!r},)")

    def splits(self) -> tuple[str, ...]:
        """Those of `train`, `validation` and `test` that were given files."""
        return tuple(split for split, patterns in self._patterns().items() if patterns)

    def shards(self, split: str) -> list[str]:
        """Paths of the files of a split, sorted within each pattern.

        Raises DataError for an unknown split, no files, a pattern that matches nothing, a file
        named twice or in two splits; ConfigError where a protocol's driver is not installed.
        """
        self._patterns_of(split)
        files = {f"{x}_files": expand_patterns(self._patterns_of(x)) for x in self.splits()}
        refuse_shared_files(files, f"{split}_files")
        return files[f"{split}_files"]

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """The records of one file. Raises DamagedFile where it breaks off, DataError when it cannot
        be read at all or holds no record."""
        self._patterns_of(split)
        if self.empty_files == "skip":
            return self._records_or_none(shard)
        return refuse_empty(shard, self._records(shard))

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """Size and modification time of a file (whatever a remote store says of it): a cached copy
        of its tokens is made again when they change."""
        return file_fingerprint(shard)

    @abc.abstractmethod
    def _records(self, path: str) -> Iterator[Record]:
        """The records of one file, in their order."""

    def _records_or_none(self, path: str) -> Iterator[Record]:
        with open_raw(path) as raw:
            empty = not raw.read(1)  # of no format at all, whatever its name
        try:
            yield from refuse_empty(path, iter(()) if empty else self._records(path))
        except EmptyFile as error:
            _log.warning("%s: it is left out", error)

    def _patterns(self) -> dict[str, tuple[str, ...]]:
        return {
            "train": self.train_files,
            "validation": self.validation_files,
            "test": self.test_files,
        }

    def _patterns_of(self, split: str) -> tuple[str, ...]:
        by_split = self._patterns()
        if split not in by_split:
            raise DataError(f"no split {split!r} in these files: choose one of {list(by_split)}")
        if not by_split[split]:
            raise DataError(f"the {split} split has no files: set data.{split}_files")
        return by_split[split]


def file_exists(path: str) -> bool:
    """Whether a local path or URL names a file."""
    if "://" not in path:
        return os.path.isfile(expand(path))
    system, name = file_system(path)
    with remote_errors(path):
        return system.isfile(name)


def folder_names(path: str) -> list[str]:
    """Names in a folder, local or a URL; none where there is no such folder."""
    if "://" not in path:
        path = expand(path)
        return os.listdir(path) if os.path.isdir(path) else []
    system, name = file_system(path)
    with remote_errors(path):
        if not system.isdir(name):
            return []
        return [entry.rstrip("/").rpartition("/")[2] for entry in system.ls(name, detail=False)]


def file_fingerprint(path: str) -> str:
    """What changes when a file's content does: size and time, or a remote store's own mark."""
    if "://" in path:
        system, name = file_system(path)
        with remote_errors(path):
            return system.ukey(name)
    try:
        stat = os.stat(expand(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    return f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"


@contextlib.contextmanager
def open_raw(path: str) -> Iterator[Any]:
    """A binary file object, seekable where the store allows it; nothing decompressed. Raises
    DataError when it cannot be opened."""
    if path == STANDARD_INPUT:
        yield sys.stdin.buffer
        return
    if "://" in path:
        system, name = file_system(path)
        with remote_errors(path):
            file = system.open(name, "rb")
    else:
        try:
            file = open(expand(path), "rb")  # noqa: SIM115 (closed below, as a remote one)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
    with file:
        yield file


@contextlib.contextmanager
def open_bytes(path: str) -> Iterator[BinaryIO]:
    """The content of a file as a binary stream, decompressed when gzip or zstd is found in it.

    Raises DataError for a name that promises a compression which the content does not have. Errors
    of reading are raised as they are; `reading` gives them names.
    """
    with open_raw(path) as raw:
        if path == STANDARD_INPUT:
            magic = raw.peek(4)[:4]
        else:
            magic = raw.read(4)
            raw.seek(0)
        if magic[:2] == GZIP_MAGIC:
            yield gzip.GzipFile(fileobj=raw)  # pyright: ignore[reportReturnType]
        elif is_zstd(magic):
            yield open_zstd(raw)
        else:
            for suffix, kind in ((".gz", "gzip"), (".zst", "zstd")):
                if path.endswith(suffix):
                    raise DataError(
                        f"{path}: named {suffix} but it is empty or not in {kind} format"
                    )
            if path.endswith(_UNREAD_COMPRESSIONS):
                raise DataError(f"{path}: this compression is not read; take gzip or zstd")
            yield raw


class ReadPosition:
    """How far a file was read, in its own words: `line 3`."""

    def __init__(self, unit: str):
        self.unit = unit
        self.count = 0


@contextlib.contextmanager
def reading(path: str, progress: ReadPosition) -> Iterator[None]:
    """Turns a stream's early end into DamagedFile, with the place reached.

    Two things are a plain DataError, which no policy leaves out: an error of the disk or the
    network (the file may be whole), and a checksum that is wrong at the end of a compressed file
    (which of the lines read so far are right, nobody knows).
    """
    after = f"{path}, after {progress.unit}"
    try:
        yield
    except EOFError as error:
        raise DamagedFile(
            f"{after} {progress.count}: truncated compressed file; fetch it again"
        ) from error
    except (zlib.error, gzip.BadGzipFile, ZstdError) as error:
        raise DataError(
            f"{after} {progress.count}: the compressed data is damaged, perhaps before that: "
            f"{error}; fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{after} {progress.count}: cannot be read: {error}") from error
    except OWN_ERRORS:
        raise
    except Exception as error:  # every remote store has exception classes of its own
        reason = failure(error, "reading it")
        raise DataError(f"{after} {progress.count}: cannot be read: {reason}") from error


def check_max_record_bytes(value: int) -> None:
    """Raises ConfigError for a limit that nothing could pass."""
    if value <= 0:
        raise ConfigError(f"max_record_bytes={value}: must be positive")


def check_policy(name: str, value: str) -> None:
    """Raises ConfigError for a policy that is neither "error" nor "skip"."""
    if value not in POLICIES:
        raise ConfigError(f"{name}={value!r}: choose one of {', '.join(POLICIES)}")


class EmptyFile(DataError):
    """A file that can be read and holds no records."""


def refuse_empty(path: str, records: Iterator[Record]) -> Iterator[Record]:
    """The records; EmptyFile at their end when there were none: an empty file is a mistake
    upstream."""
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise EmptyFile(f"{path}: the file holds no records")
