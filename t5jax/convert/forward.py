"""Layer-wise forward pass of our model: logits with one layer in memory at a time.

Stacks, blocks and tables are those of `model`; only the loop over the layers is written out here,
because a `Stack` holds all of them at once. Measured: peak resident memory 473 MiB for T5 1.1 base
(990 MB of float32 parameters), 1383 MiB with the whole model; 329 MiB of either are Python and JAX.

Shape suffixes: B rows, T target length, S source length, D emb_dim, R compared positions, V vocab.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5jax.checkpoints import BlockArray, full_region, nested
from t5jax.convert.probe_inputs import ProbeInputs
from t5jax.model.attention import Mask
from t5jax.model.config import T5Config
from t5jax.model.encoder_decoder import Stack
from t5jax.model.layer_stack import stack_of, unstack
from t5jax.model.token_model import logits

Arrays = Mapping[str, BlockArray]  # parameters by path


def model_logits(model: T5Config, params: Arrays, probe: ProbeInputs) -> np.ndarray:
    """float32 [R, V] at the positions of the probe; computed in float32."""
    model = dataclasses.replace(model, dtype="float32", attention="einsum", dropout_rate=0.0)
    encoder_segments = jnp.asarray(probe.encoder_mask, jnp.int32)
    decoder_segments = jnp.asarray(probe.decoder_mask, jnp.int32)
    with jax.default_matmul_precision("highest"):
        x_BSD = jnp.asarray(embed_tokens(params["token_embedder"], probe.encoder_tokens))
        mask = Mask(encoder_segments, encoder_segments)
        encoded_BSD = _stack(model, params, "encoder", x_BSD, mask)
        x_BTD = jnp.asarray(embed_tokens(params["token_embedder"], probe.decoder_inputs))
        mask = Mask(decoder_segments, decoder_segments, causal=True)
        memory = encoded_BSD, Mask(decoder_segments, encoder_segments)
        x_BTD = _stack(model, params, "decoder", x_BTD, mask, memory)
        x_RD = x_BTD[probe.rows, probe.positions]
        if model.tied_embeddings:
            x_RD *= model.emb_dim**-0.5
        return _logits(x_RD, params, tied=model.tied_embeddings)


def embed_tokens(table: BlockArray, tokens: np.ndarray) -> np.ndarray:
    """float32 [..., D]; reads the table once, a block at a time."""
    found = np.zeros((*tokens.shape, table.shape[1]), np.float32)
    for region in table.regions():
        rows, columns = region
        here = (tokens >= rows.start) & (tokens < rows.stop)
        if here.any():
            found[here, columns] = table.read(region)[tokens[here] - rows.start]
    return found


def _stack(model: T5Config, params: Arrays, name: str, x_BTD: jax.Array, mask: Mask, memory=None):
    """What the stack `name` makes of x [B, T, D]: as a stack of one layer, with the weights of each
    layer in turn."""
    make = lambda: Stack(model, 1, cross_attention=memory is not None, rngs=nnx.Rngs(params=0))
    definition = nnx.graphdef(nnx.eval_shape(make))

    @jax.jit
    def through_layer(weights, x_BTD):
        stack = nnx.merge(definition, weights)
        (layer,) = unstack(stack.layers, 1)
        return layer(x_BTD, stack.position_bias(x_BTD.shape[1], mask), mask, memory)

    weights: dict = {}
    for layer in range(getattr(model, f"num_{name}_layers")):
        weights = _weights(params, name, layer)
        x_BTD = through_layer(weights, x_BTD)
    return nnx.merge(definition, weights).final_norm(x_BTD)


def _weights(params: Arrays, stack: str, layer: int) -> dict:
    """A stack's parameters, float32, with this layer as its only one."""
    found = {}
    for path, array in params.items():
        name = path.removeprefix(f"{stack}/")
        if name != path:
            whole = full_region(array.shape)
            region = (slice(layer, layer + 1), *whole[1:]) if stack_of(path) else whole
            found[name] = _float32(array.read(region))
    return nested(found)


def _logits(x_RD: jax.Array, params: Arrays, *, tied: bool) -> np.ndarray:
    table = params["token_embedder" if tied else "logits_dense"]
    vocab = 0 if tied else 1
    found = np.zeros((x_RD.shape[0], table.shape[vocab]), np.float32)
    for region in table.regions():
        block = _float32(table.read(region))
        part_DV = block.T if tied else block
        found[:, region[vocab]] += np.asarray(logits(x_RD[:, region[1 - vocab]], part_DV))
    return found


def _float32(array: np.ndarray) -> jax.Array:
    return jnp.asarray(array.astype(np.float32, copy=False))
