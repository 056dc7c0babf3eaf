"""Position bias inside an attention kernel: a strip of distances becomes a tile, and back.

A tile of the bias is constant along its diagonals, so that its K + Q distances determine it: they
are read from HBM, the tile is made in vector memory, once for all rows of a batch, and the sums
along the diagonals of its gradient are what is written.

Shape suffixes: those of `pallas_tiles.py`; O offsets of tiles, W = T + S distances.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from t5jax.model.attention.pallas_tiles import Tiles

_SUBLANES = 8


def strips_of(by_distance_NW: jax.Array | None, tiles: Tiles) -> jax.Array | None:
    """[N / G, G O, X] float32: entry x of a strip is the bias of keys `offset * tile + K - 1 - x`
    after the query; -inf where the mask never lets a query look. None: nothing depends on it."""
    if not tiles.positional:
        return None
    N, K, Q = tiles.heads, tiles.key_tile, tiles.query_tile
    strips, T = [], tiles.queries
    for offset in range(tiles.first_offset, tiles.last_offset + 1):
        distance = offset * K + K - 1 - np.arange(K + Q)
        hidden = np.zeros(K + Q, bool)
        if tiles.causal:
            hidden |= distance > 0
        if tiles.score.window is not None:
            hidden |= abs(distance) > tiles.score.window
        strip = jnp.where(hidden, -jnp.inf, 0.0)
        if by_distance_NW is not None:
            padding = (Q * tiles.query_tiles, K * tiles.key_tiles)
            padded = jnp.pad(by_distance_NW.astype(jnp.float32), ((0, 0), padding))
            start = padding[0] + T - 1 + int(distance[-1])
            strip += jax.lax.rev(padded[:, start : start + K + Q], (1,))
        strips.append(jnp.broadcast_to(strip, (N, K + Q)))
    return jnp.stack(strips, axis=1).reshape(tiles.head_blocks, -1, K + Q)


def fill_tiles(strips_ref, tiles_ref, tiles: Tiles) -> None:
    """Makes the tiles [G O, K, Q] of the strips [1, G O, X].

    Row k of a tile is its strip, rotated by k + Q + 1 places.
    """
    K, Q = tiles.key_tile, tiles.query_tile
    row = jax.lax.broadcasted_iota(jnp.int32, (_SUBLANES, K + Q), 0)

    def fill(index, nothing):
        strip = jnp.broadcast_to(strips_ref[0, pl.ds(index, 1), :], (_SUBLANES, K + Q))
        rows = pltpu.roll(strip, Q + 1, 1)
        for shift in range(1, _SUBLANES):
            rows = jnp.where(row == shift, pltpu.roll(strip, Q + 1 + shift, 1), rows)

        def store(step, rows):
            tiles_ref[index, pl.ds(step * _SUBLANES, _SUBLANES), :] = rows[:, :Q]
            return pltpu.roll(rows, _SUBLANES, 1)

        jax.lax.fori_loop(0, K // _SUBLANES, store, rows)
        return nothing

    jax.lax.fori_loop(0, strips_ref.shape[1], fill, None)


def zero_tiles(tiles_ref) -> None:
    """Zeros in the tiles [G O, K, Q], in a loop: code for each of them would be long."""

    def zero(index, nothing):
        tiles_ref[index] = jnp.zeros(tiles_ref.shape[1:], jnp.float32)
        return nothing

    jax.lax.fori_loop(0, tiles_ref.shape[0], zero, None)


def sum_diagonals(tiles_ref, strips_ref, tiles: Tiles) -> None:
    """Writes the gradient of the strips [1, G O, X] from that of the tiles [G O, K, Q]."""
    K, Q = tiles.key_tile, tiles.query_tile

    def sums(index, nothing):
        def add(step, rows):
            new = tiles_ref[index, pl.ds(step * _SUBLANES, _SUBLANES), :]
            new = jnp.concatenate([new, jnp.zeros((_SUBLANES, K), jnp.float32)], axis=1)
            return pltpu.roll(rows, _SUBLANES, 1) + new

        rows = jnp.zeros((_SUBLANES, K + Q), jnp.float32)
        rows = jax.lax.fori_loop(0, K // _SUBLANES, add, rows)
        total = rows[:1]
        for r in range(1, _SUBLANES):
            total = pltpu.roll(total, 1, 1) + rows[r : r + 1]
        strips_ref[0, pl.ds(index, 1), :] = total
        return nothing

    jax.lax.fori_loop(0, strips_ref.shape[1], sums, None)
