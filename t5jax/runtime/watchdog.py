"""Watchdog: ends a process whose steps no longer finish, which heartbeats do not notice."""

import contextlib
import faulthandler
import math
import os
import sys
import threading
import time
from collections.abc import Iterator

from t5jax.runtime import lifeline
from t5jax.runtime.exits import ExitCode
from t5jax.runtime.lease import release_all


class Watchdog:
    """Ends the process with exit code 75 and the stacks of all threads if `beat` is not called.

    Args:
      seconds: the longest time between two beats; 0 for no limit.
      first_seconds: the longest time until the first beat, in which the step compiles; 0 for none.
    """

    def __init__(self, seconds: float, first_seconds: float = 0.0):
        self._limit = seconds or math.inf
        self._current_limit = first_seconds or math.inf
        self._waited = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        shortest = min(self._limit, self._current_limit, 60.0)
        self._interval = min(1.0, shortest / 5)
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """To be called after every step."""
        self._restart(self._limit)

    def extend(self) -> None:
        """Restarts the limit in force, for work shorter than a step."""
        self._restart(self._current_limit)

    @contextlib.contextmanager
    def suspended(self, seconds: float = 0.0) -> Iterator[None]:
        """Allows `seconds` (0: any time) for work that takes longer than a step: compiling,
        evaluation, the last save. Afterwards the previous limit holds again, from zero."""
        before = self._current_limit
        self._restart(seconds or math.inf)
        try:
            yield
        finally:
            self._restart(before)

    def close(self) -> None:
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _restart(self, limit: float) -> None:
        with self._lock:
            self._waited, self._current_limit = 0.0, limit

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._closed.wait(self._interval):
            now = time.monotonic()
            # A process that was stopped and continued did not hang: count at most a few intervals.
            passed = min(now - before, 5 * self._interval)
            before = now
            with self._lock:
                self._waited += passed
                expired = self._waited > self._current_limit
                waited = self._waited
            if expired:
                _end(waited)


def _end(waited: float) -> None:
    message = (
        f"error: watchdog: no step ended for {waited:.0f} s, this process is stuck; the stacks of "
        f"all threads follow; leaving with exit code {int(ExitCode.WATCHDOG)} "
        "(runtime.step_timeout_seconds sets the limit)"
    )
    lifeline.run_with_timeout(2.0, lambda: print(message, file=sys.stderr, flush=True))
    # The real descriptor: sys.stderr may have been replaced by an object without one.
    faulthandler.dump_traceback(file=2, all_threads=True)
    lifeline.announce_exit(ExitCode.WATCHDOG)
    lifeline.run_with_timeout(2.0, sys.stdout.flush)
    lifeline.run_with_timeout(2.0, release_all)
    os._exit(ExitCode.WATCHDOG)
