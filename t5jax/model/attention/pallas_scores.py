"""Scores of one tile inside an attention kernel, the same in the forward and the backward pass.

Shape suffixes: those of `pallas_tiles.py`.
"""

import jax
import jax.numpy as jnp

from t5jax.model.attention.mask import MASKED
from t5jax.model.attention.pallas_tiles import Tiles

# Segments that no query has: of keys that are padding, and of those after the last key.
PADDING, OUTSIDE = -1, -2


def product(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """Sum over an axis of each of two matrices, in float32."""
    dimensions = (((x_axis,), (y_axis,)), ((), ()))
    return jax.lax.dot_general(x, y, dimensions, preferred_element_type=jnp.float32)


def mask_of_tile(query_segments, key_segments, prefix, query_tile, key_tile, tiles: Tiles):
    """(seen [K, Q]: whether a query sees a key, but for what the position bias hides;
    floor: score of those that it does not see).

    A query that sees nothing sees all keys alike. Keys after the last one are no keys.
    """
    keys_K1 = jnp.transpose(key_segments[0], (1, 0))
    seen_KQ = keys_K1 == query_segments[0]
    if prefix is not None:
        shape = (tiles.key_tile, tiles.query_tile)
        distance_KQ = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
        distance_KQ -= jax.lax.broadcasted_iota(jnp.int32, shape, 1)
        first = key_tile * tiles.key_tile - query_tile * tiles.query_tile
        seen_KQ &= (distance_KQ <= -first) | (jnp.transpose(prefix[0], (1, 0)) > 0)
    if tiles.keys % tiles.key_tile == 0:
        return seen_KQ, MASKED
    return seen_KQ, jnp.where(keys_K1 == OUTSIDE, -jnp.inf, MASKED)


def masked_scores(products_KQ, bias_KQ, seen_KQ, floor, tiles: Tiles) -> jax.Array:
    """Scores [K, Q] of one head from products of its keys and queries, float32."""
    scores_KQ = products_KQ
    if bias_KQ is not None:
        scores_KQ += bias_KQ
    scores_KQ = jnp.where(seen_KQ, scores_KQ, floor)
    # The position bias hides with -inf: a query that sees nothing sees these keys, too.
    return jnp.maximum(scores_KQ, floor) if tiles.masks_positions else scores_KQ


def inside(x: jax.Array, tile, length: int) -> jax.Array:
    """A tile [positions, F] with zeros after the last position, where memory has anything."""
    size = x.shape[0]
    if length % size == 0:
        return x
    position = tile * size + jax.lax.broadcasted_iota(jnp.int32, x.shape, 0)
    return jnp.where(position < length, x, 0)
