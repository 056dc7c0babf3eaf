"""A training run's checkpoints, each as it appears, and the best of them kept."""

import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Literal

import jax

from t5jax.checkpoints import committed_steps
from t5jax.data.atomic_files import write_json
from t5jax.errors import ConfigError
from t5jax.runtime import gather_texts

_SECONDS_BETWEEN_LOOKS = 5.0
Mode = Literal["max", "min"]


def steps_as_they_appear(
    directory: pathlib.Path, *, most_seconds: float, wait: Callable[[float], None] = time.sleep
) -> Iterator[int]:
    """The steps that are there, oldest first, then new ones.

    Ends when no new one has appeared for `most_seconds`. On several hosts all get what the first
    one sees.
    """
    seen, waited = -1, 0.0
    while True:
        there = json.loads(gather_texts(json.dumps(committed_steps(str(directory))))[0])
        new = [step for step in there if step > seen]
        if new:
            seen, waited = new[0], 0.0
            yield seen
        elif waited >= most_seconds:
            return
        else:
            wait(_SECONDS_BETWEEN_LOOKS)
            waited += _SECONDS_BETWEEN_LOOKS


class Best:
    """The best checkpoint of a run by a metric, copied to WORKDIR/best: training may delete its
    own. That folder is the workdir of a run with this one checkpoint."""

    def __init__(self, workdir: pathlib.Path, metric: str, mode: Mode):
        """Raises ConfigError where another metric has chosen what is there."""
        self._workdir, self._metric, self._mode = workdir, metric, mode
        self._file = workdir / "best" / "best.json"
        self.value: float | None = None
        if self._file.exists():
            found = json.loads(self._file.read_text())
            if (found["metric"], found["mode"]) != (metric, mode):
                raise ConfigError(
                    f"--keep-best {metric} ({mode}): {self._file.parent} holds the best by "
                    f"{found['metric']} ({found['mode']}); delete it first"
                )
            self.value = found["value"]

    def offer(self, step: int, values: dict[str, float]) -> bool:
        """Keeps the step if it is better than all before; whether it was.

        Raises ConfigError when the metric is not among the values.
        """
        if self._metric not in values:
            raise ConfigError(
                f"--keep-best {self._metric}: the evaluation has {', '.join(sorted(values))}"
            )
        value = values[self._metric]
        if self.value is not None and not self._is_better(value):
            return False
        self.value = value
        if jax.process_index() == 0:
            self._keep(step)
        return True

    def _is_better(self, value: float) -> bool:
        assert self.value is not None
        return value > self.value if self._mode == "max" else value < self.value

    def _keep(self, step: int) -> None:
        self._copy(step)
        about = {"step": step, "metric": self._metric, "mode": self._mode, "value": self.value}
        write_json(self._file, about)
        for old in committed_steps(str(self._file.parent / "checkpoints")):
            if old != step:
                shutil.rmtree(self._file.parent / "checkpoints" / str(old))

    def _copy(self, step: int) -> None:
        target = self._file.parent / "checkpoints" / str(step)
        unfinished = self._file.parent / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(self._workdir / "checkpoints" / str(step), unfinished)
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
