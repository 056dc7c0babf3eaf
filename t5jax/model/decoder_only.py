"""Decoder-only models over `inputs EOS targets EOS`: causal language model and prefix LM.

Raffel et al. 2020, section 3.2.1; Mesh TensorFlow's `Unitransformer`, `lm_v1.gin` and
`lm_v1_ifa.gin`. Position t reads token t-1 (at the beginning `decoder_start_id`) and predicts
token t.

Shape suffixes: B rows, K beams of a row, R = B K, T length (of the output, in decoding), S input
length, D emb_dim, N heads, H head_dim, V vocab, L layers.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5jax.model.attention import MASKED, Mask
from t5jax.model.config import T5Config
from t5jax.model.decode_weights import DecodeWeights
from t5jax.model.encoder_decoder import DecodeStep, KVCache, Stack
from t5jax.model.kv_cache import KeyValue, empty_kv_cache, update_kv_cache
from t5jax.model.layer_stack import unstack
from t5jax.model.layers import TransformerBlock, kv_cache_bias
from t5jax.model.position import RelativePositionBias
from t5jax.model.token_model import (
    TokenModel,
    is_packed,
    is_token,
    logits_of_rows,
    segment_ids,
    shifted_right,
)
from t5jax.sharding import constrain
from t5jax.types import Batch


class DecoderOnly(TokenModel):
    """A causal language model."""

    bidirectional_inputs = False

    def add_stacks(self, cfg: T5Config, rngs: nnx.Rngs) -> None:
        self.decoder = Stack(cfg, cfg.num_decoder_layers, rngs=rngs)

    def hidden(self, batch: Batch, keys_B: jax.Array | None = None) -> jax.Array:
        segments_BT = segment_ids(batch, "decoder", "decoder_target_tokens", self.pad_id)
        prefix_BT = batch["decoder_causal_attention"] if self.bidirectional_inputs else None
        x_BTD = self.embed(batch["decoder_input_tokens"])
        mask = self._mask(segments_BT, prefix_BT, packed=is_packed(batch, "decoder"))
        return self.decoder(x_BTD, mask, keys_B=keys_B)

    def _mask(
        self, segments_BT: jax.Array, prefix_BT: jax.Array | None, *, packed: bool = False
    ) -> Mask:
        return Mask(segments_BT, segments_BT, True, prefix_BT, padded_at_end=not packed)

    def hidden_of_targets(self, tokens_BS: jax.Array, targets_BT: jax.Array) -> jax.Array:
        """Teacher-forced output [B, T, D], which predicts each of the targets; `pad_id` is
        padding."""
        S, T = tokens_BS.shape[1], targets_BT.shape[1]
        lengths_B1 = self._lengths(tokens_BS)[:, None]
        columns_D = jnp.arange(S + T)
        behind_BD = jnp.clip(columns_D - lengths_B1, 0, T - 1)
        targets_BD = jnp.take_along_axis(targets_BT, behind_BD, axis=1)
        targets_BD = jnp.where(columns_D - lengths_B1 < T, targets_BD, self.pad_id)
        inputs_BD = jnp.pad(tokens_BS, ((0, 0), (0, T)))
        joined_BD = jnp.where(columns_D < lengths_B1, inputs_BD, targets_BD)
        batch = {
            "decoder_target_tokens": joined_BD,
            "decoder_input_tokens": shifted_right(joined_BD, self.decoder_start_id),
            "decoder_causal_attention": (columns_D <= lengths_B1).astype(jnp.int32),
        }
        places_BT1 = (lengths_B1 + jnp.arange(T))[..., None]
        return jnp.take_along_axis(self._scaled(self.hidden(batch)), places_BT1, axis=1)

    def start_decoding(
        self, weights: DecodeWeights, tokens_BS: jax.Array, max_length: int, num_beams: int = 1
    ) -> tuple[DecodeStep, KVCache]:
        """Prefill with the inputs (`pad_id` is padding): the decoding step, and an empty KV cache
        for `max_length` positions of `num_beams` outputs a row. The first step reads the inputs'
        last token, whatever it is given."""
        S = tokens_BS.shape[1]
        lengths_B = self._lengths(tokens_BS)
        # Positions 0 … length read the start and all inputs; a prefix LM's see one another. The
        # last of them is the first of the output and is read again there.
        start_id = self.decoder_start_id
        read_BT = jnp.pad(tokens_BS, ((0, 0), (1, 0)), constant_values=start_id)
        last_B1 = jnp.take_along_axis(read_BT, lengths_B[:, None], axis=1)
        segments_BT = (jnp.arange(S + 1) <= lengths_B[:, None]).astype(jnp.int32)
        mask = self._mask(segments_BT, segments_BT if self.bidirectional_inputs else None)
        inputs = self._keys_and_values(self.embed(read_BT), mask, S)
        sizes = (S, max_length)
        shared = self.decoder.relpos_bias if self.decoder.shared_bias else None

        def decode(tokens_BK, index, kv_cache, mask_BKTK):
            tokens_BK = jnp.where(index == 0, last_B1, tokens_BK)
            x_RD, new_cache = self.embed(tokens_BK.reshape(-1)), []
            bias = self._biases(shared, index, lengths_B, sizes) if shared else None
            for layer, old, read in zip(weights.layers, kv_cache, inputs, strict=True):
                biases = bias or self._biases(layer.relpos_bias, index, lengths_B, sizes)
                x_RD, new = _decode_block(layer, x_RD, index, old, read, *biases, mask_BKTK)
                new_cache.append(new)
            hidden_RD = self._scaled(self.decoder.final_norm(x_RD))
            return logits_of_rows(hidden_RD, weights.table).reshape(*tokens_BK.shape, -1), tuple(
                new_cache
            )

        empty = empty_kv_cache(inputs[0], max_length * num_beams)
        return decode, (empty,) * len(weights.layers)

    def _lengths(self, tokens_BS: jax.Array) -> jax.Array:
        """int32 [B]: the tokens of each row."""
        return jnp.sum(is_token(tokens_BS, self.pad_id), axis=1, dtype=jnp.int32)

    def _keys_and_values(self, x_BTD: jax.Array, mask: Mask, length: int) -> list[KeyValue]:
        """By layer those of the first positions, `length` of them."""
        bias = self.decoder.position_bias(x_BTD.shape[1], mask)

        def body(x_BTD, layer):
            # The layer computes them, too; the compiler merges the two.
            cached = layer.self_attention.memory(layer.self_attention_norm(x_BTD)[:, :length])
            x_BTD = constrain(layer(x_BTD, bias, mask), "batch", "length", "activation_embed")
            return x_BTD, cached

        _, stacked = jax.lax.scan(body, x_BTD, self.decoder.layers)
        return unstack(stacked, self.decoder.num_layers)

    def _biases(
        self,
        relpos_bias: RelativePositionBias,
        index: jax.Array,
        lengths_B: jax.Array,
        sizes: tuple[int, int],
    ) -> tuple[jax.Array, jax.Array]:
        """Of output position `index` to S inputs, of which each row has `lengths_B`, [B, N, 1, S]
        with the others masked; and to T outputs, [N, T]; float32."""
        S, T = sizes
        both = self.bidirectional_inputs
        # Input s of a row of n lies n + index - s before: a window of S distances, one further on
        # at every position.
        by_distance_NW = relpos_bias.by_distance(np.arange(-(S + T), S), bidirectional=both)
        window = lambda start: jax.lax.dynamic_slice_in_dim(by_distance_NW, start, S, axis=1)
        inputs_BNS = jax.vmap(window)(S + T - lengths_B - index).astype(jnp.float32)
        is_input_BS = jnp.arange(S) < lengths_B[:, None]
        inputs_BNS += jnp.where(is_input_BS, 0.0, MASKED)[:, None]
        return inputs_BNS[:, :, None], relpos_bias.at(index, T, bidirectional=both)


class PrefixDecoderOnly(DecoderOnly):
    """Inputs, and the position that predicts the first target, see all inputs; targets see those
    before them. Buckets of distance are bidirectional throughout."""

    bidirectional_inputs = True


def _decode_block(
    layer: TransformerBlock,
    x_RD: jax.Array,
    index: jax.Array,
    kv_cache: KeyValue,
    inputs: KeyValue,
    inputs_bias_BN1S: jax.Array,
    bias_NT: jax.Array,
    mask_BKTJ: jax.Array,
) -> tuple[jax.Array, KeyValue]:
    """One decoding step of a block, as `TransformerBlock.decode`; keys and values of the inputs are
    shared by all beams of a row."""
    y_RD = layer.self_attention_norm(x_RD)
    kv_cache = update_kv_cache(kv_cache, layer.self_attention.keys_and_values(y_RD), index)
    biases = inputs_bias_BN1S, kv_cache_bias(bias_NT, mask_BKTJ)
    x_RD += layer.self_attention.decode(y_RD, (inputs, kv_cache), biases)
    return layer.mlp_and_adapter(x_RD), kv_cache
