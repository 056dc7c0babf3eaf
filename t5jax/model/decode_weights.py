"""Weight layout for decoding: unstacked layers, transposed for small batches on CPUs.

Shape suffixes: D emb_dim, V vocab, R rows.
"""

from typing import NamedTuple

from flax import nnx

from t5jax.model.layer_stack import unstack
from t5jax.model.layers import MLP, Adapter, Attention, TransformerBlock
from t5jax.model.matmul import TransposedParam, is_small_batch, transpose_weights


class DecodeWeights(NamedTuple):
    """The weights that a decoding step reads: the layers, and the logits table [D, V]."""

    layers: list[TransformerBlock]
    table: nnx.Param  # a TransposedParam for a small batch


def decode_weights(model, num_rows: int, devices: int | None = None) -> DecodeWeights:
    """A copy of the decoder's weights for products of `num_rows` rows, beams included.

    `devices` compute them together (default: those of the program that is being traced). Sliced
    here, outside the decoding loop, which would otherwise copy every layer at every step.
    """
    layers = unstack(model.decoder.layers, model.decoder.num_layers)
    table_DV = model.logits_table()
    if not is_small_batch(num_rows, devices):
        return DecodeWeights(layers, nnx.Param(table_DV))
    for layer in layers:
        transpose_block(layer)
    return DecodeWeights(layers, TransposedParam(table_DV.T))


def transpose_block(block: TransformerBlock) -> None:
    """Transposes the matrices of a block for small batches."""
    for _, module in nnx.iter_modules(block):
        if isinstance(module, Attention | MLP | Adapter):
            transpose_weights(module)
