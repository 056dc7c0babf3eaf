"""The loss on several devices: values, gradients, what is exchanged; the number of chunks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.sharding import MESH_AXES, MeshConfig, use_mesh
from t5jax.training.chunked_loss import chunks_by_size, summed_cross_entropy
from tests.training.test_step_collectives import sums

B, T, D, V = 8, 5, 12, 46
LOSS = functools.partial(summed_cross_entropy, z_loss=0.01, label_smoothing=0.1)


def arrays(rows=B):
    rng = np.random.default_rng(1)
    hidden, table = rng.normal(size=(rows, T, D)), rng.normal(size=(D, V))
    targets, scales = rng.integers(0, V, (rows, T)), rng.integers(0, 2, (rows, T))
    return np.float32(hidden), np.float32(table), np.int32(targets), np.float32(scales)


def run(num_chunks):
    """Of (hidden, table, targets, scales): value, per-token values and gradients, not jitted."""

    def call(*arrays):
        loss = lambda hidden, table: LOSS(hidden, table, *arrays[2:], num_chunks=num_chunks)
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(*arrays[:2])

    return call


@functools.cache
def whole(rows=B):
    return jax.jit(run(1))(*arrays(rows))


def compiled(shape, num_chunks, rows=B):
    """For a mesh of some of the devices; the table is sharded as a run's."""
    config = MeshConfig(**dict(zip(MESH_AXES, shape, strict=True)))
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    mesh = Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    of_rows = P(("data", "fsdp")) if rows == B else P()
    place = lambda spec: NamedSharding(mesh, spec)
    shardings = [place(s) for s in (of_rows, P("fsdp", "tensor"), of_rows, of_rows)]
    abstract = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
        for x, s in zip(arrays(rows), shardings, strict=True)
    ]
    results = (place(P()), place(of_rows)), (shardings[0], shardings[1])
    with use_mesh(mesh, config.logical_axis_rules):
        return jax.jit(run(num_chunks), out_shardings=results).lower(*abstract).compile()


@pytest.mark.parametrize(
    ("shape", "num_chunks", "rows"),
    [
        ((4, 1, 1), 3, B),
        ((1, 4, 1), 1, B),
        ((2, 2, 1), 3, B),
        ((1, 2, 2), 2, B),
        ((1, 1, 2), None, B),
        ((2, 2, 1), 2, 3),  # rows that the devices cannot share equally
    ],
)
def test_every_mesh(shape, num_chunks, rows):
    program = compiled(shape, num_chunks, rows)
    got = program(*jax.device_put(arrays(rows), program.input_shardings[0]))
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(whole(rows)), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1), (2, 2, 1)])
def test_the_tables_gradient_is_exchanged_once(shape):
    """After the last chunk; under FSDP each device is given the sum of its part and no more."""
    text = compiled(shape, 3).as_text()
    found = sums(text, shape)
    assert not [x for x in found if x[0]]
    assert text.count(" while(") == 1
    part = D * V // shape[1]
    assert max(number for *_, number in found) <= part + 1  # and the summed objective
    assert ("reduce-scatter" in text) == (shape[1] > 1)


@pytest.mark.parametrize(
    ("num_tokens", "vocab_size", "chunks"),
    [
        (8 * 114, 32128, 1),  # 117 MB of logits
        (32 * 114, 32128, 4),
        (128 * 114, 32128, 14),
        (32 * 114, 250112, 4),  # of 1024 tokens at least, however large the vocabulary
        (1, 250112, 1),
        (64 * 1024, 384, 1),
    ],
)
def test_number_of_chunks(num_tokens, vocab_size, chunks):
    assert chunks_by_size(num_tokens, vocab_size) == chunks


def test_the_rule_counts_the_tokens_and_vocabulary_of_a_device():
    """Of 8 x 1024 tokens and 64k ids, 2 GB of logits, a device has an eighth."""
    rows, length, vocab = 8, 1024, 2**16

    def shapes(shape):
        config = MeshConfig(**dict(zip(MESH_AXES, shape, strict=True)))
        mesh = config.build()
        spec = lambda *x: jax.ShapeDtypeStruct(x, jnp.float32)
        args = spec(rows, length, D), spec(D, vocab), spec(rows, length), spec(rows, length)
        with use_mesh(mesh, config.logical_axis_rules):
            return str(jax.make_jaxpr(run(None))(*args))

    assert "length=" not in shapes((8, 1, 1))  # 1024 tokens
    assert "length=2" in shapes((1, 2, 4))  # 4096 tokens, 16k ids: 268 MB
