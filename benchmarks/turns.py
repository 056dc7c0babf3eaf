"""Sides of a comparison timed in turns: CPU time of other processes, clean turns, medians, spread.

A turn is clean where other processes had no more than a small share of the cores while it ran, the
other sides' idle threads and what the hypervisor took included. Only rounds whose turns are all
clean count: a busy machine slows the sides down unequally, in whose favour nobody knows.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

MOST_OTHERS = 0.05  # of the cores, in a clean turn
_ROOT = pathlib.Path(__file__).parents[1]
_STAT = pathlib.Path("/proc/stat")


class Turn(NamedTuple):
    """One timed call: seconds, the share of the cores that others had (None: not recorded, there is
    no /proc here), and what the call returned."""

    seconds: float
    others: float | None
    result: object = None


class Stopwatch:
    """Context manager: wall time of its block, and the CPU time of processes other than `own` (ids;
    this one is always among them) on the cores that this process may use."""

    def __init__(self, own: Iterable[int] = ()):
        self._own = {os.getpid(), *own}
        self.seconds, self.others = 0.0, None

    def __enter__(self) -> "Stopwatch":
        self._before = self._cpu_seconds_of_others()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_) -> None:
        self.seconds = time.perf_counter() - self._start
        after = self._cpu_seconds_of_others()
        if self._before is not None and after is not None:
            spent = max(after - self._before, 0.0)
            self.others = spent / (self.seconds * num_cores())

    def _cpu_seconds_of_others(self) -> float | None:
        if not _STAT.exists():
            return None
        return busy_seconds() - sum(map(process_seconds, self._own))


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def busy_seconds() -> float:
    """CPU-seconds since boot that the cores of this process were in use, by anyone."""
    cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    total = 0
    for line in _STAT.read_text().splitlines():
        name, *fields = line.split()
        if name in cores:
            user, nice, system, _idle, _waiting, irq, soft_irq, stolen = map(int, fields[:8])
            total += user + nice + system + irq + soft_irq + stolen
    return total / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """CPU-seconds of a process and of its children that have ended; 0 where there is none."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class Rounds:
    """Turns of several sides, round by round: `clean` has the rounds that count, `tried` how many
    there were, `dirty` how many of those were not clean."""

    def __init__(self, names: Iterable[str]):
        self.names = tuple(names)
        self.clean: list[dict[str, Turn]] = []
        self.tried = 0
        self.recorded = True

    @property
    def dirty(self) -> int:
        return self.tried - len(self.clean)

    def take(
        self, sides: Mapping[str, Callable[[], Turn]], wanted: int, most_others: float = MOST_OTHERS
    ) -> "Rounds":
        """Rounds until `wanted` are clean, at most three times as many."""
        for _ in range(3 * wanted):
            turns = {name: sides[name]() for name in self.names}
            self.tried += 1
            shares = [turn.others for turn in turns.values()]
            self.recorded = None not in shares
            if all(share is None or share <= most_others for share in shares):
                self.clean.append(turns)
            if len(self.clean) == wanted:
                break
        return self

    def seconds(self, name: str) -> list[float]:
        """Of the clean rounds."""
        return [turns[name].seconds for turns in self.clean]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds(name))

    def ratios(self, slower: str, faster: str) -> list[float]:
        """Round by round, how many times as fast `faster` is."""
        pairs = zip(self.seconds(slower), self.seconds(faster), strict=True)
        return [a / b for a, b in pairs]

    def cleanness(self) -> str:
        """`7 of 9 rounds clean`."""
        if not self.recorded:
            return f"{self.tried} rounds; CPU time of other processes is not known here"
        return f"{len(self.clean)} of {self.tried} rounds clean"

    def as_json(self) -> dict:
        """Seconds of every side in the clean rounds, and how many rounds there were."""
        return {
            "seconds": {name: self.seconds(name) for name in self.names},
            "clean_rounds": len(self.clean),
            "rounds": self.tried,
            "others_recorded": self.recorded,
        }


def spread(values: list[float], digits: int = 2) -> str:
    """`1.20 (1.13 to 1.61)`: median and range."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def matmul_peak(dtype: str) -> float:
    """FLOP/s of a large matrix product of JAX's on this machine, measured here and now, in a
    process of its own."""
    code = (
        f"from t5jax.tracking.throughput import measure_matmul_peak as m; print(m({dtype!r}, 3.0))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)
