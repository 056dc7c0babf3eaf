"""Arrays stored in a file as plain bytes, row-major and little-endian."""

import math
import os
import pathlib
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from t5jax.checkpoints import BLOCK_BYTES, BlockArray, Region
from t5jax.errors import CheckpointError


def dtype_named(name: str) -> np.dtype:
    """NumPy's, or bfloat16. Raises TypeError for a name that is neither."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


class RawArray(BlockArray):
    """An array in one or more extents (offset, bytes) of a file."""

    def __init__(
        self,
        path: pathlib.Path,
        extents: Sequence[tuple[int, int]],
        shape: tuple[int, ...],
        dtype: np.dtype,
    ):
        self.path, self.shape, self.dtype = path, shape, dtype
        self.extents = extents
        self.cut_axes = tuple(range(len(shape)))
        assert sum(nbytes for _, nbytes in extents) == self.nbytes, path

    def read(self, region: Region) -> np.ndarray:
        if not self.shape:
            return self._bytes(0, self.nbytes).view(self.dtype).reshape(())
        rows, rest = region[0], region[1:]
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        if all(part == slice(0, size) for part, size in zip(rest, self.shape[1:], strict=True)):
            return self._rows(rows.start, rows.stop, row)
        # Columns are cut from whole rows, a few at a time, to bound memory.
        step = max(1, BLOCK_BYTES // row)
        starts = range(rows.start, rows.stop, step)
        parts = [self._rows(at, min(at + step, rows.stop), row)[:, *rest].copy() for at in starts]
        return np.concatenate(parts)

    def _rows(self, start: int, stop: int, row: int) -> np.ndarray:
        data = self._bytes(start * row, (stop - start) * row)
        return data.view(self.dtype).reshape(stop - start, *self.shape[1:])

    def _bytes(self, start: int, count: int) -> np.ndarray:
        """`count` bytes from offset `start` within the array."""
        data = np.empty(count, np.uint8)
        done = 0
        with open(self.path, "rb", buffering=0) as file:
            for offset, nbytes in self.extents:
                here = min(nbytes - start, count - done)
                if here > 0:
                    read_exactly(file, offset + start, data[done : done + here])
                    done += here
                start = max(0, start - nbytes)
        return data


def read_exactly(file, offset: int, into: np.ndarray) -> None:
    """Fills the byte array `into`. Raises CheckpointError when the file ends before."""
    file.seek(offset)
    while len(into):
        count = file.readinto(into)
        if not count:
            raise CheckpointError(
                f"{file.name} ends at byte {os.fstat(file.fileno()).st_size}, in the middle of an "
                "array: it is truncated; download it again"
            )
        into = into[count:]
