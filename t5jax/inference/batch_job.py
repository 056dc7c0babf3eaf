"""Batch inference job: rows in, one record each out, in order, window by window.

With several processes all of them read all rows and compute together, each device its part of every
batch; process 0 alone writes. So the output does not depend on the number of processes.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TextIO

import jax

from t5jax import runtime
from t5jax.data.atomic_files import json_line
from t5jax.data.records import Row
from t5jax.errors import ConfigError
from t5jax.inference.output_file import OutputFile
from t5jax.tracking.progress import CountProgress

# Rows (whose other columns are left alone) and their numbers in the input -> a record each.
ProcessRows = Callable[[Sequence[Row], Sequence[int]], list[dict[str, Any]]]


class JobPreempted(runtime.Preempted):
    """The job was preempted; what it has written stays."""

    def __init__(self, message: str):
        Exception.__init__(self, message)


class JobMonitor:
    """Watchdog and preemption of a job, which calls `after_batch` after every batch, and where it
    waits; as often on every host."""

    def __init__(self):
        self._preemption: runtime.Preemption | None = None
        self._watchdog: runtime.Watchdog | None = None

    @contextlib.contextmanager
    def running(
        self, config: runtime.RuntimeConfig, *, resumable: bool, watched: bool = True
    ) -> Iterator[None]:
        """Context of the job, after `runtime.start_distributed`. At a signal a `resumable` job, and
        one of several processes, ends after the current batch; any other ends at once. `watched`:
        several processes are ended when no batch ends for `config.first_step_timeout_seconds`."""
        with contextlib.ExitStack() as stack:
            if resumable or jax.process_count() > 1:
                self._preemption = stack.enter_context(runtime.Preemption())
            if (
                watched and jax.process_count() > 1
            ):  # a single process may wait for its input without limit
                # Every batch may have a new shape, and compile.
                limit = config.first_step_timeout_seconds
                self._watchdog = stack.enter_context(runtime.Watchdog(limit, limit))
            yield

    def after_batch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.beat()
        if self._preemption is not None and self._preemption.reached():
            raise JobPreempted(
                "preempted: the records written so far stay; the same command resumes"
            )


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


def run_batch_job(
    rows: Iterator[Row], process_rows: ProcessRows, output: OutputFile | StreamWriter | None, *,
    window: int, shard: tuple[int, int] = (0, 1), progress: CountProgress | None = None,
) -> int:  # fmt: skip
    """Processes every row of a shard (I of N: rows I, I + N, …) that has no record yet; returns
    their number. One window of rows is held in memory. `output` is None on the processes that only
    compute; what process 0 resumes from, all do."""
    index, count = shard
    rows = itertools.islice(rows, index, None, count)
    try:
        done, remaining = output.resume(rows, window) if output is not None else (0, rows)
        done = runtime.of_first_host(done)
        if output is None:
            remaining = itertools.islice(rows, done, None)
        first = done
        if progress is not None and done:
            progress.message(f"resuming after {done:,} existing rows")
        while batch := list(itertools.islice(remaining, window)):
            numbers = [index + count * number for number in range(done, done + len(batch))]
            records = process_rows(batch, numbers)
            if output is not None:
                output.write(records)
            done += len(batch)
            if progress is not None:
                progress.update(done)
        return done - first
    finally:
        if output is not None:
            output.close()


def num_shard_rows(num_rows: int, shard: tuple[int, int]) -> int:
    return len(range(shard[0], num_rows, shard[1]))


def parse_shard(text: str | None) -> tuple[int, int]:
    """`1/4`: the second of four. Raises ConfigError."""
    if text is None:
        return 0, 1
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise ConfigError(f"--shard {text}: I/N with I from 0 to N - 1, for example 0/4")
    return int(index), int(count)


def check_same_rows(num_rows: int, checksum: int) -> None:
    """Raises ConfigError unless all processes have read the same rows."""
    runtime.agree("the input", json.dumps({"num_rows": num_rows, "crc32": checksum}))
