"""Decode weights: transposed for small batches, every matrix and nothing else."""

import jax
import numpy as np
import pytest
from flax import nnx

from t5jax.model.decode_weights import decode_weights, transpose_block
from t5jax.model.layer_stack import unstack
from t5jax.model.matmul import TransposedParam
from tests.model import tiny_t5


def shapes(block) -> dict[str, tuple[int, ...]]:
    flat = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(block)))
    return {"/".join(str(key.key) for key in path): leaf.shape for path, leaf in flat}


def test_matrices_of_a_block_are_transposed_and_nothing_else():
    cfg = tiny_t5.config("umT5", adapter_dim=4)  # with a table of position biases of its own
    model = tiny_t5.build(cfg, tiny_t5.random_params(cfg))
    block = unstack(model.decoder.layers, 2)[0]
    before = shapes(block)
    transpose_block(block)
    after = shapes(block)
    kept = {name for name in before if after[name] == before[name]}
    assert {name.split("/")[-1] for name in kept} == {"scale", "embedding"}
    assert all(after[name] == before[name][::-1] for name in before.keys() - kept)


@pytest.mark.parametrize("variant", ["1.0", "1.1"])  # the table of the logits is tied, and not
@pytest.mark.parametrize(("num_rows", "few"), [(2, False), (24, True), (65, False)])
def test_a_small_batch_gets_transposed_weights_of_the_same_values(variant, num_rows, few):
    cfg = tiny_t5.config(variant)
    model = tiny_t5.build(cfg, tiny_t5.random_params(cfg))
    layout = decode_weights(model, num_rows, devices=1)
    assert isinstance(layout.table, TransposedParam) == few
    turned = lambda x: x[...].T if few else x[...]
    np.testing.assert_array_equal(turned(layout.table), model.logits_table())
    for layer, query in zip(layout.layers, model.decoder.layers.self_attention.query, strict=True):
        np.testing.assert_array_equal(turned(layer.self_attention.query), query)
