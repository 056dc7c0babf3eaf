"""How far a job is, for people."""

import time
from collections.abc import Callable
from typing import TextIO

from t5jax.tracking.progress import Pace, format_eta


class RowProgress:
    """Rows done and, once the first window has been compiled and computed, rows a second and the
    time left: at most a line every ten seconds, and the last;
    on a terminal one line that is written over."""

    def __init__(
        self, stream: TextIO, num_rows: int | None, clock: Callable[[], float] = time.monotonic
    ):
        self._stream, self._num_rows, self._clock = stream, num_rows, clock
        self._pace = Pace(clock)
        self._on_terminal = stream.isatty()
        self._printed_at = -1e9

    def begin(self, done: int) -> None:
        if done:
            self._say(f"going on after {done:,} rows that are there", "\n")

    def rows(self, done: int) -> None:
        self._pace.step(done)
        now, last = self._clock(), done == self._num_rows
        if last or now - self._printed_at >= (0.2 if self._on_terminal else 10.0):
            self._printed_at = now
            self._say(self._line(done), "\n" if last or not self._on_terminal else "")

    def _line(self, done: int) -> str:
        of = "" if self._num_rows is None else f"/{self._num_rows:,}"
        parts = [f"{done:,}{of} rows"]
        per_row = self._pace.seconds_left(done + 1)
        if per_row:
            parts.append(f"{1 / per_row:.3g} rows/s")
        if self._num_rows is not None:
            parts.append(format_eta(self._pace.seconds_left(self._num_rows)))
        return "  ".join(parts)

    def _say(self, text: str, end: str) -> None:
        start = "\r\x1b[K" if self._on_terminal else ""
        print(f"{start}{text}", end=end, file=self._stream, flush=True)
