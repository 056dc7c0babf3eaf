"""The largest of many numbers.

Shape suffixes: V numbers, P parts of C numbers each, K wanted.
"""

import jax
import jax.numpy as jnp

_SIZE_OF_A_PART = 128


def largest(x_V: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k` over the last axis, the same values and places: of equals the first.

    The K largest lie in the K parts whose maxima are the largest, and maxima are vector
    instructions, where a CPU's top-k goes through all numbers one by one.
    """
    V, C = x_V.shape[-1], _SIZE_OF_A_PART
    if jax.default_backend() != "cpu" or num * C >= V:
        return jax.lax.top_k(x_V, num)
    padded = jnp.pad(x_V, [(0, 0)] * (x_V.ndim - 1) + [(0, -V % C)], constant_values=-jnp.inf)
    x_PC = padded.reshape(*x_V.shape[:-1], -1, C)
    _, parts_K = jax.lax.top_k(jnp.max(x_PC, axis=-1), num)
    parts_K = jnp.sort(parts_K, axis=-1)  # in order, so that the first of equals stays the first
    x_KC = jnp.take_along_axis(x_PC, parts_K[..., None], axis=-2)
    values_K, places_K = jax.lax.top_k(x_KC.reshape(*x_V.shape[:-1], -1), num)
    return values_K, jnp.take_along_axis(parts_K, places_K // C, axis=-1) * C + places_K % C
