"""Both implementations of attention against NumPy float64, forward and gradients; T5X's layer."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.model.attention import Mask, dot_product_attention
from t5jax.model.config import T5Config
from t5jax.model.layers import Attention


class Case(NamedTuple):
    """Inputs of one attention; `dy` is the gradient of its output."""

    query_segments: list[list[int]]  # [B, T]
    key_segments: list[list[int]]  # [B, S]
    causal: bool
    has_bias: bool
    prefix: list[list[int]] | None = None  # [B, S]

    def arrays(self, num_heads=3, head_dim=5):
        rng = np.random.default_rng(3)
        (B, T), S = np.shape(self.query_segments), np.shape(self.key_segments)[1]
        normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
        q = normal(B, T, num_heads, head_dim)
        k, v = normal(B, S, num_heads, head_dim), normal(B, S, num_heads, head_dim)
        bias = normal(num_heads, T, S) if self.has_bias else None
        return q, k, v, bias, normal(*q.shape)

    def mask(self) -> Mask:
        as_array = functools.partial(jnp.asarray, dtype=jnp.int32)
        prefix = None if self.prefix is None else as_array(self.prefix)
        return Mask(as_array(self.query_segments), as_array(self.key_segments), self.causal, prefix)


PACKED = [[1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 0], [1] * 11, [1] + [0] * 10, [0] * 11]
CASES = {
    "packed decoder": Case(PACKED, PACKED, causal=True, has_bias=True),
    "packed encoder": Case(PACKED, PACKED, causal=False, has_bias=True),
    # Row 2: inputs of another segment only; row 3: no inputs; row 4: a row that fills up a batch.
    "cross": Case(
        [[1, 1, 2, 2, 2, 0, 0], [1] * 7, [2] * 7, [1] * 7, [0] * 7],
        [[1, 1, 1, 2, 0], [1, 1, 0, 0, 0], [1] * 5, [0] * 5, [0] * 5],
        causal=False,
        has_bias=False,
    ),
    # Prefixes of three and one in row 1; all of row 2; none in row 3.
    "packed prefix LM": Case(
        PACKED,
        PACKED,
        causal=True,
        has_bias=True,
        prefix=[[1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0], [1] * 11, [0] * 11, [1] * 11],
    ),
    "one position": Case([[1], [1]], [[1], [0]], causal=True, has_bias=True),
}


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reference(case: Case, q, k, v, bias, dy):
    """(y, dq, dk, dv, dbias) in float64, row by row and head by head."""
    q, k, v, dy = (x.astype(np.float64) for x in (q, k, v, dy))
    y, dq, dk, dv = (np.zeros_like(x) for x in (q, q, k, v))
    dbias = np.zeros((q.shape[2], q.shape[1], k.shape[1]))
    for b, (query_segments, key_segments) in enumerate(
        zip(np.array(case.query_segments), np.array(case.key_segments), strict=True)
    ):
        allowed = (query_segments[:, None] == key_segments) & (key_segments > 0)
        if case.causal:
            past = np.arange(len(key_segments)) <= np.arange(len(query_segments))[:, None]
            allowed &= past if case.prefix is None else past | (np.array(case.prefix)[b] > 0)
        for n in range(q.shape[2]):
            scores = q[b, :, n] @ k[b, :, n].T + (0.0 if bias is None else bias[n])
            # A query that may look nowhere looks everywhere, equally.
            scores = np.where(allowed, scores, np.where(allowed.any(1)[:, None], -np.inf, 0.0))
            p = softmax(scores)
            y[b, :, n] = p @ v[b, :, n]
            dv[b, :, n] = p.T @ dy[b, :, n]
            dp = dy[b, :, n] @ v[b, :, n].T
            ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
            dq[b, :, n], dk[b, :, n] = ds @ k[b, :, n], ds.T @ q[b, :, n]
            dbias[n] += ds
    return y, dq, dk, dv, dbias


def attend_and_gradients(case: Case, implementation: str, q, k, v, bias, dy):
    @jax.jit
    def run(q, k, v, bias, dy):
        call = lambda *args: dot_product_attention(*args, case.mask(), implementation)
        y, gradients = jax.vjp(call, q, k, v, bias)
        return y, *gradients(dy)

    return run(q, k, v, bias, dy)


@pytest.mark.parametrize("implementation", ["einsum", "per_example"])
@pytest.mark.parametrize("name", CASES)
def test_equals_numpy_forward_and_backward(name, implementation):
    case = CASES[name]
    arrays = case.arrays()
    got = attend_and_gradients(case, implementation, *arrays)
    want = reference(case, *arrays)
    for what, x, y in zip(("y", "dq", "dk", "dv", "dbias"), got, want, strict=True):
        if x is None:  # no bias, no gradient of it
            assert not case.has_bias
            continue
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6, err_msg=what)


def test_implementations_agree_in_bfloat16():
    """Both keep scores and sums in float32; only what leaves them is rounded."""
    case = CASES["packed decoder"]
    arrays = [jnp.asarray(x, jnp.bfloat16) for x in case.arrays()]
    want = reference(case, *(np.asarray(x, np.float32) for x in arrays))
    for implementation in ("einsum", "per_example"):
        got = attend_and_gradients(case, implementation, *arrays)
        for x, y in zip(got, want, strict=True):
            assert x.dtype == jnp.bfloat16
            np.testing.assert_allclose(np.asarray(x, np.float32), y, rtol=0.03, atol=0.03)


def test_auto_does_not_serialise_rows_that_devices_share():
    """Of eight devices each has its rows: a loop over the batch would make them take turns."""
    case = CASES["packed decoder"]
    q, k, v, bias, _ = case.arrays()
    text = str(
        jax.make_jaxpr(lambda q: dot_product_attention(q, k, v, bias, case.mask(), "auto"))(q)
    )
    assert jax.device_count() == 8
    assert "scan" not in text
    assert "while" not in text


def test_t5x_layer(real_data):
    golden = np.load(real_data / "golden/t5x/t5x_attention.npz")
    inputs = {name: golden[f"inputs/{name}"] for name in ("query", "key", "value")}
    np.testing.assert_array_equal(inputs["key"], inputs["value"])  # both are our "memory"
    cfg = T5Config(emb_dim=48, num_heads=4, head_dim=12, attention="einsum")
    layer = Attention(cfg, rngs=nnx.Rngs(params=0))
    weights = {name: golden[f"params/{name}/kernel"] for name in ("query", "key", "value", "out")}
    nnx.update(layer, weights)
    B, T, _ = inputs["query"].shape
    everyone = Mask(jnp.ones((1, T), jnp.int32), jnp.ones((1, T), jnp.int32))

    @jax.jit
    def row(x_TD, memory_SD, bias_NTS):  # the golden bias differs from row to row
        return layer(x_TD[None], memory_SD[None], bias_NTS, everyone)[0]

    biases = golden["inputs/attention_logit_biases"]
    got = np.stack([row(inputs["query"][b], inputs["key"][b], biases[b]) for b in range(B)])
    np.testing.assert_allclose(got, golden["outputs"], rtol=1e-5, atol=1e-5)
