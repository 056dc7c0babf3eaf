"""Preemption: after a SIGTERM all hosts save at the same step and exit."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from t5jax.runtime.exits import ExitCode, is_distributed


class Preemption:
    """The step at which to save and exit after a SIGTERM to this process or to any host.

    A single process handles the signal itself. With several processes jax handles it (it is
    swallowed unless `reached` is called), and `reached` becomes true at one and the same call on
    all of them: the hosts agree on the newest call any of them is at, plus one. So it must be
    called once per step, and per batch of an evaluation, on every host alike. Further signals
    change nothing: schedulers repeat theirs, and the first one's save must not be lost.
    """

    def __init__(self):
        self._received = False
        self._reached = False
        self._calls = -1
        self._previous = None
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and not is_distributed():  # elsewhere Python refuses to set handlers
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)

    def reached(self) -> bool:
        """Whether to save the state now and raise `Preempted(step)`; once true, always true."""
        if self._reached:
            return True
        if is_distributed():
            from jax.experimental import multihost_utils

            # Calls of this process, not training steps: a notice that comes before the first step
            # makes jax agree on call 1, which the steps of a resumed run would never hit.
            self._calls += 1
            self._reached = bool(multihost_utils.reached_preemption_sync_point(self._calls))
        else:
            self._reached = self._received
        return self._reached

    def close(self) -> None:
        """Restores the previous handler of SIGTERM."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def __enter__(self) -> "Preemption":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _on_signal(self, *_) -> None:
        self._received = True


@contextlib.contextmanager
def exit_at_sigterm(message: str) -> Iterator[None]:
    """Inside, a SIGTERM to a process without jax prints `message` and is SystemExit(143), which
    code that turns exceptions of others into errors lets pass; further signals change nothing.
    What runs inside must leave nothing half done wherever it ends."""
    received = False

    def on_signal(*_) -> None:
        nonlocal received
        if not received:
            received = True
            print(message, file=sys.stderr, flush=True)
            raise SystemExit(ExitCode.PREEMPTED)

    if threading.current_thread() is not threading.main_thread():  # Python sets none elsewhere
        yield
        return
    previous = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
