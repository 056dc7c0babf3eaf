"""Profile of some train steps: a trace for xprof, of the first host and its devices."""

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from t5jax.errors import ConfigError, writing

FOLDER = "profile"  # of a workdir


def steps_of(setting: str | None) -> range:
    """The steps that `tracking.profile_steps` names, "A:B", both included. Raises ConfigError."""
    if setting is None:
        return range(0)
    found = re.fullmatch(r"([0-9]+):([0-9]+)", setting)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(
            f"tracking.profile_steps = {setting!r}: must be FIRST:LAST, two steps as the log "
            "counts them (from 1), such as 10:12"
        )
    return range(int(found[1]), int(found[2]) + 1)


class Profile:
    """Traces the named steps into WORKDIR/profile; a run that ends between them ends the trace."""

    def __init__(self, workdir: pathlib.Path, steps: range):
        self.folder, self._steps, self._running = workdir / FOLDER, steps, False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """For the call of the `step`-th train step."""
        if step not in self._steps:
            yield
            return
        import jax

        if not self._running:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # calls of Python are most of a trace, and slow it down
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                jax.profiler.start_trace(str(self.folder), profiler_options=options)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield

    def end(self, step: int, results: Any) -> bool:
        """Ends the trace if `step`, whose results are waited for, is its last; whether it was."""
        if not self._running or step + 1 in self._steps:
            return False
        import jax

        jax.block_until_ready(results)
        self.close()
        return True

    def close(self) -> None:
        """Writes what has been traced."""
        if self._running:
            import jax

            self._running = False
            with writing(self.folder):
                jax.profiler.stop_trace()
