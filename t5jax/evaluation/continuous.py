"""Continuous evaluation: new checkpoints of a training run as they appear, the best one kept."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Literal

import jax
from etils import epath

from t5jax import buckets
from t5jax.checkpoints import committed_steps
from t5jax.data.atomic_files import write_json_file
from t5jax.errors import ConfigError
from t5jax.runtime import of_first_host

_POLL_SECONDS = 5.0
BestMode = Literal["max", "min"]


def poll_checkpoints(
    directory: str | os.PathLike[str],
    *,
    timeout_seconds: float,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[int]:
    """Yields the committed steps, oldest first, then new ones as they appear.

    Ends when no new one has appeared for `timeout_seconds`. All hosts get the steps that the first
    one sees.
    """
    last, waited = -1, 0.0
    while True:
        steps = of_first_host(committed_steps(os.fspath(directory)))
        new = [step for step in steps if step > last]
        if new:
            last, waited = new[0], 0.0
            yield last
        elif waited >= timeout_seconds:
            return
        else:
            wait(_POLL_SECONDS)
            waited += _POLL_SECONDS


def wait_for_checkpoint(directory: str | os.PathLike[str], *, timeout_seconds: float) -> bool:
    """Whether a committed step is there, or appears in time; before the hosts are connected."""
    waited = 0.0
    while not committed_steps(os.fspath(directory)):
        if waited >= timeout_seconds:
            return False
        time.sleep(_POLL_SECONDS)
        waited += _POLL_SECONDS
    return True


def is_committed(directory: str | epath.Path, step: int) -> bool:
    """Whether the step is still there, as the first host sees it."""
    return of_first_host(step in committed_steps(directory))


class StepDeleted(Exception):
    """The training run has deleted the step that was to be kept."""

    def __init__(self, step: int):
        super().__init__(
            f"step {step} is the best so far, but the training run deleted it before it could be "
            "kept: a larger checkpoints.keep_newest leaves more time"
        )


class BestCheckpoint:
    """The best checkpoint of a run by a metric, copied to WORKDIR/best, because training may delete
    its own. That folder is the workdir of a run with this one checkpoint."""

    def __init__(self, workdir: str | os.PathLike[str], metric: str, mode: BestMode):
        """Raises ConfigError where the existing copy was chosen by another metric."""
        self._workdir, self.metric, self._mode = os.fspath(workdir).rstrip("/"), metric, mode
        self._files = buckets.run_files(workdir)
        self._files.fetch("best/best.json")
        self._file = self._files.folder / "best" / "best.json"
        self.value: float | None = None
        if self._file.exists():
            existing = json.loads(self._file.read_text())
            if (existing["metric"], existing["mode"]) != (metric, mode):
                raise ConfigError(
                    f"--keep-best {metric} ({mode}): {self._file.parent} holds the best by "
                    f"{existing['metric']} ({existing['mode']}); delete it first"
                )
            if existing["value"] is not None and not math.isnan(existing["value"]):
                self.value = existing["value"]  # NaN: written by a version that let it be the best

    def update(self, step: int, metrics: dict[str, float]) -> bool:
        """Keeps the step if it is better than all before; returns whether it was. NaN, the value of
        a metric that is not defined, is never better than anything.

        Raises ConfigError when the metric is not among `metrics`, and StepDeleted, on every host,
        when the step is no longer there: what was the best before is still kept.
        """
        if self.metric not in metrics:
            raise ConfigError(
                f"--keep-best {self.metric}: the evaluation has {', '.join(sorted(metrics))}"
            )
        value = metrics[self.metric]
        if math.isnan(value) or (self.value is not None and not self._is_better(value)):
            return False
        if not of_first_host(jax.process_index() != 0 or self._copy(step)):
            raise StepDeleted(step)
        self.value = value
        if jax.process_index() == 0:
            self._keep(step)
        return True

    def _is_better(self, value: float) -> bool:
        assert self.value is not None
        return value > self.value if self._mode == "max" else value < self.value

    def _keep(self, step: int) -> None:
        record = {"step": step, "metric": self.metric, "mode": self._mode, "value": self.value}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_json_file(self._file, record)
        self._files.upload()
        copies = f"{self._workdir}/best/checkpoints"
        for old in committed_steps(copies):
            if old != step:
                self._delete(f"{copies}/{old}")

    def _delete(self, copy: str) -> None:
        if self._files.url is None:
            shutil.rmtree(copy)
        else:
            buckets.delete_folder(copy)

    def _copy(self, step: int) -> bool:
        """False if training deletes the step, or has."""
        if self._files.url is not None:
            return self._copy_in_bucket(step)
        source = pathlib.Path(self._workdir) / "checkpoints" / str(step)
        target = self._file.parent / "checkpoints" / str(step)
        unfinished = self._file.parent / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        files = _files(source)
        try:
            shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("*.tmp"))
        except (FileNotFoundError, shutil.Error):
            if _files(source) == files and files:
                raise
        # A folder that was being emptied meanwhile is copied without an error, in part.
        if not files or _files(source) != files:
            shutil.rmtree(unfinished, ignore_errors=True)
            return False
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
        return True

    def _copy_in_bucket(self, step: int) -> bool:
        source = f"{self._workdir}/checkpoints/{step}"
        target = f"{self._workdir}/best/checkpoints/{step}"
        names = lambda: {name for name in buckets.objects_below(source) if "/" in name}
        before = names()
        buckets.delete_folder(target)
        with contextlib.suppress(FileNotFoundError):  # in part, and so without its last object
            buckets.copy_folder(source, target)
        if before and names() == before:
            return True
        buckets.delete_folder(target)
        return False


def _files(folder: pathlib.Path) -> set[pathlib.Path]:
    """Of a step's items: metrics, beside them, come later."""
    return {path for path in folder.rglob("*") if path.is_file() and path.parent != folder}
