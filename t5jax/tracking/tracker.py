"""Experiment tracking: metrics.jsonl, TensorBoard, wandb and progress, behind one object."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from t5jax.buckets import run_files
from t5jax.errors import ConfigError, foreign_code, full_name, user_code
from t5jax.tracking.goodput import GOODPUT, Goodput, past_parts
from t5jax.tracking.guarded import GuardedWriter
from t5jax.tracking.jsonl import EVALUATION, RESUMED, TRAIN, RecordLog, make_record, python_scalars
from t5jax.tracking.keys import eval_key
from t5jax.tracking.profile import Profile, steps_of
from t5jax.tracking.progress import Progress, ProgressBar, ProgressLines, format_fields
from t5jax.tracking.writers import (
    CustomTracker,
    TensorBoardWriter,
    WandbWriter,
    Writer,
    check_wandb,
)

_ENDINGS = ("preempted", "finished")


@dataclasses.dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """What a run logs besides metrics.jsonl, which it always writes."""

    log_every_steps: int = 1  # a line is about 400 bytes: 10 or 100 for a run of a million steps
    tensorboard: bool = True  # event files in WORKDIR/tensorboard
    wandb_project: str | None = None  # None: no wandb
    progress: Literal["auto", "bar", "lines", "off"] = "auto"  # auto: a bar if stderr is a terminal
    seconds_between_lines: float = 10.0
    plot: bool = True  # WORKDIR/loss.png when the run ends
    trackers: tuple[CustomTracker, ...] = ()  # one's own, beside TensorBoard and wandb
    # 0: never; else the norms of every weight, its gradient and its update, computed in every step.
    norms_every_steps: int = 0
    profile_steps: str | None = None  # "10:12": a trace of these steps for xprof, WORKDIR/profile

    def __post_init__(self) -> None:
        if self.log_every_steps < 1:
            raise ConfigError(
                f"tracking.log_every_steps = {self.log_every_steps}: must be at least 1"
            )
        if self.norms_every_steps < 0 or self.norms_every_steps % self.log_every_steps:
            raise ConfigError(
                f"tracking.norms_every_steps = {self.norms_every_steps}: must be a multiple of "
                f"tracking.log_every_steps = {self.log_every_steps}, or 0 for never"
            )
        if not self.seconds_between_lines >= 0:
            raise ConfigError(
                f"tracking.seconds_between_lines = {self.seconds_between_lines}: must be 0 or more"
            )
        if self.progress not in ("auto", "bar", "lines", "off"):
            raise ConfigError(
                f"tracking.progress = {self.progress!r}: must be auto, bar, lines or off"
            )
        steps_of(self.profile_steps)
        if self.wandb_project == "":
            raise ConfigError("tracking.wandb_project = '': give a name, or None for no wandb")


class Tracker:
    """Writes metrics.jsonl, TensorBoard and wandb, shows progress, draws the loss curve.

    Every process makes one; only the primary one prints or writes. Metrics are scalars of Python,
    NumPy or JAX (None: not known), named `group/name` (`keys.py`). Call it from one thread. Raises
    ConfigError if a setting cannot take effect, OSError if a file cannot be written.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        config: TrackingConfig,
        *,
        num_train_steps: int,
        is_primary: bool,
        goodput: Goodput | None = None,
    ):
        self.goodput = goodput or Goodput()
        profiled = steps_of(config.profile_steps)
        if profiled and profiled[0] > num_train_steps:
            raise ConfigError(
                f"tracking.profile_steps = {config.profile_steps!r}: the run has "
                f"train.num_train_steps = {num_train_steps}; name steps that it takes, or None"
            )
        self._files, self._config = run_files(workdir), config
        self._workdir = self._files.folder
        self._profile = Profile(self._workdir, profiled if is_primary else range(0))
        if config.wandb_project is not None:
            check_wandb(config.wandb_project)  # on every host: all refuse, or none
        self._num_train_steps, self._is_primary = num_train_steps, is_primary
        self._closed = not is_primary
        if is_primary:
            for name in ("metrics.jsonl", "wandb_run_id.txt"):
                self._files.fetch(name)
            self._log = RecordLog(self._workdir / "metrics.jsonl")
            self._writers = self._make_writers()
            self._progress = self._make_progress()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> None:
        try:
            self.close()
        except OSError:  # the disk that stopped the run takes no loss curve either
            if error is None:
                raise

    def due(self, step: int) -> bool:
        """Whether `train(step, ...)` would be recorded: every `log_every_steps`, first and last."""
        return step % self._config.log_every_steps == 0 or step in (1, self._num_train_steps)

    def train(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Logs the metrics of the `step`-th step, counted from 1; call it for every step."""
        if not self._is_primary:
            return
        metrics = python_scalars(metrics)
        if self.due(step):
            self._log.append(make_record(TRAIN, step, metrics))
            self._write_scalars(step, metrics)
        self._progress.step(step, metrics)
        self._files.upload_in_time()

    def evaluation(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Logs an evaluation, on `split`, of the parameters after `step` steps.

        `split` may name a task, "validation/TASK"; the metric `loss` is logged as
        `eval/validation/TASK/loss`.
        """
        if not self._is_primary:
            return
        metrics = python_scalars(metrics)
        keyed = {eval_key(split, name): value for name, value in metrics.items()}
        self._log.append(make_record(EVALUATION, step, keyed, split=split))
        self._write_scalars(step, keyed)
        self._progress.flush()  # the training loss of that step beside it
        words = [f"step {step}", f"eval/{split}", *format_fields(metrics)]
        self._progress.message("  ".join(words))

    def event(self, step: int, kind: str, **fields: Any) -> None:
        """Logs something that happened after `step` steps.

        Kinds: started, resumed, saved, skipped_bad_step, metric_failed, tracker_failed, fell_back,
        evaluating_again, preempted, finished, profiled ...
        "resumed" means that what was logged about later steps no longer counts.
        """
        assert kind not in (TRAIN, EVALUATION), f"{kind} is no event"
        if not self._is_primary:
            return
        fields = python_scalars(fields)
        if kind == RESUMED:
            for writer in self._writers:
                writer.restart(step)
            self._progress.restart(step)
        self._log.append(make_record(kind, step, fields))
        if kind in _ENDINGS:
            self._progress.flush()
        lists = {name: value for name, value in fields.items() if isinstance(value, list | tuple)}
        single = {name: value for name, value in fields.items() if name not in lists}
        words = [f"step {step}", kind.replace("_", " "), *format_fields(single)]
        items = [f"  {name}: {item}" for name, value in lists.items() for item in value]
        self._progress.message("\n".join(["  ".join(words), *items]))

    def begin(self, step: int) -> None:
        """Ends the part `init` of the wall time; the account goes on from the one of the run's
        earlier processes, if it was resumed. Call it once, when the state after `step` is there."""
        self.goodput.begin()
        if self._is_primary:
            self.goodput.resume(past_parts(self._log.path, step, self.goodput.started))
            fields = {"started": round(self.goodput.started, 3), **self.goodput.metrics()}
            self._log.append(make_record(GOODPUT, step, fields))

    def profiled(self, step: int) -> AbstractContextManager[None]:
        """For the call of the `step`-th train step: traced, if the config says so."""
        return self._profile.step(step)

    def end_profile(self, step: int, results: Any) -> None:
        """Call it with what the `step`-th train step returned: ends the trace after its last."""
        if self._profile.end(step, results):
            self.event(step, "profiled", folder=self._profile.folder)

    def time_spent(self, step: int) -> None:
        """Logs where the wall time went until `step` steps were done; call it before a save
        and after an evaluation."""
        if self._is_primary:
            metrics = self.goodput.metrics()
            self._log.append(make_record(GOODPUT, step, metrics))
            self._write_scalars(step, metrics)

    def end(self, step: int, kind: str) -> None:
        """Logs the event with which a run ends, and where its time went, which it prints, too."""
        self.time_spent(step)
        self.event(step, kind)
        self.message(self.goodput.table())

    def message(self, text: str) -> None:
        """Prints a line between those of the progress; nothing is logged."""
        if self._is_primary:
            self._progress.message(text)

    def upload(self) -> None:
        """Everything written so far is in the bucket of a workdir that lies in one. Raises OSError
        where it cannot be."""
        if self._is_primary:
            self._files.upload()

    def plot(self) -> pathlib.Path | None:
        """Draws WORKDIR/loss.png from what has been recorded; None if there is no step yet."""
        if not self._is_primary:
            return None
        from t5jax.tracking.plots import plot_run

        return plot_run(self._workdir)

    def close(self) -> None:
        """Ends the bar, closes the files and draws the loss curve; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._profile.close()
        for writer in self._writers:
            writer.close()
        self._progress.close()
        self._log.close()
        if self._config.plot:
            self.plot()
        self._files.upload()

    def _write_scalars(self, step: int, metrics: Mapping[str, Any]) -> None:
        numbers = {
            name: float(value) for name, value in metrics.items() if isinstance(value, int | float)
        }
        for writer in self._writers:
            writer.scalars(step, numbers)

    def _make_writers(self) -> list[Writer]:
        writers: list[Writer] = []
        if self._config.tensorboard:
            writers.append(TensorBoardWriter(self._workdir / "tensorboard"))
        if self._config.wandb_project is not None:
            with foreign_code("wandb", "tracking.wandb_project", ConfigError):
                wandb = WandbWriter(self._config.wandb_project, self._workdir)
            writers.append(GuardedWriter(wandb, "wandb", self._tracker_failed))
        for number, tracker in enumerate(self._config.trackers):
            with user_code(tracker, "tracker", f"tracking.trackers.{number}"):
                writer = tracker.build(self._workdir)
            name = f"the tracker {full_name(tracker)}"
            missing = [x for x in ("scalars", "restart", "close") if not hasattr(writer, x)]
            if missing:
                raise ConfigError(
                    f"tracking.trackers.{number}: {name} built {type(writer).__name__}, which "
                    f"lacks {', '.join(missing)} (see t5jax.tracking.writers.Writer)"
                )
            writers.append(GuardedWriter(writer, name, self._tracker_failed))
        return writers

    def _tracker_failed(self, step: int, error: str) -> None:
        """Recorded and said; a tracker never ends the run."""
        self.event(step, "tracker_failed", error=error)

    def _make_progress(self) -> Progress:
        kind, stream = self._config.progress, sys.stderr
        if kind == "auto":
            kind = "bar" if stream.isatty() else "lines"
        if kind == "bar":
            return ProgressBar(stream, self._num_train_steps)
        if kind == "lines":
            seconds = self._config.seconds_between_lines
            return ProgressLines(stream, self._num_train_steps, seconds)
        return Progress()
