"""Where scalars go besides metrics.jsonl: TensorBoard event files and, when asked for, wandb.

A writer has `scalars(step, values)`, `restart(step)`, called when the run resumes after `step`, and
`close()`.
"""

import importlib
import importlib.util
import io
import os
import pathlib
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from t5jax.errors import ConfigError, write_whole, writing


class Writer(Protocol):
    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def restart(self, step: int) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class CustomTracker(Protocol):
    """A tracker of a user's module: a dataclass with this method (docs/extending.md)."""

    def build(self, workdir: pathlib.Path) -> Writer:
        """What the primary process of a run writes to. Called once, when the run begins."""
        ...


class TensorBoardWriter:
    """Writes one event file into `directory`, without TensorFlow.

    TensorBoard's own EventFileWriter loads TensorFlow wherever it is installed (9 seconds), because
    it opens the file through `tf.io.gfile`. Its protocol buffers and its record format do not.
    """

    def __init__(self, directory: pathlib.Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        # Any: protobuf makes their classes at run time, out of sight of a type checker.
        self._event: Any = event_pb2
        self._summary: Any = summary_pb2
        directory.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files in the order of their names, hence the time to microseconds.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        # Unbuffered: what a full disk refuses must not be tried again when the process ends.
        self._file = open(directory / name, "wb", buffering=0)  # noqa: SIM115 (until close)
        self._record_writer = RecordWriter
        self._write(self._event.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        Value = self._summary.Summary.Value
        scalars = [Value(tag=tag, simple_value=value) for tag, value in values.items()]
        summary = self._summary.Summary(value=scalars)
        self._write(self._event.Event(wall_time=time.time(), step=step, summary=summary))

    def restart(self, step: int) -> None:
        """Makes TensorBoard drop what earlier files hold about steps after `step`."""
        start = self._event.SessionLog(status=self._event.SessionLog.START)
        self._write(self._event.Event(wall_time=time.time(), step=step + 1, session_log=start))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Any) -> None:
        piece = io.BytesIO()
        self._record_writer(piece).write(event.SerializeToString())
        with writing(self._file.name):
            write_whole(self._file, piece.getvalue())


class WandbWriter:
    """Logs to one wandb run per work directory, resumed when the run is.

    Sends metrics only: no configuration, environment, command line, source or terminal output. The
    key comes from wandb's own variables or `wandb login`.
    """

    def __init__(self, project: str, workdir: pathlib.Path):
        check_wandb(project)
        wandb = importlib.import_module("wandb")
        self._run = wandb.init(
            project=project,
            name=workdir.resolve().name,
            dir=str(workdir),
            id=_wandb_run_id(workdir),
            resume="allow",
            save_code=False,
            settings=wandb.Settings(
                console="off",
                disable_git=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        # wandb refuses steps that go back, as resuming makes them; on an axis of our own they may.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def restart(self, step: int) -> None:
        self._run.log({"step": step, "resumed": 1})

    def close(self) -> None:
        self._run.finish()


def check_wandb(project: str) -> None:
    """Raises ConfigError if wandb is wanted and not installed; does not import it."""
    if importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            f"tracking.wandb_project = {project!r}: wandb is not installed; "
            "run `pip install 't5jax[wandb]'`, or set it to None"
        )


def _wandb_run_id(workdir: pathlib.Path) -> str:
    path = workdir / "wandb_run_id.txt"
    if not path.exists():
        path.write_text(secrets.token_hex(8) + "\n")
    return path.read_text().strip()
