"""Goodput: where the wall time of a run goes, from its first start on, restarts included.

Every moment of a process belongs to one part, so the parts add up to the wall time. metrics.jsonl
holds the sums: a record where a process begins (with `started`, the moment that it was started),
one before each save and one after each evaluation: the last of a step is what a process that
resumes at that step counts on from. What was computed after it is lost, and between the last line
of a process and the start of the next the run was down.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

GOODPUT = "goodput"  # the kind of a record, and the group of its metrics
PARTS = {  # of the wall time, as the table at the end says them
    "step": "train steps",
    "init": "start, parameters or restore",
    "compile": "compiling the train step",
    "data": "waiting for data",
    "evaluation": "evaluation",
    "save": "saving",
    "lost": "lost by restarts",
    "down": "no process running",
    "other": "other",
}
_WALL, _STARTED = f"{GOODPUT}/wall", "started"


class Goodput:
    """Counts the seconds of this process by part; those of earlier ones are added by `resume`.

    It begins with the part `init`, which ends with the first `begin`. `started` is when the process
    was started, in seconds since 1970 (None: now). To be used from one thread.
    """

    def __init__(self, started: float | None = None, clock: Callable[[], float] | None = None):
        self._clock = clock or _steady_time()
        self.started = self._clock() if started is None else started
        self._changed = self.started
        self._part = "init"
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def begin(self) -> None:
        """What follows is of the part `other`, but for what `part` names."""
        self._enter("other")

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What runs inside is of the part `name`; parts within it are taken out of it."""
        outer = self._enter(name)
        try:
            yield
        finally:
            self._enter(outer)

    def resume(self, past: Mapping[str, float]) -> None:
        """Adds the seconds of earlier processes, by part (`past_parts`)."""
        for name, seconds in past.items():
            self._seconds[name] += seconds

    def metrics(self) -> dict[str, float]:
        """`goodput/PART` -> seconds up to now, and `goodput/wall`, their sum."""
        self._enter(self._part)
        found = {f"{GOODPUT}/{name}": round(value, 3) for name, value in self._seconds.items()}
        return {**found, _WALL: round(sum(self._seconds.values()), 3)}

    def table(self) -> str:
        """The parts with their seconds and shares, one a line, the largest first."""
        metrics = self.metrics()
        wall = metrics.pop(_WALL)
        lines = [f"wall time {wall:.1f} s, of which"]
        for key, seconds in sorted(metrics.items(), key=lambda item: -item[1]):
            if seconds:
                name = PARTS[key.removeprefix(f"{GOODPUT}/")]
                lines.append(f"  {name:30} {seconds:10.1f} s {seconds / (wall or 1):8.1%}")
        return "\n".join(lines)

    def _enter(self, name: str) -> str:
        assert name in PARTS, name
        now = self._clock()
        self._seconds[self._part] += now - self._changed
        self._changed, outer, self._part = now, self._part, name
        return outer


class _Line(NamedTuple):
    """What a line of metrics.jsonl says of time."""

    time: float  # of a process's first record: when the process was started
    record: dict[str, Any] | None  # of one of goodput

    @property
    def is_first(self) -> bool:
        return self.record is not None and _STARTED in self.record


def past_parts(path: str | os.PathLike[str], step: int, started: float) -> dict[str, float]:
    """Seconds by part of the processes that wrote metrics.jsonl, for one that resumes at `step` and
    was started at `started`; {} where none of them counted."""
    with open(path, "rb") as file:
        found = [line for line in map(_read, file) if line and line.time <= started]
    lines = sorted(found, key=lambda line: line.time)  # events of a start stand before its record
    first = next((n for n, line in enumerate(lines) if line.is_first), len(lines))
    if not lines[first:]:
        return {}
    parts, base = dict.fromkeys(PARTS, 0.0), first
    for place, (_, record) in enumerate(lines):
        if record and _STARTED not in record and record["step"] <= step:
            parts, base = {name: float(record[f"{GOODPUT}/{name}"]) for name in PARTS}, place
    before = lines[base].time
    for line in lines[base + 1 :]:
        parts["down" if line.is_first else "lost"] += line.time - before
        before = line.time
    parts["down"] += started - before
    return parts


def _read(line: bytes) -> _Line | None:
    """None for a torn line. A long run has a million of them: only those of goodput are parsed."""
    if not line.endswith(b"\n"):
        return None
    if line.startswith(b'{"kind": "%s"' % GOODPUT.encode()):
        record = json.loads(line)
        return _Line(record.get(_STARTED, record["time"]), record)
    text = line.partition(b'"time": ')[2].partition(b",")[0].rstrip(b"}\n")
    try:
        return _Line(float(text), None)
    except ValueError:
        return None


def _steady_time() -> Callable[[], float]:
    """Seconds since 1970 that no correction of the clock moves."""
    offset = time.time() - time.perf_counter()
    return lambda: offset + time.perf_counter()
