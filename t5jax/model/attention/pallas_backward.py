"""Backward kernel of attention on TPUs: gradients of queries, keys, values and position bias.

Probabilities are made again from the logarithm of their sum (FlashAttention-2, Dao 2023). Keys and
values are the outer loop, so that their gradients are done when it goes on; that of the queries of
all tiles stays in vector memory, and so does that of the position bias, over all rows of the batch.

Shape suffixes: those of `pallas_tiles.py`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from t5jax.model.attention.mask import MASKED
from t5jax.model.attention.pallas_bias import fill_tiles, sum_diagonals, zero_tiles
from t5jax.model.attention.pallas_scores import inside, mask_of_tile, masked_scores, product
from t5jax.model.attention.pallas_tiles import Tiles


def backward(
    lost,
    q,
    k,
    v,
    strips,
    query_segments,
    key_segments,
    prefix,
    y,
    log_sum,
    dy,
    tiles: Tiles,
    interpret,
):
    """(dq, dk, dv, gradient of the strips or None)."""
    G, K, Q = tiles.heads_per_block, tiles.key_tile, tiles.query_tile
    of_queries, of_keys = (lambda j, i, *_: i), (lambda j, i, *_: j)
    query_block, key_block = tiles.query_block(of_queries), tiles.key_block(of_keys)
    key_row = tiles.row_block(K, of_keys)
    strips_block = None if strips is None else tiles.strips_block()
    f32 = lambda *shape: pltpu.VMEM(shape, jnp.float32)
    bias = [f32(G * tiles.num_offsets, K, Q)] * (tiles.positional + tiles.trains_bias)
    all_queries = pl.BlockSpec(
        (1, Q * tiles.query_tiles, tiles.features), lambda n, b, *_: (b, 0, n)
    )
    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=1,
        grid=(tiles.head_blocks, tiles.batch, tiles.key_tiles, tiles.query_tiles),
        in_specs=[
            query_block,
            key_block,
            key_block,
            strips_block,
            tiles.row_block(Q, of_queries),
            key_row,
            None if prefix is None else key_row,
            query_block,
            tiles.statistics_block(of_queries),
            query_block,
        ],
        out_specs=[all_queries, key_block, key_block, strips_block if tiles.trains_bias else None],
        scratch_shapes=[
            f32(tiles.query_tiles, tiles.features, Q),
            f32(K, tiles.features),
            f32(K, tiles.features),
            *bias,
        ],
    )
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(
        functools.partial(_kernel, tiles=tiles),
        grid_spec=grid,
        out_shape=[like(q), like(k), like(v), like(strips) if tiles.trains_bias else None],
        compiler_params=tiles.compiler_params(),
        cost_estimate=tiles.cost(products=5, arrays=4, itemsize=q.dtype.itemsize),
        interpret=interpret,
        name="attention_backward",
    )(lost, q, k, v, strips, query_segments, key_segments, prefix, y, log_sum, dy)


def _kernel(
    lost, q, k, v, strips, queries, keys, prefix, y, log_sum, dy, dq, dk, dv, dstrips,
    dq_sums, dk_sums, dv_sums, bias=None, dbias=None, *, tiles,
):  # fmt: skip
    b, j, i = (pl.program_id(axis) for axis in (1, 2, 3))
    first, last = (i == 0) & (j == 0), (i == tiles.query_tiles - 1) & (j == tiles.key_tiles - 1)
    if strips is not None:

        @pl.when((b == 0) & first)
        def start_heads():
            fill_tiles(strips, bias, tiles)
            if dbias is not None:
                zero_tiles(dbias)

    if tiles.key_tiles > 1:

        @pl.when(j == 0)
        def start_queries():
            dq_sums[i] = jnp.zeros(dq_sums.shape[1:], jnp.float32)

    if tiles.query_tiles > 1:

        @pl.when(i == 0)
        def start_keys():
            dk_sums[...] = jnp.zeros_like(dk_sums)
            dv_sums[...] = jnp.zeros_like(dv_sums)

    @pl.when(tiles.counts(lost, b, i, j))
    def add():
        _add_tile(
            q, k, v, queries, keys, prefix, y, log_sum, dy, dq_sums, dk_sums, dv_sums, bias, dbias,
            i, j, tiles,
        )  # fmt: skip

    @pl.when(i == tiles.query_tiles - 1)
    def finish_keys():
        dk[0] = dk_sums[...].astype(dk.dtype)
        dv[0] = dv_sums[...].astype(dv.dtype)

    @pl.when(j == tiles.key_tiles - 1)
    def finish_queries():
        rows = pl.ds(pl.multiple_of(i * tiles.query_tile, tiles.query_tile), tiles.query_tile)
        dq[0, rows, :] = jnp.transpose(dq_sums[i], (1, 0)).astype(dq.dtype)

    if dbias is not None:
        done = (b == tiles.batch - 1) & last
        pl.when(done)(lambda: sum_diagonals(dbias, dstrips, tiles))


def _add_tile(
    q, k, v, queries, keys, prefix, y, log_sum, dy, dq_sums, dk_sums, dv_sums, bias, dbias, i, j,
    tiles: Tiles,
):  # fmt: skip
    """Adds what the tile of queries i and keys j gives to the sums of all gradients."""
    seen_KQ, floor = mask_of_tile(queries, keys, prefix, i, j, tiles)
    q_QF, k_KF = inside(q[0], i, tiles.queries), inside(k[0], j, tiles.keys)
    v_KF, dy_QF = inside(v[0], j, tiles.keys), inside(dy[0], i, tiles.queries)
    dy_QF, delta_GQ = _scaled_gradient(y, dy_QF, log_sum[0, 0], i, tiles)
    k_FK = jnp.transpose(k_KF, (1, 0))
    for g in range(tiles.heads_per_block):
        head = tiles.head(g)
        q_QH, k_KH, v_KH, dy_QH = (x[:, head] for x in (q_QF, k_KF, v_KF, dy_QF))
        products_KQ = tiles.score.capped(product(k_KH, q_QH, 1, 1))
        index = tiles.bias_tile(g, i, j)
        bias_KQ = None if bias is None else bias[index]
        scores_KQ = masked_scores(products_KQ, bias_KQ, seen_KQ, floor, tiles)
        probs_KQ = jnp.exp(scores_KQ - log_sum[0, 0, g : g + 1])
        dv_KH = product(probs_KQ.astype(dy_QH.dtype), dy_QH, 1, 0)
        dprobs_KQ = product(v_KH, dy_QH, 1, 1)
        dscores_KQ = probs_KQ * (dprobs_KQ - delta_GQ[g : g + 1])
        if dbias is not None:
            dbias[index] += dscores_KQ
        if tiles.score.soft_cap is not None:
            dscores_KQ *= 1 - (products_KQ / tiles.score.soft_cap) ** 2
        ds_KQ = dscores_KQ.astype(q_QH.dtype)
        dk_KH, dq_HQ = product(ds_KQ, q_QH, 1, 0), product(k_FK[head], ds_KQ, 1, 0)
        if tiles.query_tiles > 1:
            dk_KH, dv_KH = dk_KH + dk_sums[:, head], dv_KH + dv_sums[:, head]
        if tiles.key_tiles > 1:
            dq_HQ += dq_sums[i, head]
        dk_sums[:, head], dv_sums[:, head], dq_sums[i, head] = dk_KH, dv_KH, dq_HQ


def _scaled_gradient(y, dy_QF, log_sum_GQ, query_tile, tiles: Tiles):
    """(dy [Q, F] scaled as the probabilities want it, its product with y [G, Q]).

    Of a query that sees no key, whose sum is of S alike, `MASKED + log(S)` rounds to MASKED: its
    probabilities come out as 1, and its gradient makes up for it.
    """
    nowhere_GQ = (log_sum_GQ <= MASKED / 2).astype(jnp.float32)
    nowhere_Q1 = jnp.max(jnp.transpose(nowhere_GQ, (1, 0)), axis=1, keepdims=True)
    dy_f32 = dy_QF.astype(jnp.float32) * jnp.where(nowhere_Q1 > 0, 1 / tiles.keys, 1.0)
    products_QF = dy_f32 * inside(y[0], query_tile, tiles.queries).astype(jnp.float32)
    shape = (tiles.heads_per_block, tiles.features)
    # Feature of its head; a division would ask for the chip, which is not here when t5jax plans.
    feature_GF = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    feature_GF -= jax.lax.broadcasted_iota(jnp.int32, shape, 0) * tiles.head_dim
    of_head_GF = ((feature_GF >= 0) & (feature_GF < tiles.head_dim)).astype(jnp.float32)
    delta_GQ = jax.lax.dot_general(
        of_head_GF,
        products_QF,
        (((1,), (1,)), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return dy_f32.astype(dy_QF.dtype), delta_GQ
