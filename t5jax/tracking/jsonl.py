"""metrics.jsonl: one JSON object a line, whole lines only, the exact bits of every loss.

A line is `{"kind": ..., "step": ..., "time": ..., ...}`, where kind is "train" (the metrics of one
step), "evaluation" (of one split, named by "split") or an event ("started", "resumed", "saved",
...). `step` counts finished steps; `time` is in seconds since 1970; metrics are named as in
`keys.py`. The file is only appended to: a run that resumes at an earlier step writes those steps
again, and `current_records` tells which lines still count.
"""

import ctypes
import json
import math
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from t5jax.errors import DataError, write_whole, writing
from t5jax.tracking.keys import TRAIN_LOSS, eval_key, with_current_keys

Record = dict[str, Any]

TRAIN = "train"
EVALUATION = "evaluation"
RESUMED = "resumed"
RESERVED = frozenset({"kind", "step", "time", "split"})

# JSON has no such numbers; strings of exactly these spellings stand for them.
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class RecordLog:
    """Appends records to a file, so that a kill at any moment leaves whole lines.

    Every record is handed to the operating system before `append` returns: kill -9 loses nothing
    that was appended (a power failure may). A torn last line, left by a kill or a full disk, is cut
    off when the file is opened again.
    """

    def __init__(self, path: pathlib.Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)
        # Unbuffered: what a full disk refuses must not be tried again when the process ends.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (as long as the log lives)
        self.path = path

    def append(self, record: Record) -> None:
        line = json.dumps(record, allow_nan=False, separators=(", ", ": "))
        with writing(self.path):
            write_whole(self._file, line.encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def make_record(kind: str, step: int, fields: Mapping[str, Any], **extra: Any) -> Record:
    """A record of `fields`, which are Python scalars; the bits of a loss are written beside it."""
    clash = RESERVED & fields.keys()
    assert not clash, f"{kind} at step {step}: the names {sorted(clash)} are the record's own"
    if kind in (TRAIN, EVALUATION):
        assert all("/" in name for name in fields), f"{sorted(fields)}: names are group/name"
    record = {"kind": kind, "step": int(step), "time": round(time.time(), 3), **extra}
    record |= {name: json_value(value) for name, value in fields.items()}
    loss = eval_key(extra["split"], "loss") if kind == EVALUATION else TRAIN_LOSS
    if isinstance(fields.get(loss), float):
        record[f"{loss}_hex"] = loss_hex(fields[loss])
    return record


def python_scalars(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars of NumPy or JAX, of any rank-0 form, as Python's own, exactly; the rest as it is."""
    return {
        name: value.item() if hasattr(value, "item") else value for name, value in fields.items()
    }


def json_value(value: Any) -> Any:
    """`value` as JSON can hold it; a number that is not finite becomes "nan", "inf" or "-inf"."""
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def loss_hex(loss: float) -> str:
    """The bits of a float32 loss, as `float.hex` writes them: `float.fromhex` gives them back."""
    return ctypes.c_float(loss).value.hex()


def cut_torn_line(path: pathlib.Path) -> int:
    """Cuts a torn last line off `path`, in place; returns the number of bytes removed."""
    if not path.exists():
        return 0
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = size  # of the last whole line
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
    return size - end


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """All whole lines of a metrics.jsonl, oldest first; "nan" and "inf" are numbers again.

    A torn last line is left out, as a running or killed process may leave one. Raises DataError,
    naming the line, if a line before it is not a JSON object with kind and step.
    """
    return list(iter_metrics(path))


def current_records(records: Iterable[Record]) -> list[Record]:
    """The records that still count, in order of steps: what a plot or a table should show.

    Resuming at step k makes what was written before about steps after k history; of two lines of
    one kind (and split) about the same step the later one counts.
    """
    current: dict[tuple, Record] = {}
    for place, record in enumerate(records):
        kind, step = record["kind"], record["step"]
        if kind == RESUMED:
            current = {key: old for key, old in current.items() if old["step"] <= step}
        # An event happens when it happens: two saves of one step are two events.
        which = record.get("split") if kind in (TRAIN, EVALUATION) else place
        current[kind, which, step] = record
    return sorted(current.values(), key=lambda record: record["step"])


def iter_metrics(path: str | os.PathLike[str]) -> Iterator[Record]:
    """As `read_metrics`, one record at a time: a long run's file need not fit into memory."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}); remove it") from error
            if not isinstance(record, dict) or not {"kind", "step"} <= record.keys():
                raise DataError(f"{path}, line {number}: no record with kind and step; remove it")
            record = with_current_keys(record)
            yield {name: _number(name, value) for name, value in record.items()}


def _number(name: str, value: Any) -> Any:
    is_text = name in RESERVED or name.endswith("_hex") or not isinstance(value, str)
    return value if is_text else _NOT_FINITE.get(value, value)
