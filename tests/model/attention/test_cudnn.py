"""Attention by cuDNN: which calls it takes, and that padding makes no difference (by XLA's version
of the same function, which pads as cuDNN does)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5jax.errors import ConfigError
from t5jax.model.attention import Mask, PositionBias, ScoreFunction, cudnn, dispatch
from t5jax.model.attention.cudnn import compute_capability, cudnn_attention, why_not_cudnn
from t5jax.model.attention.einsum import einsum_attention
from t5jax.model.attention.score import PLAIN
from t5jax.sharding import MeshConfig, use_mesh

LENGTHS = {"self": ([7, 12, 1, 0], None), "cross": ([5, 8, 8, 0], [3, 0, 10, 0])}


def padded(lengths, size: int) -> jax.Array:
    return jnp.asarray(np.arange(size) < np.array(lengths)[:, None], jnp.int32)


@pytest.fixture
def xla(monkeypatch):
    monkeypatch.setattr(cudnn, "_LIBRARY", "xla")


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("on_mesh", [False, True])
def test_equals_einsum_at_all_that_a_loss_reads(kind, on_mesh, xla):
    queries, keys = LENGTHS[kind]
    rng = np.random.default_rng(3)
    T, S = 12, 12 if keys is None else 10
    query_segments = padded(queries, T)
    key_segments = query_segments if keys is None else padded(keys, S)
    mask = Mask(query_segments, key_segments, causal=keys is None, padded_at_end=True)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    q, k, v = normal(4, T, 2, 8), normal(4, S, 2, 8), normal(4, S, 2, 8)
    by_distance = normal(2, T + S) if keys is None else None
    is_read = (query_segments > 0)[..., None, None]
    dy = normal(*q.shape) * is_read

    def results(attend):
        def call(q, k, v, bias):
            bias = None if bias is None else PositionBias.of_distances(bias, T)
            return attend(q, k, v, bias, mask, PLAIN) * is_read

        y, backward = jax.vjp(call, q, k, v, by_distance)
        return y, *backward(dy)

    want = jax.jit(lambda: results(einsum_attention))()
    if on_mesh:
        config = MeshConfig(data=2, tensor=2)
        with use_mesh(config.build(jax.devices()[:4]), config.logical_axis_rules):
            got = jax.jit(lambda: results(cudnn_attention))()
    else:
        got = jax.jit(lambda: results(cudnn_attention))()
    has_keys = np.asarray(jnp.any(key_segments > 0, axis=1))
    for name, x, y in zip(("y", "dq", "dk", "dv", "dbias"), got, want, strict=True):
        if x is None:
            continue
        x, y = np.asarray(x), np.asarray(y)
        if name in ("dq", "dk"):  # the mean of the values does not depend on them
            assert not x[~has_keys].any()
            x, y = x[has_keys], y[has_keys]
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5, err_msg=name)


def call(T=12, S=12, H=64, dtype=jnp.bfloat16, has_bias=True, **mask):
    q, k = jnp.zeros((2, T, 2, H), dtype), jnp.zeros((2, S, 2, H), dtype)
    bias = PositionBias.of_distances(jnp.zeros((2, T + S), dtype), T) if has_bias else None
    ones = lambda length: jnp.ones((2, length), jnp.int32)
    return q, k, k, bias, Mask(ones(T), ones(S), **{"padded_at_end": True, **mask}), PLAIN


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("NVIDIA H100 80GB HBM3", {"H": 256}, None),
        ("NVIDIA A100-SXM4-80GB", {}, None),
        ("NVIDIA A100-SXM4-80GB", {"H": 256}, "head_dim is 256, not a multiple of 8 up to 128"),
        ("NVIDIA H200", {"H": 60}, "head_dim is 60"),
        ("NVIDIA B200", {"T": 11, "has_bias": False}, None),
        ("NVIDIA B200", {"T": 11}, "odd lengths"),
        ("NVIDIA H200", {"dtype": jnp.float32}, "bfloat16, not in float32"),
        ("NVIDIA H200", {"padded_at_end": False}, "packed rows or a prefix"),
        ("NVIDIA H200", {"prefix": jnp.ones((2, 12), jnp.int32), "causal": True}, "a prefix"),
        ("Tesla V100-SXM2-32GB", {}, "older than NVIDIA's Ampere"),
    ],
)
def test_calls_that_it_takes(kind, changes, reason, monkeypatch):
    monkeypatch.setattr(cudnn, "device_kind_in_program", lambda: kind)
    got = why_not_cudnn(*call(**changes))
    assert got is None if reason is None else reason in got


def test_takes_no_other_score_function(monkeypatch):
    monkeypatch.setattr(cudnn, "device_kind_in_program", lambda: "NVIDIA H100 PCIe")
    assert "soft_cap=30" in why_not_cudnn(*call()[:-1], ScoreFunction(soft_cap=30.0))


def test_capability_of_an_unknown_gpu_is_the_oldest_that_cudnn_takes(monkeypatch):
    monkeypatch.setattr(cudnn, "device_kind_in_program", lambda: "NVIDIA X1")
    assert compute_capability() == (8, 0)


def test_a_jax_that_cannot_be_told_of_an_absent_gpu(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as rules

    monkeypatch.delattr(rules, "check_compute_capability")
    with pytest.raises(ConfigError, match=r"set model\.attention = 'triton' to plan"):
        cudnn_attention(*call())


def test_auto_takes_the_first_that_can(monkeypatch, caplog):
    """On GPUs cuDNN, then our kernels; why not cuDNN is logged."""
    monkeypatch.setattr(dispatch, "platform_in_program", lambda: "gpu")
    monkeypatch.setattr(cudnn, "device_kind_in_program", lambda: "NVIDIA H100 80GB HBM3")
    trace = lambda arguments, name="auto": str(
        jax.make_jaxpr(lambda q: dispatch.dot_product_attention(q, *arguments[1:5], name))(
            arguments[0]
        )
    )
    text = trace(call())
    assert "dot_product_attention_fwd" in text
    assert not caplog.records
    text = trace(call(padded_at_end=False))
    assert "attention_forward" in text
    assert "dot_product_attention_fwd" not in text
    assert trace(call(padded_at_end=False), "cudnn") == text
    reason = "it would store [B, N, T, S] for the mask of packed rows or a prefix"
    assert f"not cudnn for this call, because {reason}; next: triton" in caplog.text
