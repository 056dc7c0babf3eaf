"""The layers one by one: T5X's MLP, the norm, where dropout falls, the spread of fresh weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.model.attention import Mask, PositionBias
from t5jax.model.config import T5Config
from t5jax.model.layers import (
    MLP,
    Attention,
    RMSNorm,
    TransformerBlock,
    dropout,
    dropout_values,
    split_keys,
)
from t5jax.model.registry import init_params

SMALL = T5Config(emb_dim=20, num_heads=3, head_dim=4, mlp_dim=28, dropout_rate=0.3)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def row_keys(num_rows, seed=0):
    return jax.random.split(jax.random.key(seed), num_rows)


def ones(rows, length):
    segments = jnp.ones((rows, length), jnp.int32)
    return Mask(segments, segments)


def test_t5x_mlp(real_data):
    golden = np.load(real_data / "golden/t5x/t5x_mlp.npz")
    mlp = MLP(T5Config(emb_dim=48, mlp_dim=128), rngs=nnx.Rngs(params=0))
    nnx.update(mlp, {name: golden[f"params/{name}/kernel"] for name in ("wi_0", "wi_1", "wo")})
    got = mlp(golden["ref_inputs"]) + golden["inputs"]  # T5X's block, norm and residual included
    np.testing.assert_allclose(got, golden["outputs"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("activations", "function"),
    [
        (("relu",), lambda x, _: np.maximum(x, 0)),
        (("silu", "linear"), lambda x, y: x / (1 + np.exp(-x)) * y),
        (("sigmoid", "tanh"), lambda x, y: np.tanh(y) / (1 + np.exp(-x))),
        (("gelu_exact",), lambda x, _: x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5))),
    ],
)
def test_mlp_of_other_activations(activations, function):
    cfg = T5Config(emb_dim=7, mlp_dim=11, mlp_activations=activations)
    mlp = MLP(cfg, rngs=nnx.Rngs(params=1))
    x = normal(2, 3, 7)
    float64 = lambda name: np.asarray(getattr(mlp, name)[...], np.float64)
    first, second = ("wi", "wi") if len(activations) == 1 else ("wi_0", "wi_1")
    want = function(x @ float64(first), x @ float64(second)) @ float64("wo")
    np.testing.assert_allclose(mlp(x), want, rtol=1e-5, atol=1e-6)


def test_norm_is_of_the_root_mean_square():
    norm = RMSNorm(T5Config(emb_dim=13))
    nnx.update(norm, {"scale": 1.0 + normal(13, seed=1)})
    x = 5.0 + normal(3, 4, 13)  # a mean, which must stay
    x[0, 0] = 0.0  # epsilon keeps it finite
    x64, scale = x.astype(np.float64), np.asarray(norm.scale[...], np.float64)
    want = x64 / np.sqrt((x64**2).mean(-1, keepdims=True) + 1e-6) * scale
    np.testing.assert_allclose(norm(x), want, rtol=1e-6)
    assert not np.any(norm(x)[0, 0])


def test_norm_of_bfloat16_is_computed_in_float32():
    """T5X: mean in float32, the normalised value rounded, then multiplied by the scale."""
    norm = RMSNorm(T5Config(emb_dim=257))
    nnx.update(norm, {"scale": jnp.bfloat16(1.0 + normal(257, seed=1))})
    x = jnp.bfloat16(100.0 * normal(3, 4, 257))
    x32 = np.asarray(x, np.float32)
    rounded = jnp.bfloat16(x32 / np.sqrt((x32**2).mean(-1, keepdims=True) + 1e-6))
    got, want = norm(x), rounded * norm.scale[...]
    assert got.dtype == jnp.bfloat16
    # One unit in the last place: the reciprocal root may fall on the other side of a half.
    np.testing.assert_allclose(np.float32(got), np.float32(want), rtol=2**-8)
    assert np.mean(np.asarray(got == want)) > 0.99


def test_dropout_is_the_same_at_every_position():
    x, rate = 1.0 + np.abs(normal(37, 5, 101)), 0.3
    y = np.asarray(dropout(jnp.asarray(x), rate, row_keys(37)))
    kept = y != 0
    assert (kept == kept[:, :1]).all()
    np.testing.assert_allclose(y[kept], (x / (1 - rate))[kept], rtol=1e-6)
    assert kept.mean() == pytest.approx(1 - rate, abs=0.02)  # 3737 draws: sigma 0.0075
    assert len(np.unique(kept[:, 0], axis=0)) == 37  # rows differ


@pytest.mark.slow
def test_dropout_of_values_drops_a_probability_at_every_query():
    """T5 drops attention probabilities alike for all queries; here values are dropped instead."""
    rows, T, rate = 6, 9, SMALL.dropout_rate
    layer = Attention(SMALL, rngs=nnx.Rngs(params=0))
    x, keys = normal(rows, T, SMALL.emb_dim), row_keys(rows)
    kept = np.asarray(dropout_values(jnp.ones((rows, T, 3, 4)), rate, keys))
    assert (kept == kept[..., :1]).all()  # a head's value at a position, whole
    assert 0.5 < (kept != 0).mean() < 0.9
    kept_BN1S = np.moveaxis(kept[..., 0], 1, 2)[:, :, None]
    q, k, v = (np.asarray(x @ w[...]).reshape(rows, T, 3, 4)
               for w in (layer.query, layer.key, layer.value))  # fmt: skip
    probs = jax.nn.softmax(np.einsum("BTNH,BSNH->BNTS", q, k)) * kept_BN1S
    y = np.einsum("BNTS,BSNH->BTNH", probs, v).reshape(rows, T, -1) @ layer.out[...]
    np.testing.assert_allclose(layer(x, x, None, ones(rows, T), keys), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [dropout, dropout_values])
def test_no_dropout(function):
    x = jnp.asarray(normal(2, 3, 5, 7))
    np.testing.assert_array_equal(function(x, 0.5, None), x)
    np.testing.assert_array_equal(function(x, 0.0, row_keys(2)), x)


def test_dropout_keeps_the_dtype():
    x = jnp.ones((2, 3, 4), jnp.bfloat16)
    assert dropout(x, 0.1, row_keys(2)).dtype == jnp.bfloat16
    assert dropout_values(x[..., None], 0.1, row_keys(2)).dtype == jnp.bfloat16


def test_split_keys_are_all_different():
    keys = split_keys(row_keys(5), 6)
    data = jax.random.key_data(keys).reshape(30, -1)
    assert keys.shape == (6, 5)
    assert len(np.unique(data, axis=0)) == 30
    assert split_keys(None, 3) == (None, None, None)


@jax.jit
def decoder_block(x, memory, keys):
    block = TransformerBlock(SMALL, cross_attention=True, rngs=nnx.Rngs(params=2))
    T = x.shape[1]
    bias = PositionBias.of_distances(jnp.asarray(normal(SMALL.num_heads, 2 * T, seed=3)), T)
    queries, inputs = (jnp.ones(side.shape[:2], jnp.int32) for side in (x, memory))
    self_mask, cross_mask = Mask(queries, queries, causal=True), Mask(queries, inputs)
    return block(x, bias, self_mask, (memory, cross_mask), keys)


@pytest.mark.slow
def test_a_rows_dropout_does_not_depend_on_how_the_batch_is_cut():
    x, memory, keys = normal(5, 4, 20), normal(5, 6, 20, seed=1), row_keys(5)
    whole, some = np.asarray(decoder_block(x, memory, keys)), np.array([3, 1])
    np.testing.assert_allclose(
        decoder_block(x[some], memory[some], keys[some]), whole[some], rtol=1e-5, atol=1e-5
    )
    other = decoder_block(x, memory, row_keys(5, seed=9))
    assert (np.abs(other - whole).max(axis=(1, 2)) > 0.1).all()  # dropout is on, in every row


# ---- fresh weights: the spread of every tensor, and the shape of its distribution

D, H, N, F, BUCKETS = 96, 16, 5, 160, 256
# The largest value, in standard deviations: of a normal distribution beyond 3 in so many draws.
NORMAL, TRUNCATED, UNIFORM = 3.0, 2.0 / 0.87962566, math.sqrt(3.0)
SPREADS = {  # standard deviation; how far the distribution reaches
    "token_embedder": (1.0, NORMAL),
    "query": ((D * H) ** -0.5, NORMAL),  # folds in 1/sqrt(head_dim)
    "key": (D**-0.5, NORMAL),
    "value": (D**-0.5, NORMAL),
    "out": ((N * H) ** -0.5, NORMAL),
    "wi": (D**-0.5, TRUNCATED),
    "wi_0": (D**-0.5, TRUNCATED),
    "wi_1": (D**-0.5, TRUNCATED),
    "wo": (F**-0.5, TRUNCATED),
    "logits_dense": (D**-0.5, TRUNCATED),
    "embedding": ((2.0 / (N + BUCKETS)) ** 0.5, UNIFORM),  # Glorot
}
VARIANTS = {
    "1.0": {"mlp_activations": ("relu",), "tied_embeddings": True},
    "umT5": {"per_layer_relative_bias": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_fresh_weights_are_spread_as_in_t5x(variant):
    cfg = T5Config(
        vocab_size=211, emb_dim=D, num_heads=N, head_dim=H, mlp_dim=F, num_encoder_layers=3,
        num_decoder_layers=2, relpos_num_buckets=BUCKETS, relpos_max_distance=300,
        **VARIANTS[variant],
    )  # fmt: skip
    seen = set()
    for path, x in jax.tree_util.tree_leaves_with_path(init_params(cfg, jax.random.key(3))):
        name = path[-1].key
        assert x.dtype == jnp.float32, path
        if name == "scale":
            np.testing.assert_array_equal(x, 1.0)
            continue
        seen.add(name)
        std, extreme = SPREADS[name]
        tolerance = 4.0 / math.sqrt(2 * x.size)  # four standard errors of a normal's deviation
        assert np.std(x) == pytest.approx(std, rel=tolerance), path
        assert np.abs(np.mean(x)) < 4.0 * std / math.sqrt(x.size), path
        largest = np.abs(x).max() / std
        assert largest > (3.0 if extreme == NORMAL else 0.97 * extreme), path
        assert largest <= (6.0 if extreme == NORMAL else extreme + 1e-3), path
        if path[1:2] and path[1].key == "layers":
            assert len(np.unique(np.asarray(x).reshape(x.shape[0], -1)[:, 0])) == x.shape[0], path
    absent = {"1.0": {"wi_0", "wi_1", "logits_dense"}, "umT5": {"wi"}}[variant]
    assert seen == set(SPREADS) - absent
