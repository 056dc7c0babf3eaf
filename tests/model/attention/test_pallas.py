"""Attention kernels for TPUs, interpreted on a CPU, against einsum: forward and gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.model.attention import Mask, PositionBias, ScoreFunction
from t5jax.model.attention.einsum import einsum_attention
from t5jax.model.attention.pallas import pallas_attention, why_not_pallas
from t5jax.model.attention.score import PLAIN
from t5jax.model.config import T5Config
from t5jax.model.position import RelativePositionBias
from t5jax.sharding import MeshConfig, use_mesh
from tests.marks import slow_but
from tests.model.attention.cases import CASES, reference

# Largest difference allowed, as a part of the largest value.
TOLERANCE = {jnp.float32: 5e-6, jnp.bfloat16: 1e-2}
NAMES = ("y", "dq", "dk", "dv", "dbias")


class Setting(NamedTuple):
    """One attention: B rows, T queries, S keys, N heads; `segments` makes the segment ids."""

    B: int
    T: int
    S: int
    N: int
    H: int
    segments: str = "packed"
    causal: bool = False
    has_bias: bool = True
    has_prefix: bool = False
    score: ScoreFunction = PLAIN
    tile: int = 512
    seed: int = 0

    def arrays(self, dtype=jnp.float32):
        """((q, k, v, by_distance or None), mask arrays, dy)."""
        rng = np.random.default_rng([self.seed, self.T, self.S])
        normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
        q, dy = normal(self.B, self.T, self.N, self.H), normal(self.B, self.T, self.N, self.H)
        k, v = normal(self.B, self.S, self.N, self.H), normal(self.B, self.S, self.N, self.H)
        bias = normal(self.N, self.T + self.S) if self.has_bias else None
        keys = segment_ids(rng, self.B, self.S, self.segments)
        queries = keys if self.T == self.S else segment_ids(rng, self.B, self.T, self.segments)
        prefix = rng.integers(0, 2, (self.B, self.S)).astype(np.int32) if self.has_prefix else None
        return (q * self.H**-0.5, k, v, bias), (queries, keys, prefix), dy


def segment_ids(rng, B: int, L: int, kind: str) -> np.ndarray:
    if kind == "padded":  # the last row has no token
        lengths = rng.integers(0, L + 1, B)
        lengths[-1] = 0
        return (np.arange(L) < lengths[:, None]).astype(np.int32)
    if kind == "packed":
        cuts = np.sort(rng.integers(0, L, (B, 3)), axis=1)
        ids = 1 + (np.arange(L) >= cuts[..., None]).sum(axis=1)
        return np.where(np.arange(L) >= L - 2, 0, ids).astype(np.int32)
    return rng.integers(0, 4, (B, L)).astype(np.int32)


def both(setting: Setting, attention, dtype=jnp.float32, compute_dtype=None, **options):
    """(y, dq, dk, dv, dbias) of an implementation, for arrays that have values of `dtype`."""
    arrays, mask_arrays, dy = setting.arrays(dtype)
    if compute_dtype is not None:
        arrays, dy = jax.tree.map(lambda x: x.astype(compute_dtype), (arrays, dy))

    @jax.jit
    def run(arrays, mask_arrays, dy):
        def call(q, k, v, by_distance):
            queries, keys, prefix = mask_arrays
            mask = Mask(queries, keys, setting.causal, prefix)
            bias = by_distance
            if bias is not None:
                bias = PositionBias.of_distances(by_distance, setting.T)
            return attention(q, k, v, bias, mask, setting.score, **options)

        y, gradients = jax.vjp(call, *arrays)
        return y, *gradients(dy)

    return run(arrays, mask_arrays, dy)


def assert_equals_einsum(setting: Setting, dtype=jnp.float32, times: float = 1):
    got = both(setting, pallas_attention, dtype, interpret=True, tile=setting.tile)
    # The reference of a bfloat16 attention is what float32 makes of the same numbers.
    want = both(setting, einsum_attention, dtype, compute_dtype=jnp.float32)
    for what, x, y in zip(NAMES, got, want, strict=True):
        if y is None:
            assert x is None
            continue
        assert x.dtype == dtype
        x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
        np.testing.assert_allclose(
            x, y, rtol=0, atol=times * TOLERANCE[dtype] * abs(y).max(), err_msg=what
        )


@pytest.mark.parametrize("name", slow_but(["packed decoder", "packed prefix LM"], CASES))
def test_equals_numpy_forward_and_backward(name):
    case = CASES[name]
    *arrays, dy = case.arrays()

    @jax.jit
    def run(q, k, v, by_distance, dy):
        def call(q, k, v, by_distance):
            bias = None
            if by_distance is not None:
                bias = PositionBias.of_distances(by_distance, q.shape[1])
            return pallas_attention(q, k, v, bias, case.mask(), interpret=True)

        y, gradients = jax.vjp(call, q, k, v, by_distance)
        return y, *gradients(dy)

    got = run(*arrays, dy)
    for what, x, y in zip(NAMES, got, reference(case, *arrays, dy), strict=True):
        if x is not None:
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6, err_msg=what)


SETTINGS = {
    "padded": Setting(3, 72, 72, 2, 64, "padded"),
    "packed": Setting(2, 100, 100, 2, 64),
    "causal, targets of T5's recipe": Setting(2, 114, 114, 4, 64, causal=True),
    "cross": Setting(2, 40, 136, 3, 64, has_bias=False),
    "prefix": Setting(2, 90, 90, 2, 64, causal=True, has_prefix=True),
    "head_dim 128": Setting(2, 48, 48, 2, 128, causal=True),
    "head_dim 256": Setting(2, 48, 48, 2, 256),
    "head_dim 80": Setting(2, 48, 48, 3, 80, "random"),
    "window and cap": Setting(2, 66, 66, 2, 64, score=ScoreFunction(window=9, soft_cap=1.5)),
    "causal, no bias": Setting(2, 66, 66, 2, 64, "padded", causal=True, has_bias=False),
}
TILED = {
    "encoder in tiles": Setting(2, 300, 300, 2, 64, tile=128),
    "padded decoder in tiles": Setting(2, 257, 257, 2, 64, "padded", causal=True, tile=128),
    "cross in tiles": Setting(2, 129, 300, 2, 64, "padded", has_bias=False, tile=128),
    "causal, other segments of queries": Setting(2, 200, 300, 2, 64, "random", True, tile=128),
    "prefix": Setting(2, 300, 300, 2, 64, causal=True, has_prefix=True, tile=128),
    "window": Setting(2, 400, 400, 2, 64, tile=128, score=ScoreFunction(window=40, soft_cap=2.0)),
    "causal window": Setting(
        2, 400, 400, 2, 64, "padded", True, has_bias=False, tile=128, score=ScoreFunction(window=40)
    ),
}


@pytest.mark.parametrize(
    "name", slow_but(["causal, targets of T5's recipe", "window and cap"], SETTINGS)
)
def test_equals_einsum(name):
    assert_equals_einsum(SETTINGS[name])


LARGE = {
    "encoder of T5's recipe": Setting(2, 512, 512, 2, 64, "padded"),
    "cross-attention of T5's recipe": Setting(2, 114, 512, 2, 64, "padded", has_bias=False),
    "no multiple of a tile": Setting(1, 1000, 1000, 2, 64),
    "decoder, no multiple of a tile": Setting(1, 1000, 1000, 2, 64, "padded", causal=True),
    "head_dim 128": Setting(2, 512, 512, 2, 128),
    "head_dim 256": Setting(2, 512, 512, 1, 256, causal=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_equals_einsum_at_real_lengths(name):
    assert_equals_einsum(LARGE[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(5, 12))]
)
def test_equals_einsum_at_random_shapes(seed):
    rng = np.random.default_rng(seed)
    T, S = (int(x) for x in rng.integers(1, 400, 2))
    heads, head_dim = int(rng.integers(1, 5)), int(rng.choice([5, 32, 64, 80, 128]))
    causal, has_bias, has_prefix = (bool(x) for x in rng.integers(0, 2, 3))
    score = ScoreFunction(
        window=None if rng.integers(2) else int(rng.integers(0, 200)),
        soft_cap=None if rng.integers(2) else float(rng.uniform(0.5, 4)),
    )
    kind = str(rng.choice(["padded", "packed", "random"]))
    setting = Setting(
        int(rng.integers(1, 4)), T, T if rng.integers(2) else S, heads, head_dim, kind,
        causal, has_bias, has_prefix and causal, score, 128, seed,
    )  # fmt: skip
    # Both sides round in float32: two of the seeds are more than 5e-6 apart, by less than 1e-5.
    assert_equals_einsum(setting, times=2)


@pytest.mark.parametrize("name", slow_but(["encoder in tiles"], TILED))
def test_equals_einsum_in_tiles(name):
    assert_equals_einsum(TILED[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["padded", "cross", "prefix", "window and cap"])
def test_equals_einsum_in_bfloat16(name):
    assert_equals_einsum(SETTINGS[name], jnp.bfloat16)


def test_gradient_of_the_table_when_far_tiles_share_a_bias():
    """Tiles beyond the largest distance with a bucket of its own use one tile of the bias."""
    cfg = T5Config(num_heads=1, head_dim=128, relpos_num_buckets=8, relpos_max_distance=20)
    module = RelativePositionBias(cfg, rngs=nnx.Rngs(params=0))
    setting = Setting(1, 500, 500, 1, 128, "padded", tile=128)
    (q, k, v, _), (segments, _, _), dy = setting.arrays()
    segments[0] = 1

    graph, table = nnx.split(module)

    def gradient(attention, **options):
        def loss(table, q, k, v, segments, dy):
            bias = nnx.merge(graph, table)(500, 500, bidirectional=True)
            mask = Mask(segments, segments)
            return jnp.sum(attention(q, k, v, bias, mask, **options) * dy)

        return jax.jit(jax.grad(loss))(table, q, k, v, segments, dy).embedding[...]

    got = gradient(pallas_attention, interpret=True, tile=128)
    want = gradient(einsum_attention)
    np.testing.assert_allclose(got, want, rtol=0, atol=5e-6 * abs(want).max())


def test_heads_and_rows_on_four_devices():
    setting = Setting(4, 72, 72, 4, 64, "padded", causal=True)
    mesh = MeshConfig(data=2, tensor=2)
    devices = jax.sharding.Mesh(
        np.array(jax.devices()[:4]).reshape(2, 1, 2), ("data", "fsdp", "tensor")
    )
    want = both(setting, einsum_attention)
    with use_mesh(devices, mesh.logical_axis_rules):
        got = both(setting, pallas_attention, interpret=True)
    for what, x, y in zip(NAMES, got, want, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=5e-6 * abs(y).max(), err_msg=what)


def test_a_row_of_queries_too_long_for_vector_memory_says_so():
    x = jax.ShapeDtypeStruct((2, 2**20, 4, 64), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((2, 2**20), jnp.int32)
    reason = why_not_pallas(x, x, x, None, Mask(ids, ids), PLAIN)
    assert reason is not None
    assert "1048576 queries" in reason
    x = jax.ShapeDtypeStruct((2, 2**14, 4, 64), jnp.bfloat16)
    bias = PositionBias(None, None, constant_from=128)
    assert why_not_pallas(x, x, x, bias, Mask(ids, ids), PLAIN) is None
