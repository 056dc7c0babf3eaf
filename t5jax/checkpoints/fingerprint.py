"""A fingerprint of every array of a train state, computed where the arrays live.

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
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

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
    sums = {}
    for path, array in arrays.items():
        if not isinstance(array, jax.Array):
            raise TypeError(f"{path} is a {type(array).__name__}; a state holds jax arrays only")
        # One small program per shape compiles faster than one of all arrays: stacks repeat shapes.
        sums[path] = _compiled(_replicated(array))(array)
    return {path: np.asarray(pair).tolist() for path, pair in sums.items()}


def _replicated(array: jax.Array) -> NamedSharding | None:
    """Every host must be able to read the result, and hosts read replicated arrays only."""
    if not isinstance(array.sharding, NamedSharding):
        return None
    return NamedSharding(array.sharding.mesh, PartitionSpec())


@functools.cache
def _compiled(out_sharding: NamedSharding | None) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(_two_sums, out_shardings=out_sharding)


def _two_sums(array: jax.Array) -> jax.Array:
    """uint32 [2]."""
    words = _words(array)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        index = lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position = position * np.uint32(words.shape[axis] % 2**32) + index
    mixed = _mix(words ^ (position * np.uint32(2654435761) + np.uint32(2654435769)))
    add = lambda a, b: (a[0] + b[0], a[1] + b[1])
    # One reduction for both sums: on CPU ten times faster than two (XLA vectorises it), and a
    # sharded array is still summed where it lies: only the sums travel.
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
