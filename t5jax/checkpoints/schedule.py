"""When to save: every so many steps, at named steps, and when so many minutes have passed."""

import time
from collections.abc import Callable
from typing import Any

import jax

from t5jax.checkpoints.retention import CheckpointConfig
from t5jax.runtime import of_first_host


class SaveSchedule:
    """Says at which steps to save; to be asked once after every step, on all hosts alike.

    Minutes are those of host 0 since the last save that was due. Hosts talk about them only now and
    then: at steps that host 0 named the last time, each halfway to the moment as the steps then
    took, so the answer comes a step or two after it.
    """

    def __init__(self, config: CheckpointConfig, clock: Callable[[], float] = time.monotonic):
        self._config, self._clock = config, clock
        self._saved = clock()
        self._asked: tuple[int, float] | None = None  # step and time of the last agreement
        self._ask_at = 0

    def due(self, step: int, after: Any = ()) -> bool:
        """Whether to save after `step` steps; `after` are arrays of the step, which hosts wait for
        before they talk to one another."""
        every = self._config.save_every_steps
        due = step % every == 0 or step in self._config.keep_steps
        if not due and self._config.save_every_minutes is not None:
            due = self._minutes_have_passed(step, self._config.save_every_minutes * 60, after)
        if due:
            self._saved, self._ask_at = self._clock(), step + 1
        return due

    def _minutes_have_passed(self, step: int, limit: float, after: Any) -> bool:
        now = self._clock()
        if jax.process_count() == 1:
            return now - self._saved >= limit
        if step < self._ask_at:
            return False
        jax.block_until_ready(after)
        left = max(0.0, limit - (now - self._saved))
        steps = 1
        if self._asked is not None:
            before, then = self._asked
            per_step = max((now - then) / (step - before), 1e-6)
            # The first steps may be slow: never far ahead of what has been seen.
            steps = max(1, min(int(left / 2 / per_step), 2 * (step - before)))
        self._asked = step, now
        over, steps = of_first_host([left == 0.0, steps])
        self._ask_at = step + steps
        return over
