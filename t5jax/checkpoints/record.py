"""The JSON record of a checkpoint: metadata and fingerprints beside the arrays of a step.

The record holds what the caller gave (data position, config text, environment, vocabulary), the
metrics of the step, and shape, dtype and fingerprint of every array, all under one crc32: the
arrays are checked by the record, the record by its checksum. Reading it needs neither a model nor
devices.
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

from etils import epath  # local paths and gs:// alike

from t5jax.checkpoints.fingerprint import Fingerprint
from t5jax.errors import CheckpointError

FORMAT = 1
FILE = "record.json"
ITEM = "record"
_MOST_NAMED = 10


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
        "leaves": {path: dataclasses.asdict(leaf) for path, leaf in record.leaves.items()},
    }
    body = json.loads(json.dumps(body))  # as it will be read: tuples as lists, keys as strings
    return {"body": body, "crc32": _checksum(body)}


def load_record(directory: str | epath.Path, step: int) -> Record:
    """The record of one step.

    Raises:
      DamagedError: it is missing, unreadable or not what was written.
      CheckpointError: a newer t5jax wrote it.
    """
    path = epath.Path(directory) / str(step) / ITEM / FILE
    try:
        whole = json.loads(path.read_text())
        body, checksum = whole["body"], whole["crc32"]
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except PermissionError:
        raise  # says nothing about the file
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    if _checksum(body) != checksum:
        raise DamagedError(f"{path} has changed since it was written (crc32)")
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
    return Record(step=step, content=body["content"], metrics=body["metrics"], leaves=leaves)


def committed_steps(directory: str | epath.Path) -> list[int]:
    """Steps that were saved completely, oldest first."""
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    steps = [path for path in directory.iterdir() if path.name.isdecimal()]
    if str(directory).startswith("gs://"):  # elsewhere an unfinished step has another name
        steps = [path for path in steps if (path / "commit_success.txt").exists()]
    return sorted(int(path.name) for path in steps)


def latest_record(directory: str | epath.Path) -> Record:
    """The newest intact record; its arrays are not verified.

    Raises:
      CheckpointError: there is no checkpoint in the directory.
      NoUsableCheckpoint: there are, but no record is intact.
    """
    steps = committed_steps(directory)
    if not steps:
        raise CheckpointError(f"{directory} holds no checkpoint")
    reasons = []
    for step in reversed(steps):
        try:
            return load_record(directory, step)
        except DamagedError as damage:
            reasons.append(f"step {step}: {damage}")
    raise NoUsableCheckpoint(none_usable(directory, reasons))


def read_record(directory: str | epath.Path, step: int) -> Record:
    """The record of that very step.

    Raises:
      CheckpointError: the step does not exist or its record is damaged.
    """
    require_step(directory, step, committed_steps(directory))
    try:
        return load_record(directory, step)
    except DamagedError as damage:
        raise CheckpointError(f"checkpoint of step {step}: {damage}") from damage


def require_step(directory: str | epath.Path, step: int, steps: list[int]) -> None:
    if step not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise CheckpointError(f"{directory} holds no step {step}; it has: {known}")


def none_usable(directory: str | epath.Path, reasons: list[str]) -> str:
    return (
        f"{len(reasons)} checkpoints in {directory}, none can be used: {'; '.join(reasons)}. "
        "Nothing was changed. Restore the files from a copy, or start the run in another directory"
    )


def check_fits(
    record: Record, wanted: Mapping[str, Any], *, all_of: str | None, where: str
) -> None:
    """Compares the saved arrays with those of the model; saved leaves whose path begins with
    `all_of` must all be among them.

    Raises:
      CheckpointError: naming at most ten paths with both shapes. This is no damage: the config
        asks for another model than the one that was saved.
    """
    problems = []
    for path, leaf in wanted.items():
        saved = record.leaves.get(path)
        here = f"{leaf.dtype}{list(leaf.shape)}"
        if saved is None:
            problems.append(f"{path}: not saved, the model has {here}")
        elif saved.shape != tuple(leaf.shape) or saved.dtype != str(leaf.dtype):
            there = f"{saved.dtype}{list(saved.shape)}"
            problems.append(f"{path}: saved {there}, the model has {here}")
    if all_of is not None:
        for path in sorted(set(record.leaves) - set(wanted)):
            if not path.startswith(all_of):
                continue
            saved = record.leaves[path]
            there = f"{saved.dtype}{list(saved.shape)}"
            problems.append(f"{path}: saved {there}, the model has no such array")
    if not problems:
        return
    more = len(problems) - _MOST_NAMED
    listed = "\n  ".join(problems[:_MOST_NAMED] + ([f"and {more} more"] if more > 0 else []))
    raise CheckpointError(
        f"the checkpoint {where} is of another model or optimizer than this config "
        f"({len(problems)} arrays differ):\n  {listed}\nUse the config it was saved with "
        "(vocabulary rows, sizes, optimizer), or another directory"
    )


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
