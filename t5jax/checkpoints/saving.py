"""Asynchronous checkpointing with retention policies (`retention.py`)."""

import errno
import logging
import os
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from t5jax import buckets
from t5jax.checkpoints import record as records
from t5jax.checkpoints.fingerprint import fingerprints, leaves_by_path
from t5jax.checkpoints.restoring import (
    STATE,
    Log,
    Restored,
    absolute,
    agreed_steps,
    brief,
    nested,
    newest_verified,
)
from t5jax.checkpoints.retention import CheckpointConfig, Retention, score
from t5jax.checkpoints.schedule import SaveSchedule
from t5jax.errors import CheckpointError, ConfigError, refused_write
from t5jax.runtime import of_first_host


def _without_orbax_failures(line: logging.LogRecord) -> bool:
    """Orbax logs a traceback in every thread that a failed write passes through, and then raises
    the error: what is said of it is ours alone. T5JAX_DEBUG shows them."""
    is_failure = line.levelno >= logging.ERROR and line.exc_info
    return not (is_failure and "orbax" in line.pathname) or bool(os.environ.get("T5JAX_DEBUG"))


logging.getLogger("absl").addFilter(_without_orbax_failures)
_log: Log = logging.getLogger(__name__).warning


class CheckpointWriteError(OSError):
    """A checkpoint could not be written; the older ones are intact."""


class Checkpoints:
    """The checkpoints of one run. With several hosts, all of them make every call alike.

    Nothing in the directory changes before the first `save`, so any number of readers may look at
    the directory of a running job.
    """

    def __init__(self, directory: str | os.PathLike[str], config: CheckpointConfig):
        self.directory = absolute(directory)
        self._config = config
        self._schedule = SaveSchedule(config)
        self._manager: ocp.CheckpointManager | None = None
        self._newest: int | None = None  # of the steps on disk that this run continues
        self._pending: int | None = None
        self._committed: list[int] = []
        self._retention = Retention(config, {})
        self.awaits_metrics = False  # the restored step: an evaluation of it began and never ended

    def due(self, step: int, after: Any = ()) -> bool:
        """As `SaveSchedule.due`: to be asked once after every step."""
        return self._schedule.due(step, after)

    def save(
        self, step: int, state, record: dict[str, Any], *, awaits_metrics: bool = False
    ) -> bool:
        """Starts saving; returns once the arrays are copied to the host (they may be donated then).

        Waits for the save before, if that is still being written. `record` is any JSON;
        `awaits_metrics` says that `add_metrics` is to follow. Returns False if this step is saved
        already.

        Raises:
          CheckpointWriteError: this save or the one before failed.
          CheckpointError: the directory holds checkpoints that were not restored.
        """
        self.wait()
        if step == self._newest:
            return False
        if self._newest is not None and step < self._newest:
            raise ValueError(f"step {step} is older than the saved step {self._newest}")
        manager = self._manager = self._manager or self._open()
        leaves = leaves_by_path(state)
        whole = records.Record(
            step=step,
            content=record,
            metrics={},
            leaves=_describe(leaves),
            awaits_metrics=awaits_metrics,
        )
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(nested({p: x for p, x in leaves.items() if x.size})),
            record=ocp.args.JsonSave(records.encode_record(whole)),
        )
        self._pending = step
        try:
            manager.save(step, args=items, force=True)
        except Exception as error:
            raise self._failed(error) from error
        return True

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of its evaluation to a saved step, by which it may be one of the best;
        then deletes the steps that no longer are. Waits until the step is complete. Nothing happens
        for a step that was not saved.

        Raises:
          CheckpointWriteError: the save failed.
          ConfigError: the best metric is not among them, at a step of `save_every_steps`; between
            those not all need be evaluated, and the step has no score.
          OSError: they could not be written.
        """
        self.wait()
        if step != self._newest:
            return
        numbers = {name: float(value) for name, value in metrics.items()}
        best, regular = self._config.best_metric, step % self._config.save_every_steps == 0
        if self._config.keep_best and regular and best not in numbers:
            raise ConfigError(
                f"checkpoints.best_metric={best!r} is not among the metrics "
                f"of the run: {', '.join(sorted(numbers))}"
            )
        if jax.process_index() == 0:
            records.write_metrics(self.directory, step, numbers)
        if not self._config.keep_best:
            return
        manager = self._manager = self._manager or self._open()
        self._retention.scores[step] = score(self._config, numbers)
        steps = sorted(manager.all_steps())
        for old in sorted(set(steps) - self._retention.kept(steps)):
            manager.delete(old)

    def committed(self) -> list[int]:
        """Steps that have become complete since the last call; only those are saved. Never waits.

        Raises:
          CheckpointWriteError: the save in progress failed.
        """
        if self._manager is not None and not self._manager.is_saving_in_progress():
            self.wait()
        committed, self._committed = self._committed, []
        return committed

    def wait(self) -> None:
        """Blocks until the save in progress is complete.

        Raises:
          CheckpointWriteError: it failed.
        """
        if self._pending is None or self._manager is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error
        self._committed.append(self._pending)
        self._newest, self._pending = self._pending, None

    def close(self) -> None:
        """Waits, then closes Orbax's manager. Not for use while an exception propagates: peers may
        never come."""
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def restore(self, abstract_state, step: int | None = None, log: Log = _log) -> Restored | None:
        """The newest verified state, or that of `step`; None if nothing was ever saved.

        Args:
          abstract_state: the state with shapes, dtypes and shardings (`jax.ShapeDtypeStruct`s). The
            mesh may be another than at saving.
          log: gets a line for every step that is passed over, with the reason.

        Raises:
          CheckpointError: the checkpoint is of another model, or `step` is missing or damaged.
          NoUsableCheckpoint: there are steps, but all are damaged.
        """
        self.close()
        steps = agreed_steps(self.directory)
        if not steps and step is None:
            return None
        wanted = leaves_by_path(abstract_state)
        record, arrays = newest_verified(self.directory, wanted, steps, step, log, all_of="")
        self._newest = record.step
        metrics, self.awaits_metrics = _agreed_metrics(record)
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), arrays)
        return Restored(step=record.step, state=state, record=record.content, metrics=metrics)

    def _open(self) -> ocp.CheckpointManager:
        steps = agreed_steps(self.directory)
        if steps and self._newest is None:
            raise CheckpointError(
                f"{self.directory} already holds steps {steps} of a run that was not restored; "
                "resume that run, or choose another directory"
            )
        self._set_aside([step for step in steps if step > (self._newest or 0)])
        self._retention = Retention(self._config, self._read_scores())
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._retention,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # else one damaged metadata file stops the run
        )
        handlers = {
            STATE: ocp.PyTreeCheckpointHandler(),
            records.ITEM: ocp.JsonCheckpointHandler(records.FILE),
        }
        return _Manager(self.directory, options=options, item_handlers=handlers)

    def _set_aside(self, steps: list[int]) -> None:
        """Moves steps that this run does not continue (damaged, or newer than the one asked for).

        Orbax would refuse to save them again, and count them among the newest to keep.
        """
        problem = ""
        if jax.process_index() == 0:
            try:
                for step in steps:
                    _log(
                        f"step {step} is not continued: moved to {_move_away(self.directory, step)}"
                    )
            except OSError as error:
                problem = str(error)
        problem = of_first_host(problem)
        if problem:
            raise CheckpointWriteError(errno.EIO, f"cannot set a checkpoint aside: {problem}")

    def _failed(self, error: Exception) -> CheckpointWriteError:
        """Drops the step that failed, which Orbax would still count as saved."""
        step, self._pending = self._pending, None
        assert step is not None
        self._manager = None  # the next save opens another, which clears the remains away
        number, file = refused_write(error) or (errno.EIO, "")
        reason = os.strerror(number) if file else f"{os.strerror(number)}; {brief(error)}"
        newest = "there is none before it"
        if self._newest is not None:
            newest = f"the newest one, of step {self._newest}, is whole"
        return CheckpointWriteError(
            number,
            f"the checkpoint of step {step} was not saved ({reason}); {newest}",
            file or str(self.directory),
        )

    def _read_scores(self) -> dict[int, float]:
        """As host 0 reads them: what is deleted must be the same everywhere."""
        scores = {}
        for step in records.committed_steps(self.directory) if jax.process_index() == 0 else []:
            try:
                metrics = records.load_record(self.directory, step).metrics
            except records.DamagedError:
                continue  # cannot be the best; restore says why
            scores[step] = score(self._config, metrics)
        return {int(step): value for step, value in of_first_host(scores).items()}


class _Manager(ocp.CheckpointManager):
    """Without Orbax's own preemption check: jax's sync point allows one counter, the trainer's."""

    def reached_preemption(self, step: int) -> bool:
        return False


def _agreed_metrics(record: records.Record) -> tuple[dict[str, float], bool]:
    """(metrics, whether they are awaited) as host 0 reads them: others may see the file late."""
    metrics, awaited = of_first_host([record.metrics, record.awaits_metrics])
    return metrics, awaited


def _describe(leaves: Mapping[str, jax.Array]) -> dict[str, records.SavedLeaf]:
    prints = fingerprints(leaves)
    return {
        path: records.SavedLeaf(shape=x.shape, dtype=str(x.dtype), fingerprint=prints[path])
        for path, x in leaves.items()
    }


def _move_away(directory: epath.Path, step: int) -> epath.Path:
    in_bucket = buckets.in_bucket(directory)
    # In a bucket beside it: Orbax deletes what lies in it without a commit_success.txt.
    aside = epath.Path(f"{directory}_set_aside") if in_bucket else directory / "set_aside"
    aside.mkdir(parents=True, exist_ok=True)
    target, count = aside / str(step), 1
    while target.exists():
        target, count = aside / f"{step}_{count}", count + 1
    if in_bucket:  # has no folders that could be renamed
        buckets.copy_folder(f"{directory}/{step}", str(target))
        buckets.delete_folder(f"{directory}/{step}")
    else:
        (directory / str(step)).rename(target)
    return target
