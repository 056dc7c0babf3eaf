"""The JSON record of a checkpoint: metadata and fingerprints beside the arrays of a step.

The record holds what the caller gave (data position, config text, environment, vocabulary), and
shape, dtype and fingerprint of every array, all under one crc32: the arrays are checked by the
record, the record by its checksum. Reading it needs neither a model nor devices.

A step is saved before it is evaluated, so that nothing that happens meanwhile loses it; its metrics
come after, as a file of their own. (In a record of t5jax 0.1 they are in it.)
"""

import dataclasses
import json
import logging
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from etils import epath  # local paths and gs:// alike

from t5jax import buckets
from t5jax.checkpoints.fingerprint import Fingerprint
from t5jax.errors import CheckpointError, writing
from t5jax.paths import run_folder

FOLDER = "checkpoints"  # of a run's workdir
FORMAT = 1
FILE = "record.json"
METRICS_FILE = "metrics.json"  # beside the items of a step
ITEM = "record"
_MOST_NAMED = 10
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class DamagedError(Exception):
    """A file of this step is missing, unreadable or has changed since it was written."""


class NoUsableCheckpoint(CheckpointError):
    """Steps exist, but all are damaged. Starting at step 0 would destroy the run."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SavedLeaf:
    """One array as it was when it was saved."""

    shape: tuple[int, ...]
    dtype: str
    fingerprint: Fingerprint


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    step: int
    content: dict[str, Any]  # the caller's
    metrics: dict[str, float]
    leaves: dict[str, SavedLeaf]  # by path
    awaits_metrics: bool = False  # it was saved to be evaluated, and no evaluation has ended


def encode_record(record: Record) -> dict[str, Any]:
    """The record as JSON with its checksum.

    Raises:
      TypeError: the caller's content is not JSON.
    """
    body = {
        "format": FORMAT,
        "step": record.step,
        "content": record.content,
        "metrics": record.metrics,
        "awaits_metrics": record.awaits_metrics,
        "leaves": {path: dataclasses.asdict(leaf) for path, leaf in record.leaves.items()},
    }
    return _with_checksum(body)


def load_record(directory: str | epath.Path, step: int) -> Record:
    """The record of one step.

    Raises:
      DamagedError: it is missing, unreadable or not what was written.
      OSError: it may not be read, or its bucket cannot be now.
      CheckpointError: a newer t5jax wrote it.
    """
    path = epath.Path(directory) / str(step) / ITEM / FILE
    try:
        body = _read_checked(path)
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    if body["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {body['format']}, this t5jax reads up to {FORMAT}: update t5jax"
        )
    if body["step"] != step:
        raise DamagedError(f"{path} belongs to step {body['step']}")
    leaves = {
        path: SavedLeaf(shape=tuple(leaf.pop("shape")), **leaf)
        for path, leaf in body["leaves"].items()
    }
    metrics = body["metrics"] or load_metrics(directory, step)
    return Record(
        step=step,
        content=body["content"],
        metrics=metrics or {},
        leaves=leaves,
        awaits_metrics=body.get("awaits_metrics", False) and metrics is None,
    )


def write_metrics(directory: str | epath.Path, step: int, metrics: Mapping[str, float]) -> None:
    """Adds the metrics of its evaluation to a committed step. Raises OSError."""
    path = epath.Path(directory) / str(step) / METRICS_FILE
    text = json.dumps(_with_checksum({"step": step, "metrics": dict(metrics)}))
    if buckets.in_bucket(path):  # an object appears whole
        with buckets.bucket_errors(path):
            path.write_text(text)
        return
    with writing(path):
        unfinished = path.with_name(f"{METRICS_FILE}.tmp")
        unfinished.write_text(text)
        unfinished.replace(path)


def load_metrics(directory: str | epath.Path, step: int) -> dict[str, float] | None:
    """What `write_metrics` wrote; None where it wrote nothing, or that is damaged: the arrays do
    not depend on it, and a step without metrics is never the best."""
    path = epath.Path(directory) / str(step) / METRICS_FILE
    try:
        body = _read_checked(path)
        if body["step"] != step:
            raise DamagedError(f"{path} belongs to step {body['step']}")
    except FileNotFoundError:
        return None
    except DamagedError as error:
        _log.warning("%s: the step counts as not evaluated", error)
        return None
    return body["metrics"]


def checkpoint_directory(workdir: str | os.PathLike[str]) -> epath.Path:
    """Where a run keeps its checkpoints. Raises ConfigError for a URL that no run can lie at, or
    that nothing installed here reads."""
    directory = epath.Path(run_folder(workdir, "workdir")) / FOLDER
    buckets.check_driver(directory)
    return directory


def committed_steps(directory: str | epath.Path) -> list[int]:
    """Steps that were saved completely, oldest first."""
    directory = epath.Path(directory)
    with buckets.bucket_errors(directory):
        if not directory.exists():
            return []
        steps = [path for path in directory.iterdir() if path.name.isdecimal()]
        if buckets.in_bucket(directory):  # elsewhere an unfinished step has another name
            steps = [path for path in steps if (path / buckets.COMMITTED).exists()]
    return sorted(int(path.name) for path in steps)


def latest_record(directory: str | epath.Path) -> Record:
    """The newest intact record; its arrays are not verified. Raises as `newest_undamaged`."""
    return read_record(directory, None)


def read_record(directory: str | epath.Path, step: int | None) -> Record:
    """The record of that very step; None: as `latest_record`. Raises as `newest_undamaged`."""
    read = lambda step: load_record(directory, step)
    return newest_undamaged(directory, committed_steps(directory), step, read)


def newest_undamaged(
    directory: str | epath.Path,
    steps: list[int],
    step: int | None,
    read: Callable[[int], _T],
    log: Callable[[str], None] = lambda line: None,
) -> _T:
    """What `read` makes of the newest of `steps` that is not damaged, or of `step`; `log` gets a
    line for every step that is passed over.

    Raises:
      CheckpointError: there are no steps, or `step` is missing or damaged.
      NoUsableCheckpoint: there are steps, but all are damaged.
    """
    if not steps:
        raise CheckpointError(f"{directory} holds no checkpoint")
    if step is not None:
        if step not in steps:
            known = ", ".join(map(str, steps))
            raise CheckpointError(f"{directory} holds no step {step}; it has: {known}")
        try:
            return read(step)
        except DamagedError as damage:
            raise CheckpointError(f"checkpoint of step {step} is damaged: {damage}") from damage
    reasons = []
    for candidate in reversed(steps):
        try:
            return read(candidate)
        except DamagedError as damage:
            reasons.append(f"step {candidate}: {damage}")
            log(f"CHECKPOINT OF STEP {candidate} IS DAMAGED and passed over ({damage})")
    raise NoUsableCheckpoint(
        f"{len(reasons)} checkpoints in {directory}, none can be used: {'; '.join(reasons)}. "
        "Nothing was changed. Restore the files from a copy, or start the run in another directory"
    )


def array_differences(
    record: Record, wanted: Mapping[str, Any], all_of: str | tuple[str, ...] = ()
) -> list[str]:
    """Where the saved arrays are not those of the model, a line each; saved leaves whose path
    begins with `all_of` must all be wanted."""
    shown = lambda leaf: f"{leaf.dtype}{list(leaf.shape)}"
    problems = []
    for path, leaf in wanted.items():
        saved = record.leaves.get(path)
        if saved is None:
            problems.append(f"{path}: not saved, the model has {shown(leaf)}")
        elif (saved.shape, saved.dtype) != (tuple(leaf.shape), str(leaf.dtype)):
            problems.append(f"{path}: saved {shown(saved)}, the model has {shown(leaf)}")
    for path in sorted(set(record.leaves) - set(wanted)):
        if path.startswith(all_of):
            saved = shown(record.leaves[path])
            problems.append(f"{path}: saved {saved}, the model has no such array")
    return problems


def listed(differences: list[str]) -> str:
    """Their number, and the first ten on lines of their own."""
    more = len(differences) - _MOST_NAMED
    lines = differences[:_MOST_NAMED] + ([f"and {more} more"] if more > 0 else [])
    return f"({len(differences)} arrays differ):\n  " + "\n  ".join(lines)


def check_fits(
    record: Record, wanted: Mapping[str, Any], *, all_of: str | tuple[str, ...], where: str
) -> None:
    """Raises CheckpointError for `array_differences`. They are no damage: the config asks for
    another model than the one that was saved."""
    if found := array_differences(record, wanted, all_of):
        raise CheckpointError(
            f"the checkpoint {where} is of another model or optimizer than this config "
            f"{listed(found)}\nUse the config it was saved with (vocabulary rows, sizes, "
            "optimizer), or another directory"
        )


def _with_checksum(body: dict[str, Any]) -> dict[str, Any]:
    """What `_read_checked` reads, once it is written as JSON."""
    body = json.loads(json.dumps(body))  # as it will be read: tuples as lists, keys as strings
    return {"body": body, "crc32": _checksum(body)}


def _read_checked(path: epath.Path) -> dict[str, Any]:
    """The body of a file `_with_checksum`. Raises DamagedError, FileNotFoundError, and other
    OSErrors that say nothing about the file: it may not be read, or its bucket cannot be now."""
    try:
        with buckets.bucket_errors(path):
            text = path.read_text()
        whole = json.loads(text)
        body, checksum = whole["body"], whole["crc32"]
    except (FileNotFoundError, PermissionError, buckets.BucketError):
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    if _checksum(body) != checksum:
        raise DamagedError(f"{path} has changed since it was written (crc32)")
    return body


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
