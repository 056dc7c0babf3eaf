"""Relative position buckets against T5X and the published boundaries; the bias against indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from t5jax.model.config import T5Config
from t5jax.model.position import RelativePositionBias, relative_position_buckets

PUBLISHED = {"num_buckets": 32, "max_distance": 128}
# First distance of each bucket, from the formula with 32 buckets and distance 128.
BOTH_WAYS = (*range(8), 8, 12, 16, 23, 32, 46, 64, 91)  # of each direction's 16 buckets
CAUSAL = (*range(16), 16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113)
FAR = 1000


def expected(distance: int, first_distances) -> int:
    """The last bucket that begins at or before this distance."""
    return max(b for b, first in enumerate(first_distances) if first <= distance)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("length", [20, 100])
def test_t5x_buckets(real_data, bidirectional, length):
    golden = np.load(real_data / "golden/t5x/relative_position_buckets.npz")
    prefix = f"bidirectional_{bidirectional}/{length}"
    got = relative_position_buckets(
        golden[f"{prefix}/relative_position"], bidirectional=bidirectional, **PUBLISHED
    )
    np.testing.assert_array_equal(got, golden[f"{prefix}/bucket"])


def test_boundaries_in_both_directions():
    assert len(BOTH_WAYS) == 16
    distance = np.arange(-FAR, FAR + 1)
    got = relative_position_buckets(distance, bidirectional=True, **PUBLISHED)
    want = [expected(abs(d), BOTH_WAYS) + (16 if d > 0 else 0) for d in distance]
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.int32


def test_boundaries_of_the_decoder():
    assert len(CAUSAL) == 32
    distance = np.arange(-FAR, FAR + 1)
    got = relative_position_buckets(distance, bidirectional=False, **PUBLISHED)
    want = [expected(max(-d, 0), CAUSAL) for d in distance]  # the future: bucket 0
    np.testing.assert_array_equal(got, want)


def make_bias() -> RelativePositionBias:
    cfg = T5Config(num_heads=3, relpos_num_buckets=12, relpos_max_distance=19)
    return RelativePositionBias(cfg, rngs=nnx.Rngs(params=5))


def by_indexing(bias: RelativePositionBias, query_length: int, key_length: int, bidirectional):
    distance = np.arange(key_length)[None] - np.arange(query_length)[:, None]
    buckets = relative_position_buckets(
        distance, bidirectional=bidirectional, num_buckets=12, max_distance=19
    )
    return bias.embedding[...][:, buckets]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("lengths", [(29, 29), (7, 31), (31, 7), (1, 5), (5, 1)])
def test_bias_equals_indexing(bidirectional, lengths):
    bias = make_bias()
    got = bias(*lengths, bidirectional=bidirectional).dense_NTS
    assert got.shape == (3, *lengths)
    np.testing.assert_array_equal(got, by_indexing(bias, *lengths, bidirectional))


def test_gradient_equals_that_of_indexing():
    bias, (T, S) = make_bias(), (29, 23)
    weights = np.random.default_rng(0).normal(size=(3, T, S)).astype(np.float32)
    got = jax.grad(lambda bias: (bias(T, S, bidirectional=True).dense_NTS * weights).sum())(bias)
    want = jax.grad(lambda bias: (by_indexing(bias, T, S, True) * weights).sum())(bias)
    np.testing.assert_allclose(got.embedding[...], want.embedding[...], rtol=1e-5, atol=1e-5)
    unused = np.flatnonzero((np.asarray(got.embedding[...]) == 0).all(axis=0))
    assert unused.tolist() == [6]  # "after the query, at distance 0" does not exist


@pytest.mark.parametrize("bidirectional", [True, False])
def test_at_is_a_row_of_the_whole(bidirectional):
    bias, length = make_bias(), 23
    whole = bias(length, length, bidirectional=bidirectional).dense_NTS
    at = lambda index: bias.at(index, length, bidirectional=bidirectional)
    rows = jax.jit(jax.vmap(at))(np.arange(length))
    np.testing.assert_array_equal(rows, np.swapaxes(whole, 0, 1))


def test_gradient_of_a_bfloat16_table_counts_every_distance():
    """Ones of a thousand distances: as a bfloat16 sum the last bucket's would stop at 256."""
    graph, table = nnx.split(make_bias())
    total = lambda table: nnx.merge(graph, table).by_distance(distance, bidirectional=True).sum()
    distance = np.arange(-1000, 1001)
    table = jax.tree.map(lambda x: x.astype(jnp.bfloat16), table)
    got = np.asarray(jax.jit(jax.grad(total))(table).embedding[...], np.float32)
    want = np.asarray(jax.grad(total)(nnx.split(make_bias())[1]).embedding[...])
    assert want.max() > 900
    np.testing.assert_allclose(got, want, rtol=0.005)
