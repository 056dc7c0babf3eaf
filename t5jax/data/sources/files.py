"""Text in local files: JSON lines (AllenAI's C4 too), plain text, parquet; gzip where its magic is
found.

Nothing is skipped: what cannot be read as it should be is a `DataError` with the file and the line.
TensorFlow's own readers take a truncated .gz for the end of the file and drop the rest without a
word.
"""

import dataclasses
import glob
import gzip
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from t5jax.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"


@dataclasses.dataclass(kw_only=True, slots=True)
class _Files:
    """Files of two splits, given as paths or glob patterns. One shard is one file."""

    train_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()

    def splits(self) -> tuple[str, ...]:
        """`train`, `validation` or both: those that were given files."""
        return tuple(split for split, patterns in self._patterns().items() if patterns)

    def shards(self, split: str) -> list[str]:
        """Paths of the files of a split, sorted within each pattern.

        Raises DataError for an unknown split, no files, a pattern that matches nothing, a file
        named twice.
        """
        by_split = self._patterns()
        if split not in by_split:
            raise DataError(f"no split {split!r} in these files: choose one of {list(by_split)}")
        if not by_split[split]:
            raise DataError(f"the {split} split has no files: set data.{split}_files")
        paths = expand_patterns(by_split[split])
        other = "validation" if split == "train" else "train"
        shared = set(paths) & set(expand_patterns(by_split[other]))
        if shared:
            raise DataError(f"{min(shared)} is named in both train_files and validation_files")
        return paths

    def shard_fingerprint(self, split: str, shard: str) -> str:
        """Size and modification time of a file: a cached copy of its tokens is made again when they
        change."""
        stat = pathlib.Path(check_shard(self, split, shard)).stat()
        return f"{stat.st_size} bytes, {stat.st_mtime_ns} ns"

    def _patterns(self) -> dict[str, tuple[str, ...]]:
        return {"train": tuple(self.train_files), "validation": tuple(self.validation_files)}


@dataclasses.dataclass(kw_only=True, slots=True)
class JsonLines(_Files):
    """One JSON object a line (`.json`, `.jsonl`, gzipped or not), its text under `text_column`.

    C4 as AllenAI publishes it is `train_files=("…/c4-train.*.json.gz",)`.
    """

    text_column: str = "text"

    def documents(self, split: str, shard: str) -> Iterator[str]:
        """Texts of one file. Raises DataError with file and line for anything that is not one."""
        return refuse_empty(shard, self._texts(check_shard(self, split, shard)))

    def _texts(self, path: str) -> Iterator[str]:
        for number, line in numbered_lines(path):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not valid JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: one JSON object a line is expected")
            yield text_of(row, self.text_column, f"{path}, line {number}")


@dataclasses.dataclass(kw_only=True, slots=True)
class TextFiles(_Files):
    """Plain UTF-8 text (`.txt`, gzipped or not): documents separated by blank lines, or one a
    file."""

    one_document_per_file: bool = False

    def documents(self, split: str, shard: str) -> Iterator[str]:
        """Texts of one file, line ends kept as single newlines. Raises DataError with file and
        line."""
        return refuse_empty(shard, self._texts(check_shard(self, split, shard)))

    def _texts(self, path: str) -> Iterator[str]:
        lines: list[str] = []
        for _, line in numbered_lines(path):
            if line.strip() or self.one_document_per_file:
                lines.append(line)
            elif lines:
                yield "\n".join(lines)
                lines = []
        text = "\n".join(lines)
        if text.strip():
            yield text


@dataclasses.dataclass(kw_only=True, slots=True)
class Parquet(_Files):
    """Parquet files whose `text_column` holds strings."""

    text_column: str = "text"

    def documents(self, split: str, shard: str) -> Iterator[str]:
        """Texts of one file. Raises DataError with file and row (from 0) for anything that is not
        one."""
        return refuse_empty(shard, self._texts(check_shard(self, split, shard)))

    def _texts(self, path: str) -> Iterator[str]:
        import pyarrow
        import pyarrow.parquet

        row = 0
        try:
            with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
                check_string_column(file.schema_arrow, self.text_column, path)
                for batch in file.iter_batches(batch_size=1024, columns=[self.text_column]):
                    for value in batch.column(0):
                        yield text_of(
                            {self.text_column: value.as_py()},
                            self.text_column,
                            f"{path}, row {row}",
                        )
                        row += 1
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, row {row}: not valid UTF-8: {error}") from error
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}, near row {row}: unreadable parquet: {error}") from error


def expand_patterns(patterns: Iterable[str]) -> list[str]:
    """Paths that the patterns name, in the order of the patterns. Raises DataError when one names
    nothing."""
    paths: list[str] = []
    for pattern in patterns:
        if "://" in pattern:
            raise DataError(f"{pattern}: only local files can be read; copy or mount them first")
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
        found = [path for path in found if pathlib.Path(path).is_file()]
        if not found:
            raise DataError(f"{pattern}: no such file (or the pattern matches none)")
        paths += found
    if len(set(paths)) < len(paths):
        raise DataError(f"{min(p for p in paths if paths.count(p) > 1)} is named twice")
    return paths


def check_shard(source: _Files, split: str, shard: str) -> str:
    """The shard itself. Raises DataError when it is not one of the split's."""
    if shard not in source.shards(split):
        raise DataError(f"{shard} is not a file of the {split} split")
    return shard


def refuse_empty(path: str, texts: Iterator[str]) -> Iterator[str]:
    """The texts; DataError at their end when there were none: an empty file is a mistake
    upstream."""
    empty = True
    for text in texts:
        empty = False
        yield text
    if empty:
        raise DataError(f"{path}: the file holds no documents")


def text_of(row: dict[str, Any], column: str, place: str) -> str:
    """The string under a column of a row. Raises DataError naming the place."""
    if column not in row:
        raise DataError(
            f"{place}: no column {column!r}; there are {sorted(row)[:10]}: set data.text_column"
        )
    text = row[column]
    if not isinstance(text, str):
        raise DataError(f"{place}: column {column!r} is {type(text).__name__}, not a string")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        # JSON can escape half of a surrogate pair; no tokeniser can encode it.
        raise DataError(f"{place}: column {column!r} holds half of a surrogate pair")
    return text


def numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a UTF-8 file, gunzipped when it starts with gzip's
    magic."""
    number = 0
    try:
        with open(path, "rb") as raw:
            zipped = raw.peek(2)[:2] == GZIP_MAGIC
            if path.endswith(".gz") and not zipped:
                raise DataError(f"{path}: named .gz but it is empty or not in gzip format")
            for line in gzip.GzipFile(fileobj=raw) if zipped else raw:
                number += 1
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line: {error.reason}"
        raise DataError(f"{path}, line {number}: not valid UTF-8 ({reason})") from error
    except EOFError as error:
        raise DataError(
            f"{path}, after line {number}: truncated gzip file; fetch it again"
        ) from error
    except (zlib.error, OSError) as error:  # gzip.BadGzipFile is an OSError
        raise DataError(f"{path}, after line {number}: unreadable: {error}") from error


def check_string_column(schema: Any, column: str, path: str) -> None:
    """Raises DataError unless an Arrow schema has the column and it holds strings."""
    import pyarrow.types

    if column not in schema.names:
        raise DataError(
            f"{path}: no column {column!r}; there are {schema.names[:10]}: set data.text_column"
        )
    kind = schema.field(column).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise DataError(f"{path}: column {column!r} is {kind}, not a string")
