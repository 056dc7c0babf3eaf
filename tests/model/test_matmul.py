"""Matrix products with small batches: the same numbers from transposed weights."""

import jax
import numpy as np
import pytest
from flax import nnx

from t5jax.model import matmul
from t5jax.model.matmul import (
    TransposedParam,
    dense,
    in_row_blocks,
    is_small_batch,
    small_batch_matmul,
)


@pytest.fixture
def one_cpu(monkeypatch):
    monkeypatch.setattr(matmul, "devices_in_program", lambda: 1)


def test_a_small_batch_is_a_known_number_in_a_range(one_cpu):
    assert [is_small_batch(number) for number in (1, 8, 64, 128)] == [False, True, True, False]
    (symbolic,) = jax.export.symbolic_shape("b")
    assert not is_small_batch(symbolic)


def test_small_batches_are_of_one_cpu_only():
    assert jax.device_count() == 8
    assert not is_small_batch(8)


def test_numpy_gives_the_same_product():
    rng = np.random.default_rng(0)
    x_RD, weight_DF = rng.normal(size=(5, 7)), rng.normal(size=(7, 11))
    x_RD, weight_DF = x_RD.astype(np.float32), weight_DF.astype(np.float32)
    want = x_RD.astype(np.float64) @ weight_DF
    got = jax.jit(small_batch_matmul)(x_RD, weight_DF.T)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    as_is, turned = nnx.Param(weight_DF), TransposedParam(weight_DF.T)
    np.testing.assert_allclose(dense(x_RD, as_is), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense(x_RD, turned), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "part"), [((6, 300), (3, 300)), ((7, 300), (1, 300)), ((5, 7), (5, 7))]
)
def test_one_cpu_works_through_a_thousand_tokens_at_a_time(one_cpu, shape, part):
    tokens_BS = np.arange(np.prod(shape)).reshape(shape)
    seen = []

    def function(tokens_BS, segments_BS):
        seen.append(tokens_BS.shape)
        return tokens_BS[:, :, None] * np.arange(3), segments_BS + 1

    tripled, added = in_row_blocks(function, tokens_BS, -tokens_BS)
    assert set(seen) == {part}
    np.testing.assert_array_equal(tripled, tokens_BS[:, :, None] * np.arange(3))
    np.testing.assert_array_equal(added, 1 - tokens_BS)
