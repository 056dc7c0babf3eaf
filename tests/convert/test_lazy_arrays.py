"""Views of arrays read like the arrays that they stand for, whatever region is asked for."""

import ml_dtypes
import numpy as np
import pytest

from t5jax.convert.lazy_arrays import (
    AxisSlice,
    Cast,
    InMemory,
    MergedAxes,
    Stacked,
    Transposed,
    Zeros,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 5)).astype(np.float32)
CUBE = RNG.normal(size=(4, 6, 3)).astype(np.float32)
LAYERS = [RNG.normal(size=(5, 7)).astype(np.float32) for _ in range(4)]

VIEWS = {
    "in memory": (InMemory(X), X),
    "a number": (InMemory(np.int32(7)), np.array(7, np.int32)),
    "transposed": (Transposed(InMemory(X)), X.T),
    "stacked": (Stacked([InMemory(x) for x in LAYERS]), np.stack(LAYERS)),
    "stacked, transposed": (
        Stacked([Transposed(InMemory(x)) for x in LAYERS]), np.stack([x.T for x in LAYERS])
    ),
    "layer": (AxisSlice(InMemory(CUBE), 2), CUBE[2]),
    "layer of the second axis": (AxisSlice(InMemory(CUBE), 4, 1), CUBE[:, 4]),
    "layer of a stack": (AxisSlice(Stacked([InMemory(x) for x in LAYERS]), 3), LAYERS[3]),
    "heads merged behind": (MergedAxes(InMemory(CUBE), 1), CUBE.reshape(4, 18)),
    "heads merged in front": (MergedAxes(InMemory(CUBE), 0), CUBE.reshape(24, 3)),
    "cast": (Cast(InMemory(X), ml_dtypes.bfloat16), X.astype(ml_dtypes.bfloat16)),
    "zeros": (Zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_reads_like_the_array(name):
    view, want = VIEWS[name]
    assert view.shape == want.shape
    assert view.dtype == want.dtype
    assert view.nbytes == want.nbytes
    np.testing.assert_array_equal(view.whole(), want)
    rng = np.random.default_rng(1)
    for _ in range(30):
        edges = [sorted(rng.choice(size + 1, 2, replace=False)) for size in want.shape]
        region = tuple(slice(int(a), int(b)) for a, b in edges)
        np.testing.assert_array_equal(view.read(region), want[region])


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("limit", [1, 30, 60, 200, 10**9])
def test_blocks_are_a_grid_over_the_array(name, limit):
    view, want = VIEWS[name]
    got = np.zeros(want.shape, want.dtype)
    seen = np.zeros(want.shape, int)
    for region in view.regions(limit):
        got[region] = view.read(region)
        seen[region] += 1
    assert (seen == 1).all()
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ["in memory", "transposed", "zeros", "cast"])
def test_blocks_are_as_small_as_asked_for(name):
    view, _ = VIEWS[name]
    assert max(view.read(region).nbytes for region in view.regions(40)) <= 40


def test_blocks_lie_along_what_is_stored_together():
    """A transposed matrix is cut along its second axis: that is the file's first."""
    assert Transposed(InMemory(X)).block_shape(40)[0] == 5
    assert InMemory(X).block_shape(40)[1] == 5


def test_large_layers_are_blocks_of_their_own():
    large = [Zeros((600, 600), np.float32)] * 5
    assert Stacked(large).block_shape() == (1, 600, 600)
    small = [Zeros((100,), np.float32)] * 5
    assert Stacked(small).block_shape() == (5, 100)
