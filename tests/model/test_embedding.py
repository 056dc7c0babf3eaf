"""Token embedding on every layout: vectors, the gradient of the table, what devices exchange."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from t5jax.model.embedding import embed_tokens
from t5jax.sharding import MeshConfig, use_mesh

ROWS, LENGTH, VOCAB, WIDTH = 16, 5, 72, 24
LAYOUTS = {
    "replicas": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 1, "tensor": 8},
    "all three": {"data": 2, "fsdp": 2, "tensor": 2},
    "sharded over all rows": {"data": 2, "fsdp": 4, "embed": ("data", "fsdp")},
    "rows in another order": {"data": 2, "fsdp": 4, "batch": ("fsdp", "data")},
    "vectors over tensor": {
        "data": 2, "fsdp": 2, "tensor": 2, "vocab": (), "embed": ("tensor",), "heads": (),
        "mlp": (),
    },
}  # fmt: skip


def compiled(layout: str, dtype: str):
    """Vectors and the gradient of Σ vectors · cotangents, of arrays placed as in a run."""
    config = MeshConfig(**LAYOUTS[layout])
    config.check()
    mesh, rules = config.build(), config.logical_axis_rules
    place = lambda *axes: NamedSharding(mesh, P(*(rules[a] if a else None for a in axes)))
    table, rows = place("vocab", "embed"), place("batch")
    spec = lambda shape, dtype, sharding: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def run(table, tokens, cotangents):
        vectors, pull = jax.vjp(lambda table: embed_tokens(table, tokens, dtype), table)
        return vectors, pull(cotangents)[0]

    with use_mesh(mesh, rules):
        return (
            jax.jit(run, out_shardings=(rows, table))
            .lower(
                spec((VOCAB, WIDTH), jnp.float32, table),
                spec((ROWS, LENGTH), jnp.int32, rows),
                spec((ROWS, LENGTH, WIDTH), dtype, rows),
            )
            .compile()
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout):
    rng = np.random.default_rng(3)
    table = rng.normal(size=(VOCAB, WIDTH)).astype(np.float32)
    tokens = rng.integers(0, VOCAB, (ROWS, LENGTH)).astype(np.int32)
    tokens[:, 1] = 7  # often
    tokens[5:9, 3] = -1  # padding that is no token
    cotangents = jnp.asarray(rng.normal(size=(*tokens.shape, WIDTH)) + 1.0, jnp.bfloat16)
    program = compiled(layout, "bfloat16")
    arguments = jax.device_put((table, tokens, cotangents), program.input_shardings[0])
    vectors, gradient = program(*arguments)
    want = np.zeros((VOCAB, WIDTH))
    np.add.at(want, tokens, np.asarray(cotangents, np.float64))
    np.testing.assert_array_equal(vectors, jnp.asarray(table, jnp.bfloat16)[tokens])
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["fsdp", "all three"])
def test_no_device_is_given_the_table(layout):
    text = compiled(layout, "float32").as_text()
    sizes = LAYOUTS[layout]
    height = VOCAB // sizes.get("tensor", 1)
    assert f"[{height},{WIDTH // sizes['fsdp']}]" in text
    assert f"[{height},{WIDTH}]" not in text
    assert re.search(r"all-to-all", text)


def test_without_a_mesh():
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    tokens = np.array([[2, 0], [2, 2], [1, -1]], np.int32)
    run = lambda table: embed_tokens(table, tokens, jnp.dtype("bfloat16"))
    vectors, pull = jax.vjp(run, jnp.asarray(table))
    np.testing.assert_array_equal(vectors, table[tokens])
    (gradient,) = pull(jnp.ones_like(vectors))
    np.testing.assert_array_equal(gradient[:, 0], [1, 1, 3, 1])
