"""SIGTERM: the machine will be taken away soon, so save and leave."""

import os
import signal
import threading

from t5jax.runtime.exits import ExitCode


class Preemption:
    """Says at which step to save and leave after a SIGTERM (to this process or to any host).

    Alone, this process handles the signal itself; a second SIGTERM ends it at once. With several
    processes jax owns the signal (it would be swallowed if nobody asked), and `reached` is true at
    one and the same step on all of them: the hosts agree on the newest step any of them is at, plus
    one. So it must be asked once per step, on every host, with the same step numbers.
    """

    def __init__(self):
        self._received = False
        self._previous = None
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and not _distributed():  # elsewhere Python refuses to set handlers
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)

    def reached(self, step: int) -> bool:
        """Whether to save the state after `step` and raise `Preempted(step)`."""
        if _distributed():
            from jax.experimental import multihost_utils

            return bool(multihost_utils.reached_preemption_sync_point(step))
        return self._received

    def close(self) -> None:
        """Gives SIGTERM back to whoever had it before."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def __enter__(self) -> "Preemption":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _on_signal(self, *_) -> None:
        if self._received:
            os._exit(ExitCode.PREEMPTED)
        self._received = True


def _distributed() -> bool:
    import jax

    return jax.distributed.is_initialized()
