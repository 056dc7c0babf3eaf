"""The tokens of one feature of a store on a disk, mapped into memory."""

import mmap
import pathlib
import resource
from collections.abc import Sequence

import numpy as np


class MappedTokens:
    """Of shards with `sizes` tokens, in the files STEM.tokens and STEM.ends."""

    def __init__(
        self,
        stems: Sequence[pathlib.Path],
        sizes: Sequence[int],
        dtype: np.dtype,
        ends_dtype: np.dtype,
    ):
        self._stems, self._sizes, self._dtype, self._ends_dtype = stems, sizes, dtype, ends_dtype

    def load(self, shard: int) -> np.ndarray:
        """The tokens of a shard."""
        if not self._sizes[shard]:
            return np.empty(0, self._dtype)
        stem = self._stems[shard]
        with open(stem.with_name(f"{stem.name}.tokens"), "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_RANDOM)  # rows of a kilobyte: reading around them is waste
        return np.frombuffer(mapped, self._dtype)

    def ends(self, shard: int) -> np.ndarray:
        """The position after each document's last token."""
        stem = self._stems[shard]
        return np.fromfile(stem.with_name(f"{stem.name}.ends"), self._ends_dtype)


def allow_open_files(number: int) -> None:
    """Every mapped shard keeps a file open; the usual limit is 1024, and may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = soft + number
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if number > soft // 4 and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
