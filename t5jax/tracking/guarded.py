"""Trackers that may fail while the run goes on: what they miss is said, counted and recorded."""

from collections.abc import Callable, Mapping

from t5jax.errors import failure, is_failure
from t5jax.tracking.writers import Writer


class GuardedWriter:
    """A writer of the user's, or of a service, whose failures do not end the run.

    metrics.jsonl has everything that a tracker misses, and weeks of training are worth more than a
    second copy of a curve. `report(step, error)` is called when failures begin, and once more at
    the end with how many there were; the writer is tried again every time. Requests to stop
    (KeyboardInterrupt, SystemExit) pass.
    """

    def __init__(self, writer: Writer, name: str, report: Callable[[int, str], None]):
        self._writer, self._name, self._report = writer, name, report
        self._calls, self._failures, self._is_failing, self._step = 0, 0, False, 0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The step's values, in a dict of the writer's own."""
        self._try(step, lambda: self._writer.scalars(step, dict(values)))

    def restart(self, step: int) -> None:
        self._try(step, lambda: self._writer.restart(step))

    def close(self) -> None:
        self._try(self._step, self._writer.close)
        if self._failures > 1:
            said = f"{self._name}: {self._failures} of {self._calls} calls failed"
            self._report(self._step, f"{said}; metrics.jsonl has what is missing")

    def _try(self, step: int, call: Callable[[], None]) -> None:
        self._calls, self._step = self._calls + 1, step
        try:
            call()
        except BaseException as error:
            if not is_failure(error):
                raise
            self._failures += 1
            if not self._is_failing:
                self._report(step, f"{failure(error, self._name)}; the run goes on")
            self._is_failing = True
        else:
            self._is_failing = False
