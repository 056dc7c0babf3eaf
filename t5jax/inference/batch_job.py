"""A job: rows in, one record each out, in their order, window by window.

With several processes all of them read all rows and compute together, each device its part of every
batch; process 0 alone writes. So the output does not depend on how many there are.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from t5jax import runtime
from t5jax.data.records import Row
from t5jax.errors import ConfigError
from t5jax.inference.outputs import Output
from t5jax.inference.progress import RowProgress

# Rows (with columns that the result leaves alone) and their numbers in the input -> a record each.
Answers = Callable[[Sequence[Row], Sequence[int]], list[dict[str, Any]]]


class Preempted(runtime.Preempted):
    """The job was asked to leave; what it has written stays."""

    def __init__(self, message: str):
        Exception.__init__(self, message)


class Leaving:
    """What is asked after every batch: beats the watchdog, and leaves when the machine is taken."""

    def __init__(self):
        self._preemption: runtime.Preemption | None = None
        self._watchdog: runtime.Watchdog | None = None

    @contextlib.contextmanager
    def begun(self, config: runtime.RuntimeConfig, *, can_go_on: bool) -> Iterator[None]:
        """After `runtime.start`. `can_go_on`: a later job takes up what this one has written;
        otherwise nothing is gained by ending later than the signal says."""
        with contextlib.ExitStack() as stack:
            if can_go_on or jax.process_count() > 1:
                self._preemption = stack.enter_context(runtime.Preemption())
            if jax.process_count() > 1:  # alone, a job may wait for its input as long as it likes
                # Every batch may have a new shape, and compile.
                limit = config.first_step_timeout_seconds
                self._watchdog = stack.enter_context(runtime.Watchdog(limit, limit))
            yield

    def after_batch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.beat()
        if self._preemption is not None and self._preemption.reached():
            raise Preempted("preempted: what is written stays; start again to go on")


def run_job(
    rows: Iterator[Row], answers: Answers, output: Output, *, window: int,
    shard: tuple[int, int] = (0, 1), progress: RowProgress | None = None,
) -> int:  # fmt: skip
    """Answers every row of a shard (I of N: rows I, I + N, …) that is not answered yet; returns how
    many it answered. Memory holds a window of rows at a time."""
    part, parts = shard
    try:
        done, left = output.go_on(itertools.islice(rows, part, None, parts), window)
        first = done
        if progress is not None:
            progress.begin(done)
        while taken := list(itertools.islice(left, window)):
            numbers = [part + parts * number for number in range(done, done + len(taken))]
            output.write(answers(taken, numbers))
            done += len(taken)
            if progress is not None:
                progress.rows(done)
        return done - first
    finally:
        output.close()


def rows_of_shard(num_rows: int, shard: tuple[int, int]) -> int:
    return len(range(shard[0], num_rows, shard[1]))


def parse_shard(text: str | None) -> tuple[int, int]:
    """`1/4`: the second of four. Raises ConfigError."""
    if text is None:
        return 0, 1
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise ConfigError(f"--shard {text}: I/N with I from 0 to N - 1, for example 0/4")
    return int(part), int(parts)


def same_rows_everywhere(num_rows: int, checksum: int) -> None:
    """Raises ConfigError unless all processes have read the same rows."""
    runtime.agree("the input", json.dumps({"num_rows": num_rows, "crc32": checksum}))
