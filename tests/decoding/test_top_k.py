"""Top-k in parts: the values and indices of `jax.lax.top_k`, of equals too."""

import jax
import numpy as np
import pytest

from t5jax.decoding.top_k import fast_top_k


@pytest.mark.parametrize("num", [1, 7])
@pytest.mark.parametrize("size", [128 * 9, 1153, 3001])
@pytest.mark.parametrize("different", [3, 40, 10**6])
def test_same_values_and_indices_as_top_k(size, num, different):
    rng = np.random.default_rng(size + num)
    x = rng.integers(0, different, (3, 5, size)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = -np.inf
    x[1, 2] = -np.inf
    x[2, 4, 5:] = -np.inf
    values, indices = jax.jit(fast_top_k, static_argnums=1)(x, num)
    want_values, want_indices = jax.lax.top_k(x, num)
    np.testing.assert_array_equal(values, want_values)
    np.testing.assert_array_equal(indices, want_indices)


def test_k_equal_to_the_size():
    x = np.array([[0.5, 2.0, -1.0, 2.0]], np.float32)
    values, indices = fast_top_k(x, 4)
    np.testing.assert_array_equal(values, [[2.0, 2.0, 0.5, -1.0]])
    np.testing.assert_array_equal(indices, [[1, 3, 0, 2]])
