"""Attention by our own GPU kernels, for what cuDNN cannot: packed rows, prefixes, odd lengths,
float32, any head_dim up to 256. Nothing of [T, S] is stored, in the backward pass neither.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim, W = T + S distances,
D diagonals of tiles, G groups of rows.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from t5jax.model.attention import triton_kernels as kernels
from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.mask import Mask
from t5jax.model.attention.score import PLAIN, ScoreFunction
from t5jax.model.attention.triton_kernels import Inputs, Problem, Saved
from t5jax.sharding import on_shards

_ROWS_OF_GROUP = 8  # of which a program sums the bias gradient
_LARGEST_HEAD_DIM = 256


def triton_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    score: ScoreFunction = PLAIN,
    *,
    interpret: bool = False,
) -> jax.Array:
    """FlashAttention whose memory is linear in T and S; `interpret` runs it on any platform."""
    inputs = Inputs(
        q_BTNH,
        k_BSNH,
        v_BSNH,
        None if bias is None else bias.by_distance_NW,
        mask.query_segments,
        mask.key_segments,
        mask.prefix,
    )
    features, positions = ("batch", None, "heads", None), ("batch", None)
    axes = Inputs(features, features, features, ("heads", None), *(positions,) * 3)
    attend = lambda *arrays: _attend(mask.causal, score, interpret, Inputs(*arrays))
    return on_shards(attend, axes, features)(*inputs)


def why_not_triton(q_BTNH, k_BSNH, v_BSNH, bias, mask, score) -> str | None:
    """Why `triton_attention` cannot do this call; None: it can."""
    if q_BTNH.shape[-1] > _LARGEST_HEAD_DIM:
        return f"head_dim is {q_BTNH.shape[-1]}, more than {_LARGEST_HEAD_DIM}"
    return None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attend(causal: bool, score: ScoreFunction, interpret: bool, inputs: Inputs) -> jax.Array:
    return _forward(causal, score, interpret, inputs)[0]


def _forward(causal: bool, score: ScoreFunction, interpret: bool, inputs: Inputs):
    problem = _problem(inputs, causal, score, _forward_tiles(inputs.q_BTNH))
    B, T, N, _ = inputs.q_BTNH.shape
    specs = _input_specs(problem, inputs)
    y_BTNH, logsumexp_BNT = _call(
        kernels.forward,
        problem,
        (problem.query_tiles, N, B),
        (specs,),
        [specs.q_BTNH, _saved_specs(problem).logsumexp_BNT],
        [_like(inputs.q_BTNH), jax.ShapeDtypeStruct((B, N, T), jnp.float32)],
        interpret,
    )(inputs)
    return y_BTNH, (inputs, y_BTNH, logsumexp_BNT)


def _backward(causal: bool, score: ScoreFunction, interpret: bool, residuals, dy_BTNH):
    inputs, y_BTNH, logsumexp_BNT = residuals
    problem = _problem(inputs, causal, score, _backward_tiles(inputs.q_BTNH))
    B, T, N, _ = inputs.q_BTNH.shape
    f32 = {"preferred_element_type": jnp.float32}
    delta_BNT = jnp.einsum("BTNH,BTNH->BNT", dy_BTNH, y_BTNH, **f32)
    without_keys_BT = jnp.any(logsumexp_BNT == kernels.NO_KEY, axis=1)
    first_B = jnp.min(jnp.where(without_keys_BT, jnp.arange(T), T), axis=1)
    saved = Saved(dy_BTNH, logsumexp_BNT, delta_BNT, first_B.astype(jnp.int32))
    specs = _input_specs(problem, inputs)
    in_specs = specs, _saved_specs(problem)
    call = functools.partial(_call, problem=problem, in_specs=in_specs, interpret=interpret)
    (dq_BTNH,) = call(
        kernels.queries_gradient,
        grid=(problem.query_tiles, N, B),
        out_specs=[specs.q_BTNH],
        out_shape=[_like(inputs.q_BTNH)],
    )(inputs, saved)
    dk_BSNH, dv_BSNH = call(
        kernels.keys_and_values_gradient,
        grid=(problem.key_tiles, N, B),
        out_specs=[specs.k_BSNH, specs.k_BSNH],
        out_shape=[_like(inputs.k_BSNH), _like(inputs.v_BSNH)],
    )(inputs, saved)
    dbias_NW = None
    if inputs.bias_NW is not None:
        dbias_NW = _bias_gradient(problem, inputs, saved, interpret).astype(inputs.bias_NW.dtype)
    return (Inputs(dq_BTNH, dk_BSNH, dv_BSNH, dbias_NW, None, None, None),)


_attend.defvjp(_forward, _backward)


def _bias_gradient(problem: Problem, inputs: Inputs, saved: Saved, interpret: bool) -> jax.Array:
    """float32 [N, T + S]."""
    N, size = inputs.q_BTNH.shape[2], problem.query_tile
    rows = min(_ROWS_OF_GROUP, problem.num_rows)
    D = problem.query_tiles + problem.key_tiles - 1
    grid = D, N, pl.cdiv(problem.num_rows, rows)
    (dbias_GNDts,) = _call(
        kernels.bias_gradient,
        problem,
        grid,
        (_input_specs(problem, inputs, rows), _saved_specs(problem, rows)),
        [pl.BlockSpec((None, None, None, size, size), lambda d, n, g: (g, n, d, 0, 0))],
        [jax.ShapeDtypeStruct((grid[2], N, D, size, size), jnp.float32)],
        interpret,
    )(inputs, saved)
    return sum_of_diagonals(jnp.sum(dbias_GNDts, axis=0), problem.num_queries, problem.num_keys)


def sum_of_diagonals(tiles_NDtt: jax.Array, num_queries: int, num_keys: int) -> jax.Array:
    """[N, T + S]: sums over equal distances of square tiles, zero outside of T and S. The tile of
    [n, d] is the sum of those that lie on one diagonal, from the last queries and first keys on."""
    N, D, size, _ = tiles_NDtt.shape
    # Rows one longer than they are read with: column c of row a goes to c - a + size - 1.
    flipped = jnp.pad(tiles_NDtt[:, :, ::-1], [(0, 0), (0, 0), (0, 0), (0, size)])
    flat = flipped.reshape(N, D, -1)[..., : size * (2 * size - 1)]
    sums_NDe = jnp.sum(flat.reshape(N, D, size, 2 * size - 1), axis=2)
    # Neighbouring diagonals share distances: the second half of one is the first of the next.
    halves = jnp.pad(sums_NDe, [(0, 0), (0, 0), (0, 1)]).reshape(N, D, 2, size)
    first, second = halves[:, :, 0], halves[:, :, 1]
    last = [(0, 0), (0, 1), (0, 0)]
    overlapped = jnp.pad(first, last) + jnp.pad(second, [(0, 0), (1, 0), (0, 0)])
    start = -(-num_queries // size) * size - num_queries
    by_distance = overlapped.reshape(N, -1)[:, start : start + num_queries + num_keys - 1]
    return jnp.pad(by_distance, [(0, 0), (0, 1)])


def _problem(inputs: Inputs, causal: bool, score: ScoreFunction, tiles) -> Problem:
    B, T, _, H = inputs.q_BTNH.shape
    return Problem(
        num_rows=B,
        num_queries=T,
        num_keys=inputs.k_BSNH.shape[1],
        head_dim=H,
        causal=causal,
        has_prefix=inputs.prefix_BS is not None,
        score=score,
        query_tile=tiles[0],
        key_tile=tiles[1],
    )


def _forward_tiles(q_BTNH: jax.Array) -> tuple[int, int]:
    """Queries and keys of a tile: what shared memory and registers of an H100 hold."""
    words = q_BTNH.shape[-1] * q_BTNH.dtype.itemsize
    return (128, 64) if words <= 128 else (64, 64) if words <= 256 else (64, 32)


def _backward_tiles(q_BTNH: jax.Array) -> tuple[int, int]:
    words = q_BTNH.shape[-1] * q_BTNH.dtype.itemsize
    return (64, 64) if words <= 256 else (32, 32)


def _input_specs(problem: Problem, inputs: Inputs, rows: int | None = None) -> Inputs:
    """Of one head and of some rows, from a grid of (tiles, heads, rows)."""
    H = max(pl.next_power_of_2(problem.head_dim), 16)
    T, S = _padded_lengths(problem)
    features = lambda length: pl.BlockSpec((rows, length, None, H), lambda i, n, b: (b, 0, n, 0))
    positions = lambda length: pl.BlockSpec((rows, length), lambda i, n, b: (b, 0))
    W = problem.num_queries + problem.num_keys
    specs = Inputs(
        features(T),
        features(S),
        features(S),
        pl.BlockSpec((None, W), lambda i, n, b: (n, 0)),
        positions(T),
        positions(S),
        positions(S),
    )
    return Inputs(*(None if x is None else spec for spec, x in zip(specs, inputs, strict=True)))


def _saved_specs(problem: Problem, rows: int | None = None) -> Saved:
    H = max(pl.next_power_of_2(problem.head_dim), 16)
    T, _ = _padded_lengths(problem)
    per_query = pl.BlockSpec((rows, None, T), lambda i, n, b: (b, n, 0))
    return Saved(
        pl.BlockSpec((rows, T, None, H), lambda i, n, b: (b, 0, n, 0)),
        per_query,
        per_query,
        pl.BlockSpec((rows or 1,), lambda i, n, b: (b,)),
    )


def _padded_lengths(problem: Problem) -> tuple[int, int]:
    return problem.query_tiles * problem.query_tile, problem.key_tiles * problem.key_tile


def _call(kernel, problem: Problem, grid, in_specs, out_specs, out_shape, interpret: bool):
    return pl.pallas_call(
        functools.partial(kernel, problem),
        out_shape,
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        interpret=interpret,
        compiler_params=plgpu.CompilerParams(
            num_warps=4 if problem.head_dim <= 64 else 8, num_stages=2
        ),
        name=f"attention_{kernel.__name__}",
    )


def _like(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)
