"""The fingerprint against an independent one in NumPy, on every dtype, mesh and kind of damage."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from t5jax.checkpoints import fingerprint
from t5jax.checkpoints.fingerprint import fingerprints, leaves_by_path
from tests.marks import slow_but

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool", "int16"]
DTYPES += ["float8_e4m3fn", "int4", "complex64"]


def mesh(shape):
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)


def random_array(shape, dtype, seed=0):
    values = np.random.default_rng(seed).integers(-7, 8, shape) / 3
    if dtype == "complex64":
        return (values + 1j * values[::-1]).astype(dtype)
    if dtype in ("uint32", "uint8"):
        values = np.abs(values)
    return values.astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))


def numpy_fingerprint(array: np.ndarray) -> list[int]:
    """Word by word in Python's integers, from the formula of the module's docstring."""
    if array.dtype in (np.bool_, ml_dtypes.int4):
        words = [int(v) % 2**32 for v in array.reshape(-1)]
    else:
        width = min(array.dtype.itemsize, 4)
        data = np.ascontiguousarray(array).tobytes()
        words = [int.from_bytes(data[i : i + width], "little") for i in range(0, len(data), width)]
    mixed = 0
    for i, word in enumerate(words):
        x = word ^ ((i * 2654435761 + 2654435769) % 2**32)
        x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
        x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
        mixed += x ^ (x >> 16)
    return [sum(words) % 2**32, mixed % 2**32]


@pytest.mark.parametrize(
    "dtype", slow_but(["float32", "bfloat16", "int8", "bool", "int4", "complex64"], DTYPES)
)
def test_equals_the_formula(dtype):
    arrays = {
        "matrix": random_array((5, 3, 7), dtype),
        "vector": random_array((11,), dtype, 1),
        "scalar": random_array((), dtype, 2) if dtype != "complex64" else random_array((1,), dtype),
        "empty": random_array((0, 3), dtype),
    }
    got = fingerprints({path: jnp.asarray(array) for path, array in arrays.items()})
    assert got == {path: numpy_fingerprint(array) for path, array in arrays.items()}
    assert got["empty"] == [0, 0]


def test_equal_on_every_mesh():
    array = random_array((6, 8, 16), "float32")
    expected = numpy_fingerprint(array)
    for shape in [(2, 2, 2), (1, 8, 1), (8, 1, 1), (1, 2, 4)]:
        specs = [PartitionSpec(), PartitionSpec(None, "fsdp", "tensor")]
        specs.append(PartitionSpec(None, ("data", "fsdp"), "tensor"))
        for spec in specs:
            placed = jax.device_put(array, NamedSharding(mesh(shape), spec))
            assert fingerprints({"x": placed})["x"] == expected, (shape, spec)


def test_nothing_travels_between_devices():
    sharding = NamedSharding(mesh((2, 2, 2)), PartitionSpec("data", ("fsdp", "tensor")))
    compiled = fingerprint._sharded(sharding, 2).lower(
        jax.ShapeDtypeStruct((64, 128), jnp.float32, sharding=sharding)
    )
    text = compiled.compile().as_text()
    assert not re.search(r"all-reduce|all-gather|collective-permute|all-to-all", text)


def test_arrays_on_different_devices_together():
    small = jax.device_put(np.int32(17), jax.devices()[3])
    spread = jax.device_put(
        random_array((4, 6), "bfloat16"), NamedSharding(mesh((2, 2, 2)), PartitionSpec("fsdp"))
    )
    got = fingerprints({"spread": spread, "small": small})
    assert got["small"] == numpy_fingerprint(np.array(17, np.int32))
    assert got["spread"] == numpy_fingerprint(np.asarray(spread))


def test_prng_keys_differ_and_equal_their_data():
    keys = jax.random.split(jax.random.key(5), 3)
    assert fingerprints({"k": keys})["k"] == numpy_fingerprint(
        np.asarray(jax.random.key_data(keys))
    )


def test_every_flip_swap_and_zeroing_is_seen():
    rng = np.random.default_rng(3)
    # Small integers as floats: their low 16 bits are 0, which defeats sums weighted linearly.
    clean = rng.integers(0, 9, (512, 256)).astype(np.float32)
    flat_size = clean.size
    expected = fingerprints({"x": jnp.asarray(clean)})["x"]
    for trial in range(300):
        words = clean.view(np.uint32).reshape(-1).copy()
        i, j = rng.integers(0, flat_size, 2)
        if trial % 3 == 0:
            words[i] ^= np.uint32(1 << rng.integers(0, 32))
        elif trial % 3 == 1:
            j = (i + 65536) % flat_size
            words[[i, j]] = words[[j, i]]
        else:
            words[i : i + 97] = 0
        damaged = words.view(np.float32).reshape(clean.shape)
        if np.array_equal(words, clean.view(np.uint32).reshape(-1)):
            continue
        assert fingerprints({"x": jnp.asarray(damaged)})["x"] != expected, trial


def test_nan_payloads_and_negative_zero_count():
    zeros = fingerprints({"x": jnp.zeros(3)})
    assert fingerprints({"x": -jnp.zeros(3)}) != zeros
    assert fingerprints({"x": jnp.full(3, jnp.nan)}) != zeros


def test_a_host_array_is_refused_by_name():
    with pytest.raises(TypeError, match="params/w is a ndarray"):
        fingerprints({"params/w": np.zeros(3)})


def test_paths_are_readable_and_unique():
    tree = {"params": {"w": 1, "layers": [2, 3]}}
    assert list(leaves_by_path(tree)) == ["params/layers/0", "params/layers/1", "params/w"]
    with pytest.raises(ValueError, match="two leaves"):
        leaves_by_path({"a": {"b": 1}, "a/b": 2})
