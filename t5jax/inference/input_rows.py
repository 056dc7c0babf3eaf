"""Input rows of a batch job: lines of text, JSON lines, or tables, from files or standard input.

Every line is a row, blank ones of text files too: row n of the output is row n of the input.
"""

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, get_args

from t5jax.data.records import MAX_RECORD_BYTES, BadColumn, BadRecord, Record, Row
from t5jax.data.sources.files import STANDARD_INPUT, refuse_empty
from t5jax.data.sources.lines import JsonLines, Tsv
from t5jax.data.sources.patterns import expand_patterns
from t5jax.data.sources.text_lines import numbered_lines
from t5jax.errors import ConfigError, DataError

Format = Literal["text", "jsonl", "tsv", "csv"]

_ENDINGS: dict[str, Format] = {".jsonl": "jsonl", ".json": "jsonl", ".tsv": "tsv", ".csv": "csv"}
_NO_LINES = (".parquet", ".arrow", ".tfrecord", ".array_record", ".xlsx", ".npz", ".pdf", ".docx")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InputFiles:
    """The files of a job's rows, and which of their columns must be texts.

    A line of a text file is a row whose only column is the first of `columns`. A table's first line
    names its columns, unless `header` does.
    """

    paths: tuple[str, ...]  # or glob patterns; "-" is standard input
    columns: tuple[str, ...]
    format: Format | None = None  # None: by each file's extension; text for standard input
    header: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format not in (None, *get_args(Format)):
            raise ConfigError(f"--format {self.format}: one of {', '.join(get_args(Format))}")
        if len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"the columns {' and '.join(self.columns)}: give two different names")
        if STANDARD_INPUT in self.paths and len(self.paths) > 1:
            raise ConfigError("--input - is standard input: give no other --input beside it")
        for path in self.paths:
            kind = self.format_of(path)
            if kind == "text" and len(self.columns) > 1:
                raise ConfigError(
                    f"--input {path}: a line of text is one column, and "
                    f"{' and '.join(self.columns)} are needed: give a .tsv, .csv or .jsonl file, "
                    "or --format"
                )
            if self.header and kind not in ("tsv", "csv"):
                raise ConfigError(f"--header names columns of tables, and --input {path} is {kind}")

    @property
    def from_stdin(self) -> bool:
        return self.paths == (STANDARD_INPUT,)

    def format_of(self, path: str) -> Format:
        """`format`, or by the extension before .gz and .zst; text for any other."""
        if self.format is not None:
            return self.format
        name = path.removesuffix(".gz").removesuffix(".zst").lower()
        if name.endswith(_NO_LINES):
            raise ConfigError(
                f"--input {path} is no file of lines: write it as JSON lines, or give --format"
            )
        return _ENDINGS.get(pathlib.PurePath(name).suffix, "text")

    def rows(self) -> Iterator[Row]:
        """All rows in order. Raises DataError, with file and line, for one that cannot be read or
        lacks a column: leaving it out would shift all rows after it."""
        for path in [STANDARD_INPUT] if self.from_stdin else expand_patterns(self.paths):
            for record in self._records(path):
                yield self._checked(record)

    def _records(self, path: str) -> Iterator[Record]:
        table = {"train_files": (path,), "columns": self.header}
        match self.format_of(path):
            case "jsonl":
                return JsonLines(train_files=(path,)).records("train", path)
            case "tsv":
                return Tsv(**table).records("train", path)
            case "csv":
                return Tsv(**table, delimiter=",", quoting=True).records("train", path)
            case "text":
                return refuse_empty(path, self._lines(path))

    def _lines(self, path: str) -> Iterator[Record]:
        for number, line in numbered_lines(path, MAX_RECORD_BYTES):
            if isinstance(line, BadRecord):
                yield line
            else:
                yield Row({self.columns[0]: line}, f"{path}, line {number}")

    def _checked(self, record: Record) -> Row:
        place = record.place
        if self.from_stdin:
            place = "standard input" + place.removeprefix(STANDARD_INPUT)
        if isinstance(record, BadRecord):
            raise DataError(f"{place}: {record.reason}")
        try:
            for column in self.columns:
                record.text(column)
        except BadColumn as error:
            raise DataError(
                f"{place}: {error}; --column and --target-column name the columns of the texts, "
                "--header the columns of a table without a header line"
            ) from error
        return Row(record, place)


@dataclasses.dataclass(frozen=True, slots=True)
class CommandLineTexts:
    """Texts of the command line, as rows."""

    texts: tuple[str, ...]
    column: str

    @property
    def from_stdin(self) -> bool:
        return False

    def rows(self) -> Iterator[Row]:
        for number, text in enumerate(self.texts, 1):
            yield Row({self.column: text}, f"text {number}")


class InputSummary(NamedTuple):
    num_rows: int
    checksum: int  # crc32 of all rows


def scan_rows(rows: Iterable[Row], reserved: frozenset[str]) -> InputSummary:
    """Reads every row once, so that errors are raised before anything is computed. Raises as
    `InputFiles.rows` and `check_column_names`."""
    num_rows = checksum = 0
    for row in check_column_names(rows, reserved):
        checksum = zlib.crc32(json.dumps(row).encode(), checksum)
        num_rows += 1
    return InputSummary(num_rows, checksum)


def check_column_names(rows: Iterable[Row], reserved: frozenset[str]) -> Iterator[Row]:
    """Yields the rows; raises DataError for a column with the name of a result key."""
    for row in rows:
        if not reserved.isdisjoint(row):
            names = ", ".join(sorted(reserved & row.keys()))
            raise DataError(
                f"{row.place}: the names {names} are those of results, and columns are copied to "
                "the output: rename them"
            )
        yield row
