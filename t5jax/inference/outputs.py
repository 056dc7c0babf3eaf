"""Where the records of a job go: a file, a stream, or nowhere on processes that only compute."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TextIO

import jax

from t5jax import runtime
from t5jax.data.atomic_files import json_line
from t5jax.data.records import Row


class Output(Protocol):
    def go_on(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]: ...
    def write(self, records: list[dict[str, Any]]) -> None: ...
    def close(self) -> None: ...


class Printed:
    """Records on a stream, as JSON lines or as `text` shows them; nothing to go on with."""

    def __init__(self, stream: TextIO, text: Callable[[dict[str, Any]], str] | None = None):
        self._stream = stream
        self._text = text or (lambda record: json_line(record).decode().rstrip("\n"))

    def go_on(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        return 0, rows

    def write(self, records: list[dict[str, Any]]) -> None:
        for record in records:
            print(self._text(record), file=self._stream)
        self._stream.flush()

    def close(self) -> None: ...


class NotWritten:
    """On the processes that only compute: what process 0 has done is done."""

    def go_on(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        done = int(runtime.gather_texts("")[0])
        return done, itertools.islice(rows, done, None)

    def write(self, records: list[dict[str, Any]]) -> None: ...
    def close(self) -> None: ...


class Shared:
    """Of process 0: the others learn where it goes on."""

    def __init__(self, output: Output):
        self._output = output
        self.write, self.close = output.write, output.close

    def go_on(self, rows: Iterator[Row], window: int) -> tuple[int, Iterator[Row]]:
        done, left = self._output.go_on(rows, window)
        runtime.gather_texts(str(done))
        return done, left


def on_this_process(make: Callable[[], Output]) -> Output:
    """The output of a job that all processes take part in."""
    if jax.process_index() != 0:
        return NotWritten()
    return Shared(make()) if jax.process_count() > 1 else make()
