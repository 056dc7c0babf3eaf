"""The layouts of the KV cache: the same results, step by step and of whole decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.model import kv_cache
from t5jax.model.config import T5Config
from t5jax.model.decode_weights import decode_weights
from t5jax.model.kv_cache import (
    KeyValue,
    empty_kv_cache,
    laid_out,
    scores_of,
    sum_of_values,
    update_kv_cache,
)
from t5jax.model.registry import make_model
from t5jax.sharding import MeshConfig, use_mesh

B, K, S, N, H = 3, 2, 7, 4, 6


def on_tpu(monkeypatch):
    monkeypatch.setattr(kv_cache, "platform_in_program", lambda: "tpu")


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return normal(B, K, N, H), normal(B, S, N, H), normal(B, S, N, H), normal(B, N, K, S)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("on_mesh", [False, True])
def test_scores_and_sums_of_both_layouts(joined, on_mesh, monkeypatch):
    if joined:
        on_tpu(monkeypatch)
    q, k, v, probs = arrays()

    @jax.jit
    def results(q, k, v, probs):
        memory = laid_out(k, v)
        assert memory.heads_are_joined == joined
        return scores_of(q, memory), sum_of_values(probs, memory)

    if on_mesh:  # heads over two devices; rows do not divide, and are on all
        config = MeshConfig(data=1, tensor=2)
        with use_mesh(config.build(jax.devices()[:2]), config.logical_axis_rules):
            scores, sums = results(q, k, v, probs)
    else:
        scores, sums = results(q, k, v, probs)
    np.testing.assert_allclose(scores, np.einsum("bknh,bsnh->bnks", q, k), rtol=1e-5, atol=1e-5)
    want = np.einsum("bnks,bsnh->bknh", probs, v).reshape(B, K, N * H)
    np.testing.assert_allclose(sums, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("joined", [False, True])
def test_update_writes_the_slots_of_a_position(joined, monkeypatch):
    if joined:
        on_tpu(monkeypatch)
    q, k, v, _ = arrays()
    T = 5
    cache = empty_kv_cache(laid_out(k, v), T * K)
    new = KeyValue(q.reshape(B * K, N, H), 2 * q.reshape(B * K, N, H))
    cache = update_kv_cache(cache, new, jnp.int32(3))
    want = np.zeros((B, T, K, N, H), np.float32)
    want[:, 3] = q
    want = want.reshape(B, T * K, N, H)
    for got, factor in zip(cache, (1, 2), strict=True):
        by_position = got.reshape(B, T * K, N, H) if joined else got.swapaxes(1, 2)
        np.testing.assert_array_equal(by_position, factor * want)


@pytest.mark.parametrize(
    "architecture", ["encoder_decoder", pytest.param("prefix_lm", marks=pytest.mark.slow)]
)
def test_a_decoding_step_is_the_same_in_both_layouts(architecture, monkeypatch):
    layers = {"num_encoder_layers": 0} if architecture == "prefix_lm" else {"num_encoder_layers": 1}
    cfg = T5Config(
        architecture=architecture,
        vocab_size=40,
        emb_dim=16,
        num_heads=N,
        head_dim=H,
        mlp_dim=24,
        num_decoder_layers=1,
        dtype="float32",
        **layers,
    )
    model = make_model(cfg, nnx.Rngs(0))
    tokens_BS = jnp.asarray([[5, 9, 1, 0], [7, 1, 0, 0], [4, 4, 8, 1]], jnp.int32)

    def logits():
        weights = decode_weights(model, B * K)
        decode, cache = model.start_decoding(weights, tokens_BS, 2, K)
        own = jnp.where(jnp.arange(K)[:, None, None] == jnp.arange(K), 0.0, -1e9)
        found = []
        for index in range(2):
            mask_1KTK = jnp.where((jnp.arange(2) <= index)[:, None], own, -1e9)[None]
            last_BK = jnp.full((B, K), 3 + index, jnp.int32) + jnp.arange(K)
            step, cache = decode(last_BK, jnp.int32(index), cache, mask_1KTK)
            found.append(step)
        return jnp.stack(found)

    want = jax.jit(lambda: logits())()
    on_tpu(monkeypatch)
    got = jax.jit(lambda: logits())()  # another function, which is traced anew
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
