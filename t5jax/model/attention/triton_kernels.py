"""FlashAttention-2 (Dao 2023) as Pallas-Triton kernels: the output, and the gradients of queries,
of keys and values, and of the position bias by distance.

A program holds one tile of scores at a time and goes through the tiles of its queries, keys or
distances: nothing of [T, S] is stored, and nothing is added by atomics, so that the bits of a
result do not depend on the order in which a GPU runs the programs.

Queries without any allowed key attend to all keys equally, as the finite mask of the einsum makes
them; their logsumexp is `NO_KEY`.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim (in a tile rounded up to a
power of two), W = T + S distances, t and s queries and keys of a tile.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from t5jax.model.attention.score import ScoreFunction

NO_KEY = 1e30  # exp(score - NO_KEY) is 0
_LOWEST = -1e30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """What the kernels know when they are compiled."""

    num_rows: int
    num_queries: int
    num_keys: int
    head_dim: int
    causal: bool
    has_prefix: bool
    score: ScoreFunction
    query_tile: int
    key_tile: int

    @property
    def query_tiles(self) -> int:
        return pl.cdiv(self.num_queries, self.query_tile)

    @property
    def key_tiles(self) -> int:
        return pl.cdiv(self.num_keys, self.key_tile)

    @property
    def most_after(self) -> int:
        """How far after a query a key may be that it sees."""
        after = self.num_keys if self.score.window is None else self.score.window
        return 0 if self.causal and not self.has_prefix else after

    @property
    def most_before(self) -> int:
        return self.num_queries if self.score.window is None else self.score.window


class Inputs(NamedTuple):
    """Arguments of an attention; in a kernel, references to those of some rows and one head."""

    q_BTNH: Any
    k_BSNH: Any
    v_BSNH: Any
    bias_NW: Any  # None: no position bias
    query_segments_BT: Any
    key_segments_BS: Any
    prefix_BS: Any  # None: no prefix


class Saved(NamedTuple):
    """What the backward kernels read besides."""

    dy_BTNH: Any
    logsumexp_BNT: Any
    delta_BNT: Any  # the sum of dy y over the features
    first_without_keys_B: Any  # the first query that sees no key; T: all see one


class _Tile(NamedTuple):
    """Queries of a tile, and what belongs to them."""

    start: jax.Array
    q_tH: jax.Array
    dy_tH: jax.Array
    logsumexp_t: jax.Array
    delta_t: jax.Array


def forward(problem: Problem, inputs: Inputs, y_ref, logsumexp_ref) -> None:
    """Output and logsumexp of one tile of queries."""
    size = problem.query_tile
    start_t = pl.program_id(0) * size
    q_tH = _matrix(inputs.q_BTNH, None, start_t, size, problem.num_queries, problem)

    def add_tile(j, carry):
        sum_tH, max_t, total_t = carry
        start_s = j * problem.key_tile
        k_sH, v_sH = _keys_and_values(problem, inputs, None, start_s, problem.key_tile)
        scores_ts, allowed_ts, _ = _scores(problem, inputs, None, q_tH, k_sH, start_t, start_s)
        scores_ts = jnp.where(allowed_ts, scores_ts, _LOWEST)
        new_max_t = jnp.maximum(max_t, jnp.max(scores_ts, axis=1))
        exp_ts = jnp.where(allowed_ts, jnp.exp(scores_ts - new_max_t[:, None]), 0.0)
        shrink_t = jnp.exp(max_t - new_max_t)
        sum_tH = sum_tH * shrink_t[:, None] + _dot(exp_ts.astype(v_sH.dtype), v_sH, 1, 0)
        return sum_tH, new_max_t, total_t * shrink_t + jnp.sum(exp_ts, axis=1)

    zero_tH, zero_t = jnp.zeros(q_tH.shape, jnp.float32), jnp.zeros(size, jnp.float32)
    first, end = _seen_key_tiles(problem, start_t)
    sum_tH, max_t, total_t = jax.lax.fori_loop(
        first, end, add_tile, (zero_tH, zero_t + _LOWEST, zero_t)
    )
    no_key_t = total_t == 0.0
    is_query_t = start_t + jnp.arange(size) < problem.num_queries

    def add_values(j, sum_H):
        _, v_sH = _keys_and_values(problem, inputs, None, j * problem.key_tile, problem.key_tile)
        return sum_H + jnp.sum(v_sH.astype(jnp.float32), axis=0)

    tiles = _either(_any(no_key_t & is_query_t), problem.key_tiles, 0)  # most often 0
    sum_H = jax.lax.fori_loop(0, tiles, add_values, jnp.zeros(q_tH.shape[1], jnp.float32))
    total_t = jnp.where(no_key_t, 1.0, total_t)
    mean_1H = sum_H[None, :] * (1.0 / problem.num_keys)
    y_tH = jnp.where(no_key_t[:, None], mean_1H, sum_tH / total_t[:, None])
    logsumexp_t = jnp.where(no_key_t, NO_KEY, max_t + jnp.log(total_t))
    _store_matrix(y_ref, start_t, y_tH, problem.num_queries, problem)
    plgpu.store(logsumexp_ref.at[pl.ds(start_t, size)], logsumexp_t, mask=is_query_t)


def queries_gradient(problem: Problem, inputs: Inputs, saved: Saved, dq_ref) -> None:
    """Of one tile of queries."""
    start_t = pl.program_id(0) * problem.query_tile
    tile = _query_tile(problem, inputs, saved, None, start_t)

    def add_tile(j, dq_tH):
        start_s = j * problem.key_tile
        k_sH, v_sH = _keys_and_values(problem, inputs, None, start_s, problem.key_tile)
        _, _, dproducts_ts = _gradients(problem, inputs, None, tile, k_sH, v_sH, start_s)
        return dq_tH + _dot(dproducts_ts.astype(k_sH.dtype), k_sH, 1, 0)

    first, end = _seen_key_tiles(problem, start_t)
    no_key = _any(tile.logsumexp_t == NO_KEY)
    first, end = _either(no_key, 0, first), _either(no_key, problem.key_tiles, end)
    zero_tH = jnp.zeros(tile.q_tH.shape, jnp.float32)
    dq_tH = jax.lax.fori_loop(first, end, add_tile, zero_tH)
    _store_matrix(dq_ref, start_t, dq_tH, problem.num_queries, problem)


def keys_and_values_gradient(
    problem: Problem, inputs: Inputs, saved: Saved, dk_ref, dv_ref
) -> None:
    """Of one tile of keys."""
    start_s = pl.program_id(0) * problem.key_tile
    k_sH, v_sH = _keys_and_values(problem, inputs, None, start_s, problem.key_tile)

    def add_tile(i, carry):
        dk_sH, dv_sH = carry
        tile = _query_tile(problem, inputs, saved, None, i * problem.query_tile)
        probs_ts, _, dproducts_ts = _gradients(problem, inputs, None, tile, k_sH, v_sH, start_s)
        dk_sH += _dot(dproducts_ts.astype(tile.q_tH.dtype), tile.q_tH, 0, 0)
        dv_sH += _dot(probs_ts.astype(tile.dy_tH.dtype), tile.dy_tH, 0, 0)
        return dk_sH, dv_sH

    first, end = _seeing_query_tiles(problem, start_s, saved.first_without_keys_B[0])
    zero_sH = jnp.zeros(k_sH.shape, jnp.float32)
    dk_sH, dv_sH = jax.lax.fori_loop(first, end, add_tile, (zero_sH, zero_sH))
    _store_matrix(dk_ref, start_s, dk_sH, problem.num_keys, problem)
    _store_matrix(dv_ref, start_s, dv_sH, problem.num_keys, problem)


def bias_gradient(problem: Problem, inputs: Inputs, saved: Saved, dbias_ref) -> None:
    """Of one diagonal of square tiles, which have the same distances, as the sum over them and over
    a group of rows."""
    size, rows_of_group = problem.query_tile, inputs.query_segments_BT.shape[0]
    ahead = pl.program_id(0) - (problem.query_tiles - 1)  # of the tile's keys, in tiles
    rows = jnp.minimum(rows_of_group, problem.num_rows - pl.program_id(2) * rows_of_group)

    def add_row(row, dbias_ts):
        def add_tile(i, dbias_ts):
            start_s = (i + ahead) * size
            tile = _query_tile(problem, inputs, saved, row, i * size)
            k_sH, v_sH = _keys_and_values(problem, inputs, row, start_s, size)
            return dbias_ts + _gradients(problem, inputs, row, tile, k_sH, v_sH, start_s)[1]

        first, end = jnp.maximum(0, -ahead), problem.key_tiles - ahead
        nearest = jnp.abs(ahead) * size - (size - 1)  # distance in the tile
        most = _either(ahead > 0, problem.most_after, problem.most_before)
        without_keys = jax.lax.div(saved.first_without_keys_B[row], size)
        first = _either(nearest > most, jnp.maximum(first, without_keys), first)
        return jax.lax.fori_loop(first, jnp.minimum(problem.query_tiles, end), add_tile, dbias_ts)

    zero_ts = jnp.zeros((size, size), jnp.float32)
    dbias_ref[...] = jax.lax.fori_loop(0, rows, add_row, zero_ts)


def _gradients(problem: Problem, inputs: Inputs, row, tile: _Tile, k_sH, v_sH, start_s):
    """(probabilities, gradient of the scores, gradient of the products q k), float32 [t, s]."""
    scores_ts, allowed_ts, slope_ts = _scores(
        problem, inputs, row, tile.q_tH, k_sH, tile.start, start_s
    )
    no_key_t1 = (tile.logsumexp_t == NO_KEY)[:, None]
    is_key_1s = (start_s + jnp.arange(k_sH.shape[0]) < problem.num_keys)[None, :]
    uniform_ts = jnp.where(no_key_t1 & is_key_1s, 1.0 / problem.num_keys, 0.0)
    probs_ts = jnp.exp(scores_ts - tile.logsumexp_t[:, None])
    probs_ts = jnp.where(allowed_ts, probs_ts, uniform_ts)
    dprobs_ts = _dot(tile.dy_tH, v_sH, 1, 1)
    dscores_ts = probs_ts * (dprobs_ts - tile.delta_t[:, None])
    return probs_ts, dscores_ts, dscores_ts if slope_ts is None else dscores_ts * slope_ts


def _scores(problem: Problem, inputs: Inputs, row, q_tH, k_sH, start_t, start_s):
    """Of a tile: scores (float32, not masked), bool which of them count, and the derivative of the
    scores by the products q k, None where it is 1."""
    T, S = problem.num_queries, problem.num_keys
    t_t = start_t + jnp.arange(q_tH.shape[0])
    s_s = start_s + jnp.arange(k_sH.shape[0])
    distance_ts = s_s[None, :] - t_t[:, None]
    scores_ts, slope_ts = _dot(q_tH, k_sH, 1, 1), None
    if (cap := problem.score.soft_cap) is not None:
        scores_ts = problem.score.capped(scores_ts)
        slope_ts = 1.0 - jnp.square(scores_ts * (1.0 / cap))
    if inputs.bias_NW is not None:
        inside_ts = (t_t < T)[:, None] & (s_s < S)[None, :]
        places_ts = distance_ts + (T - 1)
        bias_ts = plgpu.load(inputs.bias_NW.at[places_ts], mask=inside_ts, other=0.0)
        scores_ts += bias_ts.astype(jnp.float32)
    query_segments_t = _vector(inputs.query_segments_BT, row, start_t, q_tH.shape[0], T, -1)
    key_segments_s = _vector(inputs.key_segments_BS, row, start_s, k_sH.shape[0], S, 0)
    allowed_ts = query_segments_t[:, None] == key_segments_s[None, :]
    allowed_ts &= (key_segments_s > 0)[None, :]
    if problem.causal:
        earlier_ts = distance_ts <= 0
        if inputs.prefix_BS is not None:
            prefix_s = _vector(inputs.prefix_BS, row, start_s, k_sH.shape[0], S, 0)
            earlier_ts |= (prefix_s > 0)[None, :]
        allowed_ts &= earlier_ts
    if problem.score.window is not None:
        allowed_ts &= jnp.abs(distance_ts) <= problem.score.window
    return scores_ts, allowed_ts, slope_ts


def _seen_key_tiles(problem: Problem, start_t):
    """First and end of the tiles with keys that a query of the tile at `start_t` may see."""
    first = jnp.maximum(start_t - problem.most_before, 0)
    last = jnp.minimum(start_t + problem.query_tile - 1 + problem.most_after, problem.num_keys - 1)
    size = problem.key_tile
    return jax.lax.div(first, size), jax.lax.div(last, size) + 1


def _seeing_query_tiles(problem: Problem, start_s, first_without_keys):
    """First and end of the tiles with queries that may see a key of the tile at `start_s`, and with
    those that see no key at all, which attend to all."""
    T, size = problem.num_queries, problem.query_tile
    first = jnp.maximum(start_s - problem.most_after, 0)
    last = jnp.minimum(start_s + problem.key_tile - 1 + problem.most_before, T - 1)
    last = _either(first_without_keys < T, T - 1, last)
    first = jnp.minimum(first, first_without_keys)
    return jax.lax.div(first, size), jax.lax.div(last, size) + 1


def _query_tile(problem: Problem, inputs: Inputs, saved: Saved, row, start) -> _Tile:
    size, length = problem.query_tile, problem.num_queries
    return _Tile(
        start,
        _matrix(inputs.q_BTNH, row, start, size, length, problem),
        _matrix(saved.dy_BTNH, row, start, size, length, problem),
        _vector(saved.logsumexp_BNT, row, start, size, length, 0.0),
        _vector(saved.delta_BNT, row, start, size, length, 0.0),
    )


def _keys_and_values(problem: Problem, inputs: Inputs, row, start, size: int):
    length = problem.num_keys
    return (
        _matrix(inputs.k_BSNH, row, start, size, length, problem),
        _matrix(inputs.v_BSNH, row, start, size, length, problem),
    )


def _matrix(ref, row, start, size: int, length: int, problem: Problem) -> jax.Array:
    """[size, H] of the positions from `start` on; 0 from `length` on."""
    inside = _inside(start, size, length, ref.shape[-1], problem)
    return plgpu.load(ref.at[*_row(row), pl.ds(start, size), :], mask=inside, other=0.0)


def _store_matrix(ref, start, value_tH, length: int, problem: Problem) -> None:
    size, features = value_tH.shape
    inside = _inside(start, size, length, features, problem)
    plgpu.store(ref.at[pl.ds(start, size), :], value_tH.astype(ref.dtype), mask=inside)


def _inside(start, size: int, length: int, features: int, problem: Problem) -> jax.Array:
    is_position = start + jnp.arange(size) < length
    return is_position[:, None] & (jnp.arange(features) < problem.head_dim)[None, :]


def _vector(ref, row, start, size: int, length: int, other) -> jax.Array:
    """[size] of the positions from `start` on; `other` from `length` on."""
    mask = start + jnp.arange(size) < length
    return plgpu.load(ref.at[*_row(row), pl.ds(start, size)], mask=mask, other=other)


def _row(row) -> tuple:
    """Index of a row; none where the references have no axis of rows."""
    return () if row is None else (row,)


def _dot(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    dimensions = (((a_axis,), (b_axis,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _any(x: jax.Array) -> jax.Array:
    return jnp.max(x.astype(jnp.int32)) > 0


def _either(condition, one, other) -> jax.Array:
    """One of two int32 scalars. Typed, because the Triton back end takes a choice between two plain
    numbers to be of the condition's type."""
    return jnp.where(condition, jnp.int32(one), jnp.int32(other))
