"""The safetensors format, read and written a block at a time."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from t5jax.convert import safetensors_files
from t5jax.convert.lazy_arrays import InMemory, Transposed
from t5jax.convert.safetensors_files import INDEX, ONE_FILE, read_directory, write_directory
from t5jax.errors import CheckpointError
from tests.convert.foreign import write_safetensors

RNG = np.random.default_rng(0)
ARRAYS = {
    "matrix": RNG.normal(size=(11, 7)).astype(np.float32),
    "vector": RNG.normal(size=13).astype(np.float32),
    "half": RNG.normal(size=(5, 3)).astype(ml_dtypes.bfloat16),
    "number": np.array(2.5, np.float32),
    "double": RNG.normal(size=(2, 2)),
}


def held(arrays):
    return {name: InMemory(array) for name, array in arrays.items()}


def assert_same(found, want):
    assert set(found) == set(want)
    for name, array in want.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name].whole(), array)


def test_written_and_read(tmp_path):
    assert write_directory(tmp_path, held(ARRAYS), 10**9) == [ONE_FILE]
    assert_same(read_directory(tmp_path), ARRAYS)


def test_another_writer_s_file(tmp_path):
    arrays = {name: x for name, x in ARRAYS.items() if name != "number"}
    write_safetensors(tmp_path / ONE_FILE, arrays)
    assert_same(read_directory(tmp_path), arrays)


@pytest.mark.parametrize("block", [(11, 2), (3, 7), (1, 7), (4, 5)])
def test_blocks_are_written_where_they_belong(tmp_path, block):
    """Bands of rows, bands of columns, and parts of both, into a file of rows."""

    class InBlocks(InMemory):
        def block_shape(self, limit=0):
            return block

    write_directory(tmp_path, {"x": InBlocks(ARRAYS["matrix"]), "y": InMemory(np.ones(3))}, 10**9)
    assert_same(read_directory(tmp_path), {"x": ARRAYS["matrix"], "y": np.ones(3)})


@pytest.mark.parametrize("rows", [slice(0, 11), slice(3, 4), slice(10, 11)])
def test_a_part_is_read(tmp_path, rows):
    write_directory(tmp_path, held(ARRAYS), 10**9)
    array = read_directory(tmp_path)["matrix"]
    for columns in (slice(0, 7), slice(2, 5)):
        want = ARRAYS["matrix"][rows, columns]
        np.testing.assert_array_equal(array.read((rows, columns)), want)
        np.testing.assert_array_equal(Transposed(array).read((columns, rows)), want.T)


def test_shards(tmp_path):
    files = write_directory(tmp_path, held(ARRAYS), 100)
    assert files == [f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    index = json.loads((tmp_path / INDEX).read_text())
    assert set(index["weight_map"]) == set(ARRAYS)
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in ARRAYS.values())
    assert_same(read_directory(tmp_path), ARRAYS)
    assert set(safetensors_files.read_file(tmp_path / files[0])) == {"matrix"}


def test_a_missing_shard(tmp_path):
    files = write_directory(tmp_path, held(ARRAYS), 100)
    (tmp_path / files[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{files[1]} is missing"):
        read_directory(tmp_path)


def test_an_index_of_other_files(tmp_path):
    files = write_directory(tmp_path, held(ARRAYS), 100)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["somewhere"] = files[0]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"somewhere is in .* but it is not"):
        read_directory(tmp_path)


def test_an_index_that_is_none(tmp_path):
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match="is not an index"):
        read_directory(tmp_path)


def test_cut_short_anywhere(tmp_path):
    """Whatever is missing at the end is noticed before a number is read."""
    write_directory(tmp_path, held(ARRAYS), 10**9)
    data = (tmp_path / ONE_FILE).read_bytes()
    for length in (0, 5, 8, 100, len(data) - 200, len(data) - 1):
        (tmp_path / ONE_FILE).write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=r"cut short|not a safetensors file"):
            read_directory(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "F4"}, "damaged"),
        ({"dtype": "F8_E4M3", "shape": [52]}, "type F8_E4M3, which is not one of F64, F32"),
        ({"shape": [3]}, "damaged"),
        ({"data_offsets": [0]}, "damaged"),
        ({"data_offsets": [-8, 44]}, "damaged"),
        ({"shape": [12], "data_offsets": [4, 52]}, "damaged"),  # a hole
        ({"shape": [12], "data_offsets": [0, 48]}, "damaged"),  # bytes of no array
    ],
)
def test_a_damaged_header(tmp_path, change, message):
    entry = {"dtype": "F32", "shape": [13], "data_offsets": [0, 52]} | change
    text = json.dumps({"x": entry}).encode()
    (tmp_path / ONE_FILE).write_bytes(len(text).to_bytes(8, "little") + text + bytes(52))
    with pytest.raises(CheckpointError, match=message):
        read_directory(tmp_path)


def test_a_file_cut_after_it_was_looked_at(tmp_path):
    write_directory(tmp_path, held(ARRAYS), 10**9)
    matrix = read_directory(tmp_path)["matrix"]
    data = (tmp_path / ONE_FILE).read_bytes()
    (tmp_path / ONE_FILE).write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        matrix.read((slice(0, 2), slice(0, 7)))


def test_the_library_agrees(tmp_path):
    write_directory(tmp_path, held(ARRAYS), 10**9)
    found = safetensors.numpy.load_file(tmp_path / ONE_FILE)
    assert set(found) == set(ARRAYS)
    for name, x in ARRAYS.items():
        np.testing.assert_array_equal(found[name], x)
    safetensors.numpy.save_file(ARRAYS, tmp_path / ONE_FILE, metadata={"format": "pt"})
    assert_same(read_directory(tmp_path), ARRAYS)
