"""Files by paths and glob patterns, local or remote: listing, opening, decompression, lines.

A path is local, a URL of any fsspec protocol (`gs://`, `s3://`, `memory://` …), or `-`, which is
standard input where a single path is read (no pattern names it). gzip and zstd are
found by their magic. Whatever ends too early is a `DamagedFile`: TensorFlow's reader of gzip takes
truncated files for whole ones.

Lines are counted from 1, as editors do; rows and records from 0, as indices do.
"""

import abc
import contextlib
import dataclasses
import glob
import gzip
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from t5jax.data.records import BadRecord, DamagedFile, Record
from t5jax.data.sources.zstd import ZSTD_MAGIC, ZstdError, open_zstd
from t5jax.errors import ConfigError, DataError

GZIP_MAGIC = b"\x1f\x8b"
_UNREAD_COMPRESSIONS = (".bz2", ".xz", ".lz4", ".zip", ".7z", ".rar", ".br")
_EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}  # protocol -> extra of t5jax
STANDARD_INPUT = "-"
MAX_RECORD_BYTES = 64 << 20  # a line of 100 GB is refused before it fills the memory


@dataclasses.dataclass(kw_only=True, slots=True)
class Files(abc.ABC):
    """Files of up to three splits, given as paths or glob patterns (`**` for any depth of folders).

    One shard is one file. A format is a subclass that says how one file is read (`_records`).
    """

    train_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
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
        paths = expand_patterns(self._patterns_of(split))
        for other in self.splits():
            if other != split:
                shared = set(paths) & set(expand_patterns(self._patterns_of(other)))
                if shared:
                    raise DataError(
                        f"{min(shared)} is named in both {split}_files and {other}_files"
                    )
        return paths

    def records(self, split: str, shard: str) -> Iterator[Record]:
        """The records of one file. Raises DamagedFile where it breaks off, DataError when it cannot
        be read at all or holds no record."""
        self._patterns_of(split)
        return refuse_empty(shard, self._records(shard))

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """Size and modification time of a file (whatever a remote store says of it): a cached copy
        of its tokens is made again when they change."""
        return file_fingerprint(shard)

    @abc.abstractmethod
    def _records(self, path: str) -> Iterator[Record]:
        """The records of one file, in their order."""

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


def expand_patterns(patterns: Iterable[str]) -> list[str]:
    """Paths that the patterns name, in the order of the patterns, sorted within each.

    Raises DataError when one names nothing or two name the same file.
    """
    paths: list[str] = []
    for pattern in patterns:
        found = _remote_matches(pattern) if "://" in pattern else _local_matches(pattern)
        if not found:
            raise DataError(f"{pattern}: no such file (or the pattern matches none)")
        paths += found
    if len(set(paths)) < len(paths):
        raise DataError(f"{min(p for p in paths if paths.count(p) > 1)} is named twice")
    return paths


def _local_matches(pattern: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    return [path for path in found if os.path.isfile(path)]


def _remote_matches(pattern: str) -> list[str]:
    system, path = file_system(pattern)
    with _remote_errors(pattern):
        found = sorted(system.glob(path)) if glob.has_magic(path) else [path]
        return [system.unstrip_protocol(name) for name in found if system.isfile(name)]


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL and the path within it. Raises ConfigError when its driver is
    not installed or the protocol unknown."""
    import fsspec.core

    protocol = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        remedy = f": `pip install 't5jax[{extra}]'`" if extra else ""
        raise ConfigError(
            f"{url}: {protocol}:// needs a driver that is not installed ({error}){remedy}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{url}: {error}; give a local path, gs:// or s3://") from error


def file_exists(path: str) -> bool:
    """Whether a local path or URL names a file."""
    if "://" not in path:
        return os.path.isfile(path)
    system, name = file_system(path)
    with _remote_errors(path):
        return system.isfile(name)


def folder_names(path: str) -> list[str]:
    """Names in a folder, local or a URL; none where there is no such folder."""
    if "://" not in path:
        return os.listdir(path) if os.path.isdir(path) else []
    system, name = file_system(path)
    with _remote_errors(path):
        if not system.isdir(name):
            return []
        return [entry.rstrip("/").rpartition("/")[2] for entry in system.ls(name, detail=False)]


def file_fingerprint(path: str) -> str:
    """What changes when a file's content does: size and time, or a remote store's own mark."""
    if "://" in path:
        system, name = file_system(path)
        with _remote_errors(path):
            return system.ukey(name)
    try:
        stat = os.stat(path)
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
        with _remote_errors(path):
            file = system.open(name, "rb")
    else:
        try:
            file = open(path, "rb")  # noqa: SIM115 (closed below, as a remote one)
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
        elif magic == ZSTD_MAGIC:
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


def numbered_lines(path: str, max_bytes: int) -> Iterator[tuple[int, str | BadRecord]]:
    """(number from 1, line without its end) of a UTF-8 file; a BadRecord in place of a line that is
    not UTF-8 or longer than `max_bytes`. Raises DamagedFile where the file breaks off."""
    progress = ReadPosition("line")
    with open_bytes(path) as stream, reading(path, progress):
        while line := stream.readline(max_bytes + 1):
            progress.count += 1
            place = f"{path}, line {progress.count}"
            if len(line) > max_bytes and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(max_bytes + 1)
                reason = f"longer than max_record_bytes = {max_bytes:,}"
                yield progress.count, BadRecord(place, reason)
                continue
            try:
                text = line.decode("utf-8-sig" if progress.count == 1 else "utf-8")
            except UnicodeDecodeError as error:
                reason = f"not valid UTF-8 (byte {error.start + 1} of the line: {error.reason})"
                yield progress.count, BadRecord(place, reason)
            else:
                yield progress.count, text.rstrip("\r\n")


def check_max_record_bytes(value: int) -> None:
    """Raises ConfigError for a limit that nothing could pass."""
    if value <= 0:
        raise ConfigError(f"max_record_bytes={value}: must be positive")


def refuse_empty(path: str, records: Iterator[Record]) -> Iterator[Record]:
    """The records; DataError at their end when there were none: an empty file is a mistake
    upstream."""
    empty = True
    for record in records:
        empty = False
        yield record
    if empty:
        raise DataError(f"{path}: the file holds no records")


@contextlib.contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # every store has exception classes of its own
        raise DataError(f"{url}: {type(error).__name__}: {error}") from error
