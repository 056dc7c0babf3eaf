"""Files of lines: JSON lines (AllenAI's C4 and mC4 too), plain text, tables of text (TSV, CSV)."""

import csv
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from t5jax.data.records import MAX_RECORD_BYTES, BadRecord, DamagedFile, Record, Row
from t5jax.data.sources.files import Files, check_max_record_bytes, check_policy
from t5jax.data.sources.text_lines import numbered_lines
from t5jax.errors import ConfigError, DataError

DOCUMENTS = ("blank lines", "file", "line")


@dataclasses.dataclass(kw_only=True, slots=True)
class _LineFiles(Files):
    """Files read by lines; a line or document of more than `max_record_bytes` is a `BadRecord`."""

    max_record_bytes: int = MAX_RECORD_BYTES

    def __post_init__(self) -> None:
        Files.__post_init__(self)  # slots make a second class, which super() does not know
        check_max_record_bytes(self.max_record_bytes)


_ARRAY = "; `jq -c '.[]' FILE > NEW` makes lines of a file that is one JSON array"
_PRETTY = "; `jq -c . FILE > NEW` writes an object that is spread over lines on one"
_BLANK_LINE = "a blank line; data.blank_lines = 'skip' leaves such lines out"
Line = TypeVar("Line")


@dataclasses.dataclass(kw_only=True, slots=True)
class _RecordFiles(_LineFiles):
    """Files with a record a line. Blank lines after the last record are always passed over, those
    before it are `BadRecord`s, or left out with `blank_lines="skip"`."""

    # Not shown: which rows a store has does not depend on it.
    blank_lines: str = dataclasses.field(default="error", repr=False)

    def __post_init__(self) -> None:
        _LineFiles.__post_init__(self)
        check_policy("blank_lines", self.blank_lines)

    def _without_blank(
        self, lines: Iterator[tuple[int, Line]], blank: Line
    ) -> Iterator[tuple[int, Line]]:
        """The lines, those that equal `blank` by the policy."""
        waiting = range(0)
        for number, line in lines:
            if line == blank:
                waiting = range(waiting.start if waiting else number, number + 1)
                continue
            if self.blank_lines == "error":
                yield from ((n, blank) for n in waiting)
            waiting = range(0)
            yield number, line


@dataclasses.dataclass(kw_only=True, slots=True)
class JsonLines(_RecordFiles):
    """One JSON object a line (`.json`, `.jsonl`, gzip or zstd or not); its keys are the columns.

    C4 as AllenAI publishes it is `train_files=("…/c4-train.*.json.gz",)`, German mC4
    `("…/c4-de.tfrecord-*.json.gz",)`. A line that is no JSON object, or has a key twice with
    different values, is a `BadRecord`. NaN and Infinity, which Python writes, are numbers.
    """

    VERSION: ClassVar[int] = 1

    def _records(self, path: str) -> Iterator[Record]:
        lines = _stripped(numbered_lines(path, self.max_record_bytes))
        for number, line in self._without_blank(lines, ""):
            yield line if isinstance(line, BadRecord) else _json_row(line, f"{path}, line {number}")


def _stripped(
    lines: Iterator[tuple[int, str | BadRecord]],
) -> Iterator[tuple[int, str | BadRecord]]:
    """Without what is no part of an object: white space, and the byte order marks of files that
    were joined."""
    for number, line in lines:
        yield number, line if isinstance(line, BadRecord) else line.strip("\ufeff \t\r")


def _json_row(line: str, place: str) -> Record:
    try:
        columns = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        hint = {"[": _ARRAY, "{": _PRETTY}.get(line, "")
        return BadRecord(place, f"not valid JSON: {error if line else _BLANK_LINE}{hint}")
    if isinstance(columns, dict):
        return Row(columns, place)
    hint = _ARRAY if isinstance(columns, list) else ""
    return BadRecord(place, f"one JSON object a line is expected{hint}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError where readers would differ: a key with two values."""
    columns = dict(pairs)
    if len(columns) < len(pairs):
        for key, value in pairs:
            if json.dumps(value) != json.dumps(columns[key]):  # NaN is not equal to itself
                raise ValueError(f"key {key!r} is there twice, with different values")
    return columns


# Made once: `json.loads` with a hook makes one a line, which takes as long as the line.
_DECODER = json.JSONDecoder(object_pairs_hook=_object)


@dataclasses.dataclass(kw_only=True, slots=True)
class TextFiles(_LineFiles):
    """Plain UTF-8 text (gzip or zstd or not) in column `text`.

    `document` says what a record is: what stands between "blank lines", a whole "file", or a
    "line" (blank ones are left out). Line ends become single newlines. A document with a line
    that is not UTF-8 is a `BadRecord`.
    """

    VERSION: ClassVar[int] = 1

    document: str = "blank lines"

    def __post_init__(self) -> None:
        _LineFiles.__post_init__(self)
        if self.document not in DOCUMENTS:
            raise ConfigError(f"document={self.document!r}: choose one of {', '.join(DOCUMENTS)}")

    def _records(self, path: str) -> Iterator[Record]:
        document = _Document(path, self.max_record_bytes)
        for number, line in numbered_lines(path, self.max_record_bytes):
            blank = isinstance(line, str) and not line.strip()
            if not blank or self.document == "file":
                document.add(number, line)
            if self.document == "line" or (blank and self.document == "blank lines"):
                yield from document.take()
        yield from document.take()


class _Document:
    """Lines gathered until they end; bad as a whole when one of them is, or when too long."""

    def __init__(self, path: str, max_bytes: int):
        self._path = path
        self._max_bytes = max_bytes
        self._reset()

    def _reset(self) -> None:
        self._lines: list[str] = []
        self._first = 0
        self._size = 0
        self._bad: BadRecord | None = None

    def add(self, number: int, line: str | BadRecord) -> None:
        self._first = self._first or number
        if self._bad:
            return
        if isinstance(line, BadRecord):
            self._bad = line
            return
        self._size += len(line.encode()) + 1
        if self._size > self._max_bytes + 1:
            place = f"{self._path}, line {self._first}"
            reason = f"document longer than max_record_bytes = {self._max_bytes:,}"
            self._bad = BadRecord(place, reason)
            self._lines.clear()
            return
        self._lines.append(line)

    def take(self) -> Iterator[Record]:
        """What was gathered, if anything; empty after it."""
        text = "\n".join(self._lines)
        if self._bad:
            yield self._bad
        elif text.strip():
            yield Row({"text": text}, f"{self._path}, line {self._first}")
        self._reset()


@dataclasses.dataclass(kw_only=True, slots=True)
class Tsv(_RecordFiles):
    """Tables of text: one row a line, fields between `delimiter`s, all values strings.

    The first line holds the names of the columns unless `columns` gives them. `quoting` reads CSV
    as RFC 4180 has it (quoted fields may hold delimiters and line ends); without it a quote is a
    character like others, as GLUE's files need. A row with another number of fields than there
    are columns is a `BadRecord`; a blank line is one too, or where there is one column a row.
    """

    VERSION: ClassVar[int] = 1

    delimiter: str = "\t"
    columns: tuple[str, ...] = ()
    quoting: bool = False

    def __post_init__(self) -> None:
        _RecordFiles.__post_init__(self)
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise ConfigError(f"delimiter={self.delimiter!r}: give one character, no quote or end")
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"columns={self.columns}: a name is there twice")

    def _records(self, path: str) -> Iterator[Record]:
        rows = self._quoted_rows(path) if self.quoting else self._plain_rows(path)
        names = self.columns or _header(path, rows)
        blank = [] if self.quoting else [""]
        if len(names) > 1 or self.quoting:
            rows = self._without_blank(rows, blank)
        for number, fields in rows:
            place = f"{path}, line {number}"
            if isinstance(fields, BadRecord):
                yield fields
            elif fields == blank and len(names) > 1:
                yield BadRecord(
                    place, f"0 fields where the columns are {len(names)}: {_BLANK_LINE}"
                )
            elif len(fields) != len(names):
                reason = f"{len(fields)} fields where the columns are {len(names)}: {names}"
                yield BadRecord(place, reason)
            else:
                yield Row(dict(zip(names, fields, strict=True)), place)

    def _plain_rows(self, path: str) -> Iterator[tuple[int, list[str] | BadRecord]]:
        for number, line in numbered_lines(path, self.max_record_bytes):
            yield number, line if isinstance(line, BadRecord) else line.split(self.delimiter)

    def _quoted_rows(self, path: str) -> Iterator[tuple[int, list[str] | BadRecord]]:
        """Rows of quoted CSV with the number of the line on which each begins."""
        # The limit is the process's own and 128 kB at first: less than a news article may have.
        csv.field_size_limit(max(csv.field_size_limit(), self.max_record_bytes))
        bad: list[BadRecord] = []
        at_end = [False]
        reader = csv.reader(
            self._csv_lines(path, bad, at_end), delimiter=self.delimiter, strict=True
        )
        first = 1
        while True:
            try:
                fields: list[str] | BadRecord = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if at_end[0]:
                    raise DamagedFile(
                        f"{path}, line {first}: a quote is opened here and never closed"
                    ) from error
                fields = BadRecord(f"{path}, line {first}", f"not valid CSV: {error}")
            if bad:
                fields = bad[0]
                bad.clear()
            yield first, fields
            first = reader.line_num + 1

    def _csv_lines(self, path: str, bad: list[BadRecord], at_end: list[bool]) -> Iterator[str]:
        """Lines for the csv module; a bad one is put aside and an empty one given in its place, so
        that the row it is part of is known to be bad."""
        for _, line in numbered_lines(path, self.max_record_bytes):
            if isinstance(line, BadRecord):
                bad.append(line)
            yield "\n" if isinstance(line, BadRecord) else line + "\n"
        at_end[0] = True


def _header(path: str, rows: Iterator[tuple[int, list[str] | BadRecord]]) -> tuple[str, ...]:
    """The names in the first line. Raises DataError when there is none or they are no names."""
    _, names = next(rows, (0, []))
    if isinstance(names, BadRecord):
        raise DataError(f"{names.place}: {names.reason}: the header cannot be read")
    if names and ("" in names or len(set(names)) < len(names)):
        raise DataError(
            f"{path}, line 1: the header {names[:10]} has an empty name or one twice; for a file "
            "without a header give columns=(…)"
        )
    return tuple(names)
