"""Flax's msgpack files, against Flax's own writer."""

import ml_dtypes
import numpy as np
import pytest
from flax import serialization

from t5jax.checkpoints import BlockArray
from t5jax.convert import msgpack_file
from t5jax.errors import CheckpointError

RNG = np.random.default_rng(0)
TREE = {
    "version": 3,
    "negative": -70000,
    "large": 2**40,
    "truth": True,
    "nothing": None,
    "share": 0.25,
    "text": "ü" * 50,
    "x" * 300: {"many": {str(i): np.array(i, np.int32) for i in range(70)}},
    "target": {
        "matrix": RNG.normal(size=(9, 4)).astype(np.float32),
        "half": RNG.normal(size=(3,)).astype(ml_dtypes.bfloat16),
        "long": RNG.normal(size=(300, 70)).astype(np.float64),
        "number": np.float32(1.5),
    },
    "spec": {"driver": "zarr", "kvstore": {"driver": "file", "path": "a"}, "dtype": "float32"},
}


def compare(found, want):
    if isinstance(want, dict):
        assert set(found) == set(want)
        for name in want:
            compare(found[name], want[name])
    elif isinstance(found, BlockArray):
        want = np.asarray(want)
        assert (found.shape, found.dtype) == (want.shape, want.dtype)
        np.testing.assert_array_equal(found.whole(), want)
    else:
        assert found == want


@pytest.mark.parametrize("chunk", [2**30, 100])
def test_a_tree_of_everything(tmp_path, monkeypatch, chunk):
    """Large arrays lie in pieces; the limit is a gigabyte, or here a hundred bytes."""
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", chunk)
    file = tmp_path / "checkpoint"
    file.write_bytes(serialization.msgpack_serialize(TREE))
    found = msgpack_file.read_msgpack(file)
    compare(found, TREE)
    rows = found["target"]["matrix"].read((slice(2, 5), slice(1, 3)))
    np.testing.assert_array_equal(rows, TREE["target"]["matrix"][2:5, 1:3])


def test_leaves_by_path(tmp_path):
    flat = msgpack_file.flatten_tree(TREE)
    assert flat["target/matrix"] is TREE["target"]["matrix"]
    assert flat["spec"] is TREE["spec"]


def test_cut_short_anywhere(tmp_path):
    data = serialization.msgpack_serialize(TREE)
    file = tmp_path / "checkpoint"
    for length in (0, 1, 7, 100, 400, 2000, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"truncated|not a Flax msgpack"):
            msgpack_file.read_msgpack(file)


@pytest.mark.parametrize("data", [b"\xc1", b"\x05", b"hello", b"\x81\xa1a\xc7\x01\x01\x00"])
def test_something_else(tmp_path, data):
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(CheckpointError):
        msgpack_file.read_msgpack(tmp_path / "checkpoint")
