"""The largest in parts: the values and places of JAX's own top-k, of equals too."""

import jax
import numpy as np
import pytest

from t5jax.decoding.top_k import largest


@pytest.mark.parametrize("num", [1, 7])
@pytest.mark.parametrize("size", [128 * 9, 1153, 3001])
@pytest.mark.parametrize("different", [3, 40, 10**6])
def test_same_values_and_places_as_top_k(size, num, different):
    rng = np.random.default_rng(size + num)
    x = rng.integers(0, different, (3, 5, size)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = -np.inf
    x[1, 2] = -np.inf
    x[2, 4, 5:] = -np.inf
    values, places = jax.jit(largest, static_argnums=1)(x, num)
    want_values, want_places = jax.lax.top_k(x, num)
    np.testing.assert_array_equal(values, want_values)
    np.testing.assert_array_equal(places, want_places)


def test_all_of_few():
    x = np.array([[0.5, 2.0, -1.0, 2.0]], np.float32)
    values, places = largest(x, 4)
    np.testing.assert_array_equal(values, [[2.0, 2.0, 0.5, -1.0]])
    np.testing.assert_array_equal(places, [[1, 3, 0, 2]])
