"""Forward kernel of attention on TPUs: softmax(q k + bias + mask) v by tiles of keys.

With several tiles of keys, maximum and sum are kept up to date (FlashAttention, Dao et al. 2022).

Shape suffixes: those of `pallas_tiles.py`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from t5jax.model.attention.pallas_bias import fill_tiles
from t5jax.model.attention.pallas_scores import inside, mask_of_tile, masked_scores, product
from t5jax.model.attention.pallas_tiles import Tiles


def forward(lost, q, k, v, strips, query_segments, key_segments, prefix, tiles: Tiles, interpret):
    """(y [B, T, N H], log of the sum of exponentials [B, N / G, G, T], padded to whole tiles).

    `lost` [B * query tiles] is not 0 where a tile has a query that may see no key at all; then
    tiles of keys out of its reach count, too.
    """
    G, K, Q = tiles.heads_per_block, tiles.key_tile, tiles.query_tile
    of_queries, of_keys = (lambda i, j, *_: i), (lambda i, j, *_: j)
    query_block, key_block = tiles.query_block(of_queries), tiles.key_block(of_keys)
    key_row = tiles.row_block(K, of_keys)
    f32 = lambda *shape: pltpu.VMEM(shape, jnp.float32)
    bias = [] if strips is None else [f32(G * tiles.num_offsets, K, Q)]
    statistics = (tiles.batch, tiles.head_blocks, G, Q * tiles.query_tiles)
    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(tiles.head_blocks, tiles.batch, tiles.query_tiles, tiles.key_tiles),
        in_specs=[
            query_block,
            key_block,
            key_block,
            None if strips is None else tiles.strips_block(),
            tiles.row_block(Q, of_queries),
            key_row,
            None if prefix is None else key_row,
        ],
        out_specs=[query_block, tiles.statistics_block(of_queries)],
        scratch_shapes=[f32(G, Q), f32(G, Q), f32(tiles.features, Q), *bias],
    )
    return pl.pallas_call(
        functools.partial(_kernel, tiles=tiles),
        grid_spec=grid,
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct(statistics, jnp.float32),
        ],
        compiler_params=tiles.compiler_params(),
        cost_estimate=tiles.cost(products=2, arrays=2, itemsize=q.dtype.itemsize),
        interpret=interpret,
        name="attention_forward",
    )(lost, q, k, v, strips, query_segments, key_segments, prefix)


def _kernel(
    lost,
    q,
    k,
    v,
    strips,
    queries,
    keys,
    prefix,
    y,
    log_sum,
    maxima,
    sums,
    values,
    bias=None,
    *,
    tiles,
):
    b, i, j = (pl.program_id(axis) for axis in (1, 2, 3))
    if strips is not None:
        first = (b == 0) & (i == 0) & (j == 0)
        pl.when(first)(lambda: fill_tiles(strips, bias, tiles))

    several = tiles.key_tiles > 1
    if several:

        @pl.when(j == 0)
        def start():
            maxima[...] = jnp.full_like(maxima, -jnp.inf)
            sums[...] = jnp.zeros_like(sums)
            values[...] = jnp.zeros_like(values)

    @pl.when(tiles.counts(lost, b, i, j))
    def attend():
        seen_KQ, floor = mask_of_tile(queries, keys, prefix, i, j, tiles)
        v_FK = jnp.transpose(inside(v[0], j, tiles.keys), (1, 0))
        for g in range(tiles.heads_per_block):
            row, head = slice(g, g + 1), tiles.head(g)
            products_KQ = tiles.score.capped(product(k[0, :, head], q[0, :, head], 1, 1))
            bias_KQ = None if bias is None else bias[tiles.bias_tile(g, i, j)]
            scores_KQ = masked_scores(products_KQ, bias_KQ, seen_KQ, floor, tiles)
            max_1Q = jnp.max(scores_KQ, axis=0, keepdims=True)
            if several:
                max_1Q = jnp.maximum(max_1Q, maxima[row])
            exp_KQ = jnp.exp(scores_KQ - max_1Q)
            sum_1Q = jnp.sum(exp_KQ, axis=0, keepdims=True)
            values_HQ = product(v_FK[head], exp_KQ.astype(v.dtype), 1, 0)
            if several:  # what earlier tiles have added is scaled to the new maximum
                scale_1Q = jnp.exp(maxima[row] - max_1Q)
                sum_1Q += scale_1Q * sums[row]
                values_HQ += scale_1Q * values[head]
            maxima[row], sums[row], values[head] = max_1Q, sum_1Q, values_HQ

    @pl.when(j == tiles.key_tiles - 1)
    def finish():
        for g in range(tiles.heads_per_block):
            values[tiles.head(g)] /= sums[g : g + 1]
        y[0] = jnp.transpose(values[...], (1, 0)).astype(y.dtype)
        log_sum[0, 0] = maxima[...] + jnp.log(sums[...])
