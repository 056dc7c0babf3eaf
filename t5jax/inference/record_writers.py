"""Writers of a batch job's records: to a stream, or nowhere on processes that only compute; what
one process resumes from, all do. (`output_file.OutputFile` writes a file.)"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

import jax

from t5jax import runtime
from t5jax.data.atomic_files import json_line
from t5jax.data.records import Row


class RecordWriter(Protocol):
    """Writes records; `resume` gives (number of rows that have a record, the remaining rows)."""

    def resume(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]: ...
    def write(self, records: list[dict[str, Any]]) -> None: ...
    def close(self) -> None: ...


class StreamWriter:
    """Records on a stream, as JSON lines or as `text` formats them; nothing to resume from."""

    def __init__(self, stream: TextIO, text: Callable[[dict[str, Any]], str] | None = None):
        self._stream = stream
        self._text = text or (lambda record: json_line(record).decode().rstrip("\n"))

    def resume(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        return 0, rows

    def write(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            print(self._text(record), file=self._stream)
        self._stream.flush()

    def close(self) -> None: ...


class FollowingWriter:
    """Of the processes other than 0: writes nothing, resumes where process 0 does."""

    def resume(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        done = int(runtime.gather_texts("")[0])
        return done, itertools.islice(rows, done, None)

    def write(self, records: list[dict[str, Any]]) -> None: ...
    def close(self) -> None: ...


class LeadingWriter:
    """Of process 0: tells the others where it resumes."""

    def __init__(self, writer: RecordWriter):
        self._writer = writer
        self.write, self.close = writer.write, writer.close

    def resume(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        done, remaining = self._writer.resume(rows, window)
        runtime.gather_texts(str(done))
        return done, remaining


def writer_of_process(make: Callable[[], RecordWriter]) -> RecordWriter:
    """The writer of this process in a job of all processes; `make` is called on process 0 only."""
    if jax.process_index() != 0:
        return FollowingWriter()
    return LeadingWriter(make()) if jax.process_count() > 1 else make()
