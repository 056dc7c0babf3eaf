"""Lazy array views: transposed, stacked, sliced, merged, cast; blocks are read on demand."""

import math
from collections.abc import Sequence

import numpy as np

from t5jax.checkpoints import BLOCK_BYTES, BlockArray, Region
from t5jax.errors import CheckpointError

_SMALL = 2**20  # bytes of layers that share a block


class Transposed(BlockArray):
    """A matrix with its axes exchanged."""

    def __init__(self, array: BlockArray):
        self._array, self.dtype = array, array.dtype
        self.shape = array.shape[::-1]
        self.cut_axes = tuple(1 - axis for axis in array.cut_axes)

    def read(self, region: Region) -> np.ndarray:
        return self._array.read(region[::-1]).T


class Stacked(BlockArray):
    """Arrays of one shape along a new leading axis."""

    def __init__(self, arrays: Sequence[BlockArray]):
        first = arrays[0]
        self._arrays, self.dtype = arrays, first.dtype
        self.shape = (len(arrays), *first.shape)
        self.cut_axes = (0, *(axis + 1 for axis in first.cut_axes))

    def block_shape(self, limit: int = BLOCK_BYTES) -> tuple[int, ...]:
        """One layer a block unless layers are small, so that one can be read without the others."""
        layers, *rest = super().block_shape(limit)
        layer = math.prod(rest) * self.dtype.itemsize
        return (min(layers, max(1, _SMALL // layer)), *rest)

    def read(self, region: Region) -> np.ndarray:
        layers, *rest = region
        blocks = [array.read(tuple(rest)) for array in self._arrays[layers]]
        return blocks[0][None] if len(blocks) == 1 else np.stack(blocks)


class AxisSlice(BlockArray):
    """One index of an axis."""

    def __init__(self, array: BlockArray, index: int, axis: int = 0):
        self._array, self._index, self._axis = array, index, axis
        self.dtype = array.dtype
        self.shape = (*array.shape[:axis], *array.shape[axis + 1 :])
        self.cut_axes = tuple(a - (a > axis) for a in array.cut_axes if a != axis)

    def read(self, region: Region) -> np.ndarray:
        here = slice(self._index, self._index + 1)
        whole = (*region[: self._axis], here, *region[self._axis :])
        return self._array.read(whole).squeeze(self._axis)


class Cast(BlockArray):
    """The array in another dtype."""

    def __init__(self, array: BlockArray, dtype):
        self._array, self.dtype = array, np.dtype(dtype)
        self.shape, self.cut_axes = array.shape, array.cut_axes

    def block_shape(self, limit: int = BLOCK_BYTES) -> tuple[int, ...]:
        return self._array.block_shape(limit * self._array.dtype.itemsize // self.dtype.itemsize)

    def read(self, region: Region) -> np.ndarray:
        return self._array.read(region).astype(self.dtype, copy=False)


class Finite(BlockArray):
    """The array itself; reading a value that is no number raises CheckpointError with its name."""

    def __init__(self, array: BlockArray, name: str):
        self._array, self._name, self.dtype = array, name, array.dtype
        self.shape, self.cut_axes = array.shape, array.cut_axes

    def block_shape(self, limit: int = BLOCK_BYTES) -> tuple[int, ...]:
        return self._array.block_shape(limit)

    def read(self, region: Region) -> np.ndarray:
        block = self._array.read(region)
        if not np.isfinite(block).all():
            first = np.argwhere(~np.isfinite(block))[0]
            place = [part.start + int(i) for part, i in zip(region, first, strict=True)]
            raise CheckpointError(
                f"{self._name} holds {block[tuple(first)]} at {place}: training diverged before it "
                "was saved, or the file is damaged; take an earlier checkpoint, or fetch it again"
            )
        return block


class MergedAxes(BlockArray):
    """Two neighbouring axes as one: [D, N, H] as [D, N*H] with axis 1."""

    def __init__(self, array: BlockArray, axis: int):
        self._array, self._axis, self.dtype = array, axis, array.dtype
        self._inner = array.shape[axis + 1]
        before, after = array.shape[:axis], array.shape[axis + 2 :]
        self.shape = (*before, array.shape[axis] * self._inner, *after)
        apart = (a for a in array.cut_axes if a not in (axis, axis + 1))
        self.cut_axes = tuple(a - (a > axis) for a in apart)

    def read(self, region: Region) -> np.ndarray:
        axis, part, H = self._axis, region[self._axis], self._inner
        first, last = part.start // H, -(-part.stop // H)
        outer = (slice(first, last), slice(0, H))
        block = self._array.read((*region[:axis], *outer, *region[axis + 1 :]))
        block = block.reshape(*block.shape[:axis], -1, *block.shape[axis + 2 :])
        within = slice(part.start - first * H, part.stop - first * H)
        return block[(slice(None),) * axis + (within,)]


class InMemory(BlockArray):
    """A NumPy array."""

    def __init__(self, array):
        self._array = np.asarray(array)
        self.shape, self.dtype = self._array.shape, self._array.dtype
        self.cut_axes = tuple(range(self._array.ndim))

    def read(self, region: Region) -> np.ndarray:
        return self._array[region]


class Zeros(BlockArray):
    """An array of zeros."""

    def __init__(self, shape: tuple[int, ...], dtype):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.cut_axes = tuple(range(len(self.shape)))

    def read(self, region: Region) -> np.ndarray:
        return np.zeros([part.stop - part.start for part in region], self.dtype)
