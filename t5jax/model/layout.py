"""Where a decoder's weights lie: layers stacked, one by one, or turned for products of few rows.

Shape suffixes: D emb_dim, V vocab, R rows.
"""

from typing import NamedTuple

from flax import nnx

from t5jax.model.layer_stack import unstack
from t5jax.model.layers import MLP, Adapter, Attention, TransformerBlock
from t5jax.model.matmul import FewRowsParam, are_few_rows, turn_weights


class DecodingLayout(NamedTuple):
    """What decoding reads at every position: the layers, and the table [D, V] of the logits."""

    layers: list[TransformerBlock]
    table: nnx.Param  # a FewRowsParam where rows are few


def lay_out(model, num_rows: int, devices: int | None = None) -> DecodingLayout:
    """A copy of the decoder's weights for products of `num_rows` rows: of every row's every beam.

    `devices` work on these rows together (default: those of the program that is being traced).
    Sliced here, not where they are used: in a loop every layer would be copied every time.
    """
    layers = unstack(model.decoder.layers, model.decoder.num_layers)
    table_DV = model.logits_table()
    if not are_few_rows(num_rows, devices):
        return DecodingLayout(layers, nnx.Param(table_DV))
    for layer in layers:
        turn_block(layer)
    return DecodingLayout(layers, FewRowsParam(table_DV.T))


def turn_block(block: TransformerBlock) -> None:
    """Lays the matrices of a block out for few rows."""
    for _, module in nnx.iter_modules(block):
        if isinstance(module, Attention | MLP | Adapter):
            turn_weights(module)
