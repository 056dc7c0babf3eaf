"""Out-of-core arrays, read a block at a time."""

import abc
import itertools
import math
from collections.abc import Iterator

import numpy as np

BLOCK_BYTES = 16 * 2**20

Region = tuple[slice, ...]  # one slice an axis, start and stop set, step 1


class BlockArray(abc.ABC):
    """An array that need not be in memory; `read` returns a part of it.

    `cut_axes` are the axes along which parts are cheap to read, the cheapest first: those that lie
    outermost where the numbers are stored.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    cut_axes: tuple[int, ...]

    @abc.abstractmethod
    def read(self, region: Region) -> np.ndarray:
        """The numbers of a region, [stop - start, ...]; C-contiguous or not."""

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def whole(self) -> np.ndarray:
        return self.read(full_region(self.shape))

    def block_shape(self, limit: int = BLOCK_BYTES) -> tuple[int, ...]:
        """A regular grid over the array whose blocks have at most `limit` bytes, if cutting along
        `cut_axes` can make them as small."""
        block = [max(1, size) for size in self.shape]
        for axis in self.cut_axes:
            rest = math.prod(block) // block[axis] * self.dtype.itemsize
            block[axis] = min(block[axis], max(1, limit // rest))
        return tuple(block)

    def regions(self, limit: int = BLOCK_BYTES) -> Iterator[Region]:
        """The blocks of that grid, in row-major order; together they are the array."""
        steps = zip(self.shape, self.block_shape(limit), strict=True)
        return map(tuple, itertools.product(*(_cuts(size, step) for size, step in steps)))


def full_region(shape: tuple[int, ...]) -> Region:
    return tuple(slice(0, size) for size in shape)


def _cuts(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
