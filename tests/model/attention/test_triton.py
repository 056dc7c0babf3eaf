"""The GPU kernels in interpret mode: einsum's results and gradients for every mask and length."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.model.attention import Mask, PositionBias, ScoreFunction, triton
from t5jax.model.attention.einsum import einsum_attention
from t5jax.model.attention.score import PLAIN
from t5jax.model.attention.triton import triton_attention
from t5jax.model.config import T5Config
from t5jax.model.position import RelativePositionBias
from t5jax.sharding import MeshConfig, use_mesh
from tests.marks import slow_but
from tests.model.attention.cases import CASES, reference

interpreted = functools.partial(triton_attention, interpret=True)


def packed_segments(rng, rows: int, length: int) -> np.ndarray:
    """Up to five segments a row, padding at the end; the last row is padding alone."""
    cuts = np.sort(rng.integers(0, length, size=(rows, 5)), axis=1)
    segments = 1 + (np.arange(length)[None, :, None] >= cuts[:, None]).sum(-1)
    segments[segments == 6] = 0
    segments[-1] = 0
    return segments.astype(np.int32)


def arguments(rng, B, T, S, N, H, dtype=jnp.float32, has_bias=True):
    """q, k, v, the bias by distance, and the gradient of the output."""
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
    bias = normal(N, T + S) if has_bias else None
    return (
        normal(B, T, N, H) * 0.3,
        normal(B, S, N, H),
        normal(B, S, N, H),
        bias,
        normal(B, T, N, H),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def gradients(attend, causal, score, arrays, mask_arrays):
    q, k, v, bias, dy = arrays

    def call(q, k, v, bias):
        bias = None if bias is None else PositionBias.of_distances(bias, q.shape[1])
        queries, keys, prefix = mask_arrays
        return attend(q, k, v, bias, Mask(queries, keys, causal, prefix), score)

    y, backward = jax.vjp(call, q, k, v, bias)
    return y, *backward(dy)


def check(arrays, mask: Mask, *, tolerance=5e-6, score=PLAIN, attend=interpreted):
    """Compares with einsum, relative to the largest of each result."""
    mask_arrays = mask.query_segments, mask.key_segments, mask.prefix
    got = gradients(attend, mask.causal, score, arrays, mask_arrays)
    as_float32 = lambda x: x.astype(jnp.float32)
    want = gradients(
        einsum_attention, mask.causal, score, jax.tree.map(as_float32, arrays), mask_arrays
    )
    for name, x, y in zip(("y", "dq", "dk", "dv", "dbias"), got, want, strict=True):
        if y is None:
            assert x is None
            continue
        assert x.dtype == arrays[0].dtype
        error = np.abs(np.asarray(x, np.float32) - y).max() / max(np.abs(y).max(), 1e-6)
        assert error < tolerance, f"{name}: {error}"


@pytest.mark.parametrize("name", slow_but(["packed prefix LM"], CASES))
def test_equals_numpy(name):
    case = CASES[name]
    arrays = case.arrays()
    mask = case.mask()
    mask_arrays = mask.query_segments, mask.key_segments, mask.prefix
    got = gradients(interpreted, mask.causal, PLAIN, arrays, mask_arrays)
    for what, x, y in zip(
        ("y", "dq", "dk", "dv", "dbias"), got, reference(case, *arrays), strict=True
    ):
        if x is not None:
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6, err_msg=what)


SMALL_TILES = {
    "padded": {"T": 41, "S": 41, "causal": False},
    "packed, causal, window, cap": {
        "T": 50,
        "S": 50,
        "causal": True,
        "packed": True,
        "score": ScoreFunction(window=17, soft_cap=2.0),
    },
    "packed, causal": {"T": 57, "S": 57, "causal": True, "packed": True},
    "prefix": {"T": 38, "S": 38, "causal": True, "prefix": True, "packed": True},
    "cross, packed": {"T": 35, "S": 53, "packed": True, "has_bias": False},
    "bias between sequences, window": {"T": 53, "S": 35, "score": ScoreFunction(window=9)},
}


def case_of(rng, T, S, B=3, N=2, H=8, causal=False, packed=False, prefix=False, **more):
    """(arrays, mask)"""
    if packed:
        keys = packed_segments(rng, B, S)
        queries = keys if T == S else packed_segments(rng, B, T)
    else:
        queries, keys = (
            (np.arange(n) < rng.integers(0, n + 1, size=(B, 1))).astype(np.int32) for n in (T, S)
        )
        queries = keys if T == S else queries
    prefix_BS = rng.integers(0, 2, size=(B, S)).astype(np.int32) if prefix else None
    return arguments(rng, B, T, S, N, H, **more), Mask(queries, keys, causal, prefix_BS)


@pytest.mark.parametrize("name", slow_but(["packed, causal, window, cap"], SMALL_TILES))
def test_equals_einsum_over_several_tiles(name, monkeypatch):
    """Tiles that causality and windows leave out, too, and rows of a last, smaller group."""
    monkeypatch.setattr(triton, "_forward_tiles", lambda q: (32, 16))
    monkeypatch.setattr(triton, "_backward_tiles", lambda q: (16, 16))
    monkeypatch.setattr(triton, "_ROWS_OF_GROUP", 2)
    options = dict(SMALL_TILES[name])
    score = options.pop("score", PLAIN)
    check(*case_of(np.random.default_rng(7), **options), score=score)


@pytest.mark.slow
def test_bfloat16_rounds_what_leaves_the_kernel():
    arrays, mask = case_of(np.random.default_rng(5), 35, 35, packed=True, dtype=jnp.bfloat16)
    check(arrays, mask, tolerance=1e-2)


@pytest.mark.slow
def test_gradient_of_the_bias_table():
    rng = np.random.default_rng(2)
    (q, k, v, _, dy), mask = case_of(rng, 44, 44, causal=True, packed=True)
    relpos = RelativePositionBias(T5Config(num_heads=2), rngs=nnx.Rngs(0))
    graph, state = nnx.split(relpos)

    def loss(state, attend):
        bias = nnx.merge(graph, state)(44, 44, bidirectional=False)
        return jnp.sum(attend(q, k, v, bias, mask) * dy)

    got, want = (
        jax.jit(jax.grad(lambda s, a=a: loss(s, a)))(state) for a in (interpreted, einsum_attention)
    )
    got, want = (x["embedding"][...] for x in (got, want))
    np.testing.assert_allclose(got, want, atol=5e-6 * np.abs(want).max())


def test_rows_and_heads_on_a_mesh():
    """The bias gradient is summed over the rows of all devices."""
    rng = np.random.default_rng(4)
    arrays, mask = case_of(rng, 21, 21, B=4, N=4, packed=True)
    mesh = MeshConfig(data=2, tensor=2).build(jax.devices()[:4])
    rules = MeshConfig().logical_axis_rules

    def on_mesh(*arguments):
        return interpreted(*arguments)

    with use_mesh(mesh, rules):
        text = str(jax.make_jaxpr(lambda *a: on_mesh(*a, None, mask))(*arrays[:3]))
        assert "shard_map" in text
        check(arrays, mask, attend=on_mesh)


def test_sum_of_diagonals():
    rng = np.random.default_rng(0)
    T, S, size, N = 21, 34, 8, 2
    queries, keys = -(-T // size), -(-S // size)
    tiles = np.zeros((N, queries + keys - 1, size, size), np.float32)
    want = np.zeros((N, T + S), np.float32)
    for n in range(N):
        scores = rng.normal(size=(T, S)).astype(np.float32)
        padded = np.pad(scores, [(0, queries * size - T), (0, keys * size - S)])
        for i in range(queries):
            for j in range(keys):
                tile = padded[i * size : (i + 1) * size, j * size : (j + 1) * size]
                tiles[n, j - i + queries - 1] += tile
        np.add.at(want[n], np.arange(S) - np.arange(T)[:, None] + T - 1, scores)
    np.testing.assert_allclose(triton.sum_of_diagonals(jnp.asarray(tiles), T, S), want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"T": 114, "S": 114, "causal": True},
        {"T": 114, "S": 512, "has_bias": False, "packed": True},
        {"T": 512, "S": 512, "packed": True},
        {"T": 512, "S": 512, "causal": True, "prefix": True},
        {"T": 1000, "S": 1000, "B": 1, "N": 1},
        {"T": 200, "S": 200, "H": 128},
        {"T": 72, "S": 72, "H": 256, "causal": True},
    ],
    ids=str,
)
def test_equals_einsum_at_real_sizes(options, dtype):
    sizes = {"B": 2, "N": 2, "H": 64} | options
    arrays, mask = case_of(np.random.default_rng(1), dtype=dtype, **sizes)
    check(arrays, mask, tolerance=5e-6 if dtype == jnp.float32 else 1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 8))]
)
def test_equals_einsum_for_random_shapes(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    size = int(rng.choice([16, 32]))
    monkeypatch.setattr(triton, "_forward_tiles", lambda q: (16, 32))
    monkeypatch.setattr(triton, "_backward_tiles", lambda q: (size, size))
    B, T, S, N, H = (int(rng.integers(1, most)) for most in (5, 90, 90, 4, 40))
    options = {"causal": bool(rng.integers(2)), "packed": bool(rng.integers(2))}
    options["prefix"] = options["causal"] and bool(rng.integers(2))
    window = int(rng.integers(1, 60)) if rng.integers(2) else None
    cap = float(rng.uniform(1, 20)) if rng.integers(2) else None
    arrays, mask = case_of(rng, T, S, B, N, H, has_bias=bool(rng.integers(2)), **options)
    check(arrays, mask, score=ScoreFunction(window=window, soft_cap=cap))
