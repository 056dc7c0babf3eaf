"""Flight recorder: what a step was made of, kept in WORKDIR/flight/STEP when it went wrong, or on
request.

A record is `step.json` (reason, metrics, random keys, mesh, versions, flags, settings, the position
of the data; norms of every tensor, if the run computes them), `batch.npz` (the arrays that the step
was given) and `rows.jsonl` (every row as text, with the documents it comes from). `t5jax replay`
runs the step again. Host 0 writes: its loader gives any host's rows, but for data that is tokenised
while it is read, of which it has its own.
"""

import collections
import contextlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from t5jax.buckets import run_files
from t5jax.checkpoints import leaves_by_path
from t5jax.data.pipeline.loader import Loader
from t5jax.errors import CheckpointError, ConfigError, DataError, refused_write, writing
from t5jax.run.auto import Resolved
from t5jax.run.build import TrainLoader
from t5jax.runtime import Preempted, TooManyBadSteps
from t5jax.tracking import Tracker
from t5jax.tracking.jsonl import json_value, loss_hex
from t5jax.training.steps import Program
from t5jax.types import Batch

FOLDER, REQUEST = "flight", "request"  # of a workdir; a file in that folder
_MOST, _MOST_IN_A_ROW = 20, 3  # records of a process: what goes wrong often is seen in the first
_SECONDS_BETWEEN_LOOKS = 5.0  # for the file: a shared disk takes milliseconds to answer
_ROWS_KEPT = 8  # batches of streaming data: made ahead, running, and not yet read
# Errors that are not of the step: the run is to end, or its data cannot be read.
_NOT_OF_STEPS = (Preempted, TooManyBadSteps, ConfigError, DataError, CheckpointError)


class FlightRecorder:
    """Records steps of the run, counted from 1 as in its log. Does nothing but on host 0."""

    def __init__(
        self,
        resolved: Resolved,
        program: Program,
        loader: TrainLoader,
        tracker: Tracker,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._resolved, self._program, self._loader = resolved, program, loader
        self._tracker, self._clock = tracker, clock
        self._folder = run_files(resolved.config.workdir).folder / FOLDER
        self._rows: collections.OrderedDict[int, tuple[Batch, dict]] = collections.OrderedDict()
        self._looked, self._made = clock(), 0
        self.running = 0  # the step that was dispatched last

    def keep(self, step: int, rows: Batch) -> Batch:
        """The rows of this host, which a record of the step may need; called as they are made."""
        if not isinstance(self._loader, Loader):  # a store is asked again
            self._rows[step] = rows, self._loader.state(step - 1)
            while len(self._rows) > _ROWS_KEPT:
                self._rows.popitem(last=False)
        return rows

    def check(self, step: int, metrics: Mapping[str, Any], norms: Any, bad_steps: int) -> None:
        """Records a step that was skipped, or the next one when WORKDIR/flight/request is there."""
        if bad_steps:
            if bad_steps <= _MOST_IN_A_ROW:
                self.record(step, "loss or gradient not finite", metrics, norms)
        elif self._requested():
            self.record(step, "requested", metrics, norms)

    @contextlib.contextmanager
    def on_crash(self) -> Iterator[None]:
        """Records the step that was running when something fails inside."""
        try:
            yield
        except _NOT_OF_STEPS:
            raise
        except Exception as error:
            if self.running and refused_write(error) is None:
                text = " ".join(str(error).split())[:300]
                with contextlib.suppress(OSError):  # the first error is the one to be seen
                    self.record(self.running, f"{type(error).__name__}: {text}", {}, {})
            raise

    def record(self, step: int, reason: str, metrics: Mapping[str, Any], norms: Any) -> None:
        """Writes WORKDIR/flight/STEP, unless it is there; what cannot be written is said, and the
        run goes on."""
        folder = self._folder / str(step)
        if jax.process_index() or self._made >= _MOST or folder.exists():
            return
        self._made += 1
        unfinished = folder.with_name(f".{step}.unfinished")
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self._write(unfinished, step, reason, metrics, norms)
            unfinished.rename(folder)
        except (OSError, DataError, KeyError) as error:
            self._tracker.event(step, "not_recorded", error=f"{type(error).__name__}: {error}")
            return
        self._tracker.event(step, "recorded", reason=reason, folder=folder)

    def _write(self, folder: pathlib.Path, step: int, reason: str, metrics, norms) -> None:
        rows, position = self._rows.get(step) or (self._loader.rows(step - 1), None)
        position = position or self._loader.state(step - 1)
        config = self._resolved.config
        key = jax.random.fold_in(jax.random.key(config.train.seed), step - 1)
        loss = metrics.get("train/loss")
        content = {
            "step": step,
            "reason": reason,
            "time": round(time.time(), 3),
            "metrics": {name: json_value(value) for name, value in metrics.items()},
            "loss_hex": None if loss is None else loss_hex(loss),
            "norms": {path: json_value(x) for path, x in norm_metrics(norms).items()} or None,
            "keys": {
                "seed": config.train.seed,
                "implementation": str(jax.random.key_impl(key)),
                "of_step": np.asarray(jax.random.key_data(key)).tolist(),
            },
            "mesh": dict(self._program.mesh.shape),
            "devices": self._resolved.machine,
            "hosts": jax.process_count(),
            "run": self._resolved.checkpoint_record(position),
        }
        with writing(folder / "step.json"):
            (folder / "step.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
            np.savez_compressed(folder / "batch.npz", **rows)
            with open(folder / "rows.jsonl", "w", encoding="utf-8") as file:
                for row in range(len(next(iter(rows.values())))):
                    line = self._row(step, row, {name: x[row] for name, x in rows.items()})
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _row(self, step: int, row: int, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """A row as people read it."""
        loader = self._loader
        found: dict[str, Any] = {"row": row}
        if "task_ids" in arrays:
            found["task"] = loader.task_names[int(arrays["task_ids"])]
        for name, ids in arrays.items():
            if name.endswith(("encoder_input_tokens", "target_tokens")):
                found[name] = loader.vocabulary.decode(ids[ids != loader.vocabulary.pad_id])
        if isinstance(loader, Loader) and all(part.store for part in loader.components):
            found["from"] = [
                {"task": x.task, "feature": x.feature, **x.place._asdict()}
                for x in loader.origins(step - 1, row)
            ]
        return found

    def _requested(self) -> bool:
        if self._clock() - self._looked < _SECONDS_BETWEEN_LOOKS or jax.process_index():
            return False
        self._looked = self._clock()
        try:
            (self._folder / REQUEST).unlink()
        except FileNotFoundError:
            return False
        except OSError:  # it cannot be removed: it would be found for ever
            return not self._made
        return True


def norm_metrics(norms: Any) -> dict[str, float]:
    """`norm/weights/PATH`, `norm/gradients/PATH` and `norm/updates/PATH` -> value."""
    host = jax.device_get(norms)
    return {f"norm/{path}": float(value) for path, value in leaves_by_path(host).items()}
