"""A bounded local copy of stores in a bucket, by blocks: what a host's rows need is fetched once.

Rows are drawn in a keyed order, so every host needs a bit of everywhere. A block that was fetched
stays in one file of this machine, which has no name (nothing is left of it after a kill) and at
most a given size; then the oldest blocks make room. A store that fits is read from the bucket once,
and then costs no request; of a larger one each row may cost one.
"""

import array
import errno
import functools
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Sequence

import numpy as np

from t5jax.data.store.ranges import CONCURRENT, Range, Traffic, read_ranges
from t5jax.errors import ConfigError, write_whole, writing
from t5jax.paths import expand

FOLDER, GIGABYTES = "T5JAX_STORE_COPY", "T5JAX_STORE_COPY_GB"  # of the environment
BLOCK_BYTES = 1 << 18
_FEWEST_BLOCKS = 64
_BLOCKS_OF_A_REQUEST = 16  # that follow one another
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger("t5jax")


class LocalCopy:
    """Blocks of objects in a file of at most `max_bytes` below `folder`; for several threads.

    Raises OSError where the folder cannot be written to.
    """

    def __init__(
        self, folder: str | os.PathLike[str], max_bytes: int, block_bytes: int = BLOCK_BYTES
    ):
        self.folder, self.max_bytes, self.block_bytes = os.fspath(folder), max_bytes, block_bytes
        self.traffic = Traffic()
        self._max_blocks = max(_FEWEST_BLOCKS, max_bytes // block_bytes)
        with writing(self.folder):
            os.makedirs(self.folder, exist_ok=True)
            self._file = tempfile.TemporaryFile(  # noqa: SIM115 (open as long as the copy)
                dir=self.folder, prefix="t5jax-store-", buffering=0
            )
        self._urls: list[str] = []
        self._sizes: list[int] = []
        self._known: dict[tuple[str, str], int] = {}
        self._slots: list[np.ndarray] = []  # of each object: where its blocks are, -1: not here
        self._owners = array.array("q")  # of each slot: object << 32 | block
        self._oldest = 0  # the slot that makes room next, when no more may be taken
        self._lock = threading.RLock()

    def add(self, url: str, num_bytes: int, fingerprint: str) -> int:
        """The number of an object here; the same for the same content."""
        with self._lock:
            number = self._known.setdefault((url, fingerprint), len(self._urls))
            if number == len(self._urls):
                self._urls.append(url)
                self._sizes.append(num_bytes)
                self._slots.append(np.full(-(-num_bytes // self.block_bytes), -1, np.int32))
            return number

    def fetch(self, spans: Iterable[tuple[int, int, int]]) -> None:
        """Reads the blocks of the spans (object, begin, end) that are not here, all at a time.
        Raises DataError as `read_ranges`."""
        with self._lock:
            missing = {
                (number, block)
                for number, begin, end in spans
                for block in range(begin // self.block_bytes, -(-end // self.block_bytes))
                if self._slots[number][block] < 0
            }
            runs = _runs(sorted(missing))
            for first in range(0, len(runs), CONCURRENT):
                self._fetch_runs(runs[first : first + CONCURRENT])

    def read(self, number: int, begin: int, end: int) -> bytes:
        """Bytes `begin` to `end` of an object, from here, or from the bucket where they are not."""
        parts = []
        with self._lock:
            while begin < end:
                block, offset = divmod(begin, self.block_bytes)
                length = min(end - begin, self.block_bytes - offset)
                while self._slots[number][block] < 0:  # again where a full disk made room for less
                    most = self._max_blocks // 2 * self.block_bytes  # or it would give itself up
                    self.fetch([(number, begin, min(end, begin + most))])
                place = int(self._slots[number][block]) * self.block_bytes + offset
                parts.append(os.pread(self._file.fileno(), length, place))
                begin += length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _fetch_runs(self, runs: Sequence[tuple[int, int, int]]) -> None:
        size = self.block_bytes
        wanted = [
            Range(self._urls[number], first * size, min(last * size, self._sizes[number]))
            for number, first, last in runs
        ]
        for (number, first, last), data in zip(
            runs, read_ranges(wanted, self.traffic), strict=True
        ):
            for block in range(first, last):
                start = (block - first) * size
                self._keep(number, block, data[start : start + size])

    def _keep(self, number: int, block: int, data: bytes) -> None:
        slot = len(self._owners)
        if slot < self._max_blocks and self._write(slot, data):
            self._owners.append(0)
        else:
            slot, self._oldest = self._oldest, (self._oldest + 1) % len(self._owners)
            owner, owned = divmod(self._owners[slot], 1 << 32)
            self._slots[owner][owned] = -1
            self._write(slot, data)
        self._owners[slot] = number << 32 | block
        self._slots[number][block] = slot

    def _write(self, slot: int, data: bytes) -> bool:
        """False where the disk has no room for another block: those that are here have to do."""
        try:
            with writing(self.folder):
                self._file.seek(slot * self.block_bytes)
                write_whole(self._file, data)  # pyright: ignore[reportArgumentType]
        except OSError as error:
            if error.errno not in _FULL or slot < _FEWEST_BLOCKS:
                raise
            _log.warning(
                "%s is full: no more than %.1f GB of the stores are kept there (%s names another "
                "folder)", self.folder, slot * self.block_bytes / 1e9, FOLDER,
            )  # fmt: skip
            self._max_blocks = slot
            return False
        return True


def _runs(blocks: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(object, first block, last one and one more) of blocks that follow one another."""
    runs: list[tuple[int, int, int]] = []
    for number, block in blocks:
        if runs:
            before, first, last = runs[-1]
            if (number, block) == (before, last) and block - first < _BLOCKS_OF_A_REQUEST:
                runs[-1] = (number, first, block + 1)
                continue
        runs.append((number, block, block + 1))
    return runs


@functools.cache
def local_copy() -> LocalCopy:
    """The copy of this process, for all of its stores: in T5JAX_STORE_COPY (default: the folder of
    temporary files), of at most T5JAX_STORE_COPY_GB (default: half of what is free there).

    Raises ConfigError for a value that is no size, OSError where the folder cannot be written to.
    """
    folder = expand(os.environ.get(FOLDER) or tempfile.gettempdir(), FOLDER)
    given = os.environ.get(GIGABYTES)
    if given is not None:
        return LocalCopy(folder, int(1e9 * _gigabytes(given)))
    with writing(folder):
        os.makedirs(folder, exist_ok=True)
        return LocalCopy(folder, shutil.disk_usage(folder).free // 2)


def _gigabytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < 1e9:
        raise ConfigError(f"{GIGABYTES}={text}: give a number of gigabytes, as in 100")
    return size
