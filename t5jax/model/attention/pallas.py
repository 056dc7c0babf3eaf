"""Attention on TPUs: a pair of Pallas kernels that keep scores and position bias in vector memory.

Memory grows with the length, not with its square: of the position bias the kernels read and give
back the distances alone (`pallas_bias.py`), of the mask the segments.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim, W = T + S distances.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.mask import Mask
from t5jax.model.attention.pallas_backward import backward
from t5jax.model.attention.pallas_bias import strips_of
from t5jax.model.attention.pallas_forward import forward
from t5jax.model.attention.pallas_scores import OUTSIDE, PADDING
from t5jax.model.attention.pallas_tiles import TILE, Tiles
from t5jax.model.attention.score import PLAIN, ScoreFunction
from t5jax.sharding import num_shards, on_shards


def pallas_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    score: ScoreFunction = PLAIN,
    *,
    tile: int = TILE,
    interpret: bool = False,
) -> jax.Array:
    """Attention in tiles of at most `tile` positions; `interpret` runs the kernels on any platform,
    slowly. Rows and heads lie on devices as the mesh's rules say."""
    H = q_BTNH.shape[-1]

    def on_device(q, k, v, by_distance_NW, query_segments, key_segments, prefix):
        tiles = _tiles(q.reshape(*q.shape[:2], -1, H).shape, k.shape[1], bias, mask, score, tile)
        arrays = _mask_arrays(query_segments, key_segments, prefix, tiles)
        strips = strips_of(by_distance_NW, tiles)
        return _attention(q, k, v, strips, arrays, tiles, interpret)

    features, segments = ("batch", None, "heads"), ("batch", None)
    in_axes = (features, features, features, ("heads", None), segments, segments, segments)
    flat = lambda x: x.reshape(*x.shape[:2], -1)
    y_BTJ = on_shards(on_device, in_axes, features)(
        *map(flat, (q_BTNH, k_BSNH, v_BSNH)),
        None if bias is None else bias.by_distance_NW,
        mask.query_segments,
        mask.key_segments,
        mask.prefix,
    )
    return y_BTJ.reshape(q_BTNH.shape)


def why_not_pallas(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    score: ScoreFunction,
) -> str | None:
    """Why `pallas_attention` cannot do this call; None: it can."""
    (B, T, N, H), S = q_BTNH.shape, k_BSNH.shape[1]
    rows, heads = num_shards("batch"), num_shards("heads")
    if B % rows or N % heads:
        return f"{B} rows and {N} heads do not divide into {rows} and {heads} shards"
    tiles = _tiles((B // rows, T, N // heads, H), S, bias, mask, score, TILE)
    return tiles.why_not(q_BTNH.dtype.itemsize)


def _tiles(shape, keys: int, bias: PositionBias | None, mask: Mask, score, tile: int) -> Tiles:
    return Tiles.of(
        shape,
        keys,
        mask.causal,
        mask.prefix is not None,
        score,
        bias is not None,
        None if bias is None else bias.constant_from,
        tile,
    )


def _mask_arrays(query_segments, key_segments, prefix, tiles: Tiles) -> tuple:
    """What the kernels read of a mask: [B * query tiles] 1 where a query of the tile may see no
    key; segments of queries [B, 1, T] and of keys and the prefix, padded to whole tiles."""
    if tiles.skips:  # a query that sees the key at its own place is not lost
        T = min(tiles.queries, tiles.keys)
        itself = (query_segments[:, :T] == key_segments[:, :T]) & (key_segments[:, :T] > 0)
        padding = ((0, 0), (0, tiles.queries - T))
        lost = ~jnp.pad(itself, padding)
        lost = jnp.pad(lost, ((0, 0), (0, tiles.query_tile * tiles.query_tiles - tiles.queries)))
        lost = jnp.any(lost.reshape(-1, tiles.query_tile), axis=-1).astype(jnp.int32)
    else:
        lost = np.zeros(1, np.int32)

    def padded(x_BL, tile: int, value: int):
        size = -x_BL.shape[1] % tile
        return jnp.pad(x_BL, ((0, 0), (0, size)), constant_values=value)[:, None]

    keys = jnp.where(key_segments > 0, key_segments, PADDING)
    return (
        lost,
        padded(query_segments, tiles.query_tile, 0),
        padded(keys, tiles.key_tile, OUTSIDE),
        None if prefix is None else padded(prefix, tiles.key_tile, 0),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _attention(q, k, v, strips, mask_arrays, tiles, interpret):
    return _forward(q, k, v, strips, mask_arrays, tiles, interpret)[0]


def _forward(q, k, v, strips, mask_arrays, tiles, interpret):
    lost, *rest = mask_arrays
    y, log_sum = forward(lost, q, k, v, strips, *rest, tiles, interpret)  # pyright: ignore
    return y, (q, k, v, strips, mask_arrays, y, log_sum)


def _backward(tiles, interpret, residuals, dy):
    q, k, v, strips, (lost, *rest), y, log_sum = residuals
    dq, dk, dv, dstrips = backward(lost, q, k, v, strips, *rest, y, log_sum, dy, tiles, interpret)  # pyright: ignore
    if strips is not None and dstrips is None:
        dstrips = jnp.zeros_like(strips)
    return dq, dk, dv, dstrips, None


_attention.defvjp(_forward, _backward)
