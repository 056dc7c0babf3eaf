"""Fingerprints (checksums) of every array of a train state, computed on the devices.

Orbax and TensorStore keep no checksum of array data: a flipped bit in a chunk is restored silently.
So a checkpoint stores these numbers, and a restored array with other numbers is damaged.

The bits of an array are read as 32-bit words w_i (narrower ones are widened), i in row-major order
of the *global* array, and two sums are taken modulo 2^32:

    (sum of w_i,  sum of mix(w_i xor (i * 2654435761 + 2654435769)))

Integer addition is associative, so the sums depend on no mesh, sharding, device or host count.
`mix` is a bijection of 32-bit words: a change of any single word always moves the second sum, and
any other change (swapped, shifted, zeroed words) goes unseen with a probability of about 2^-32.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from t5jax.runtime import gather_texts

Fingerprint = list[int]  # the two sums; a list because JSON has no tuples


def leaves_by_path(tree) -> dict[str, Any]:
    """Leaves under readable names: `params/encoder/final_norm/scale`, `opt_state/0/count`."""
    leaves = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path in leaves:
            raise ValueError(f"two leaves of the state are called {path!r}; rename one")
        leaves[path] = leaf
    return leaves


def fingerprints(arrays: Mapping[str, jax.Array]) -> dict[str, Fingerprint]:
    """Fingerprint of every array; blocks until the arrays are computed.

    Arrays may have any dtype (also bool, complex, 4- and 8-bit, PRNG keys), any rank and size 0,
    and may be spread over several hosts: then all hosts must call this with the same arrays.
    """
    for path, array in arrays.items():
        if not isinstance(array, jax.Array):
            raise TypeError(f"{path} is a {type(array).__name__}; a state holds jax arrays only")
    # One small program per shape compiles faster than one of all arrays: stacks repeat shapes.
    partial = {path: _sums_by_device(array) for path, array in arrays.items()}
    here = {path: _added(arrays[path], sums) for path, sums in partial.items()}
    spread = sorted(path for path, array in arrays.items() if not array.is_fully_addressable)
    if spread:
        hosts = [json.loads(t) for t in gather_texts(json.dumps([here[path] for path in spread]))]
        for path, *sums in zip(spread, *hosts, strict=True):
            here[path] = [sum(pair) % 2**32 for pair in zip(*sums, strict=True)]
    return here


class RunningFingerprint:
    """The fingerprint of an array of which one sees a block at a time, every element once."""

    def __init__(self, shape: tuple[int, ...]):
        self._shape, self._sums = tuple(shape), np.zeros(2, np.uint64)

    def add(self, block: np.ndarray, start: Sequence[int]) -> None:
        """`block` begins at the index `start` of the array."""
        sums = _block_sums(jnp.asarray(block), self._shape, np.array(start, np.uint32))
        self._sums += np.asarray(sums)

    def result(self) -> Fingerprint:
        return (self._sums % 2**32).tolist()


@functools.partial(jax.jit, static_argnums=1)
def _block_sums(block: jax.Array, whole: tuple[int, ...], start: jax.Array) -> jax.Array:
    return _two_sums(block, whole, list(start))


def _sums_by_device(array: jax.Array) -> jax.Array:
    """uint32 [devices, 2]: what every device holds, summed by itself.

    Nothing travels between devices: dozens of programs that wait for each other's collectives,
    all in flight at once, have been seen to stop several processes for good.
    """
    if not isinstance(array.sharding, NamedSharding):
        return _single(array)[None]
    return _sharded(array.sharding, array.ndim)(array)


def _added(array: jax.Array, sums: jax.Array) -> Fingerprint:
    """The sums over this host's devices, every part of the array counted once."""
    first = {shard.device for shard in array.addressable_shards if shard.replica_id == 0}
    parts = [np.asarray(part.data)[0] for part in sums.addressable_shards if part.device in first]
    total = np.array(parts, np.uint64).reshape(-1, 2).sum(axis=0) % 2**32
    return total.tolist()


@jax.jit
def _single(array: jax.Array) -> jax.Array:
    return _two_sums(array, array.shape, [0] * array.ndim)


@functools.cache
def _sharded(sharding: NamedSharding, ndim: int) -> Callable[[jax.Array], jax.Array]:
    mesh = sharding.mesh
    spec = tuple(sharding.spec) + (None,) * (ndim - len(sharding.spec))

    def local(part: jax.Array) -> jax.Array:
        parts = [math.prod(mesh.shape[a] for a in _axes(entry)) for entry in spec]
        whole = tuple(n * size for n, size in zip(parts, part.shape, strict=True))
        index = [lax.axis_index(_axes(entry)) if _axes(entry) else 0 for entry in spec]
        start = [i * size for i, size in zip(index, part.shape, strict=True)]
        return _two_sums(part, whole, start)[None]

    rows = PartitionSpec(mesh.axis_names)
    by_device = jax.shard_map(
        local, mesh=mesh, in_specs=PartitionSpec(*spec), out_specs=rows, check_vma=False
    )
    return jax.jit(by_device)


def _axes(entry) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)


def _two_sums(part: jax.Array, whole: tuple[int, ...], start: Sequence[Any]) -> jax.Array:
    """uint32 [2] of a part that begins at `start` of an array of shape `whole`."""
    words = _words(part)
    whole = whole + words.shape[part.ndim :]  # an element may be several words
    start = [*start, *[0] * (words.ndim - part.ndim)]
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        index = lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        index += jnp.asarray(start[axis]).astype(jnp.uint32)
        position = position * np.uint32(whole[axis] % 2**32) + index
    mixed = _mix(words ^ (position * np.uint32(2654435761) + np.uint32(2654435769)))
    add = lambda a, b: (a[0] + b[0], a[1] + b[1])
    # One reduction for both sums: on CPU ten times faster than two (XLA vectorises it).
    zero = np.uint32(0)
    return jnp.stack(lax.reduce((words, mixed), (zero, zero), add, tuple(range(words.ndim))))


def _mix(x: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: a bijection in which every bit depends on every other."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _words(array: jax.Array) -> jax.Array:
    """The bits of an array as uint32 words; 64-bit elements become two words."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        array = jnp.stack([array.real, array.imag], axis=-1)
    if array.dtype in (jnp.bool_, jnp.int4, jnp.uint4):  # not whole bytes: no bits to cast
        return array.astype(jnp.int8).astype(jnp.uint32)
    width = {1: jnp.uint8, 2: jnp.uint16}.get(array.dtype.itemsize, jnp.uint32)
    return lax.bitcast_convert_type(array, width).astype(jnp.uint32)
