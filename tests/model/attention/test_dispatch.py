"""Both implementations of attention against NumPy float64, forward and gradients; T5X's layer."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.errors import ConfigError
from t5jax.model.attention import (
    Mask,
    PositionBias,
    ScoreFunction,
    dispatch,
    dot_product_attention,
)
from t5jax.model.config import T5Config
from t5jax.model.layers import Attention
from tests.model.attention.cases import CASES, attend_and_gradients, reference


@pytest.mark.parametrize("implementation", ["einsum", "rowwise"])
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
    for implementation in ("einsum", "rowwise"):
        got = attend_and_gradients(case, implementation, *arrays)
        for x, y in zip(got, want, strict=True):
            assert x.dtype == jnp.bfloat16
            np.testing.assert_allclose(np.asarray(x, np.float32), y, rtol=0.03, atol=0.03)


WINDOW_AND_CAP = ScoreFunction(window=3, soft_cap=1.5)


@pytest.mark.parametrize("name", CASES)
def test_einsum_with_window_and_soft_cap(name):
    case = CASES[name]
    arrays = case.arrays()
    got = attend_and_gradients(case, "einsum", *arrays, WINDOW_AND_CAP)
    want = reference(case, *arrays, WINDOW_AND_CAP)
    for what, x, y in zip(("y", "dq", "dk", "dv", "dbias"), got, want, strict=True):
        if x is not None:
            np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6, err_msg=what)


def test_what_an_implementation_cannot_do_einsum_does_and_the_log_says_so_once(caplog):
    case, score = CASES["packed encoder"], ScoreFunction(window=2)
    arrays = case.arrays()
    with caplog.at_level(logging.WARNING, logger="t5jax"):
        got = [attend_and_gradients(case, "rowwise", *arrays, score)[0] for _ in range(2)]
    want = attend_and_gradients(case, "einsum", *arrays, score)[0]
    np.testing.assert_array_equal(got, [want, want])
    assert caplog.text.count("not rowwise for this call, because it has no window") == 1


def test_auto_does_not_serialise_rows_that_devices_share():
    """Of eight devices each has its rows: a loop over the batch would make them take turns."""
    case = CASES["packed decoder"]
    q, k, v, bias, _ = case.arrays()
    bias = PositionBias.of_distances(bias, q.shape[1])
    text = str(
        jax.make_jaxpr(lambda q: dot_product_attention(q, k, v, bias, case.mask(), "auto"))(q)
    )
    assert jax.device_count() == 8
    assert "scan" not in text
    assert "while" not in text


def test_auto_on_tpus_is_our_kernels_whatever_the_host_has(monkeypatch):
    monkeypatch.setattr(dispatch, "platform_in_program", lambda: "tpu")
    monkeypatch.setattr(dispatch, "on_one_cpu", lambda: False)
    case = CASES["packed decoder"]
    q, k, v, bias, _ = case.arrays()
    bias = PositionBias.of_distances(bias, q.shape[1])
    attend = lambda q: dot_product_attention(q, k, v, bias, case.mask(), "auto")
    assert "attention_forward" in str(jax.make_jaxpr(attend)(q))


def test_an_implementation_of_another_platform_is_a_config_error():
    case = CASES["cross"]
    q, k, v, _, _ = case.arrays()
    with pytest.raises(ConfigError, match=r"model\.attention = 'pallas': runs on tpu devices"):
        dot_product_attention(q, k, v, None, case.mask(), "pallas")


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
        # No distances make these biases; einsum reads the matrix alone.
        bias = PositionBias(jnp.zeros((4, sum(bias_NTS.shape[1:]))), bias_NTS)
        return layer(x_TD[None], memory_SD[None], bias, everyone)[0]

    biases = golden["inputs/attention_logit_biases"]
    got = np.stack([row(inputs["query"][b], inputs["key"][b], biases[b]) for b in range(B)])
    np.testing.assert_allclose(got, golden["outputs"], rtol=1e-5, atol=1e-5)
