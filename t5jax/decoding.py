"""Generating text: greedy decoding with cached keys and values.

Shape suffixes: B rows, S source length, T output length.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.model.t5 import EncoderDecoder
from t5jax.training.losses import EOS_ID


@functools.partial(jax.jit, static_argnames=("model_def", "max_length"))
def greedy(
    model_def: nnx.GraphDef, params: dict, tokens_BS: jax.Array, *, max_length: int, num_ids: int
) -> jax.Array:
    """The likeliest next token at every position, until all rows have ended.

    Args:
      params: in the dtype to compute in.
      tokens_BS: int32, 0 is padding; every row ends with EOS.
      num_ids: ids of the vocabulary; the table's spare rows above are never chosen.

    Returns int32 [B, max_length]: tokens up to and including EOS, 0 after it.
    """
    model: EncoderDecoder = nnx.merge(model_def, params)
    B = tokens_BS.shape[0]

    def unfinished(carry):
        index, _, ended_B, _, _ = carry
        return (index < max_length) & ~jnp.all(ended_B)

    def step(carry):
        index, last_B, ended_B, output_BT, state = carry
        logits_BV, state = model.decode(last_B, index, state)
        allowed_V = jnp.arange(logits_BV.shape[1]) < num_ids
        next_B = jnp.argmax(jnp.where(allowed_V, logits_BV, -jnp.inf), axis=-1).astype(jnp.int32)
        next_B = jnp.where(ended_B, 0, next_B)
        return (
            index + 1,
            next_B,
            ended_B | (next_B == EOS_ID),
            output_BT.at[:, index].set(next_B),
            state,
        )

    start = jnp.zeros(B, jnp.int32)  # padding is also what starts a T5 decoder
    carry = (
        jnp.int32(0),
        start,
        # Rows without input (filling up a batch) have nothing to say.
        jnp.all(tokens_BS == 0, axis=1),
        jnp.zeros((B, max_length), jnp.int32),
        model.start_decoding(tokens_BS, max_length),
    )
    return jax.lax.while_loop(unfinished, step, carry)[3]
