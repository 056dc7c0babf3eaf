"""The T5 encoder-decoder, made of the blocks in `layers.py`.

Shape suffixes: B rows, K beams of a row, R = B K, T target length, S source length, D emb_dim,
N heads, H head_dim, V vocab, L layers.
"""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.model.attention import MASKED, Mask, PositionBias
from t5jax.model.config import T5Config
from t5jax.model.decode_weights import DecodeWeights
from t5jax.model.kv_cache import KeyValue, empty_kv_cache
from t5jax.model.layer_stack import unstack
from t5jax.model.layers import RMSNorm, TransformerBlock, dropout, split_keys
from t5jax.model.matmul import in_row_blocks
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


class Stack(nnx.Module):
    """Transformer blocks with weights stacked along a leading layers axis, scanned or unrolled."""

    def __init__(
        self, cfg: T5Config, num_layers: int, *, cross_attention: bool = False, rngs: nnx.Rngs
    ):
        if not cfg.per_layer_relative_bias:
            self.relpos_bias = RelativePositionBias(cfg, rngs=rngs)
        make = lambda key: TransformerBlock(
            cfg, cross_attention=cross_attention, rngs=nnx.Rngs(params=key)
        )
        self.layers = jax.vmap(make)(jax.random.split(rngs.params(), num_layers))
        self.final_norm = RMSNorm(cfg)
        self.num_layers, self.dropout_rate = num_layers, cfg.dropout_rate
        self.shared_bias = not cfg.per_layer_relative_bias
        self.remat = cfg.remat
        self.unroll = num_layers if cfg.unroll_layers == "all" else cfg.unroll_layers

    def __call__(
        self,
        x_BTD: jax.Array,
        mask: Mask,
        memory: tuple[jax.Array, Mask] | None = None,
        keys_B: jax.Array | None = None,
    ) -> jax.Array:
        T, rate = x_BTD.shape[1], self.dropout_rate
        bias = self.position_bias(T, mask)
        in_keys, out_keys, layers_keys = split_keys(keys_B, 3)
        layer_keys = split_keys(layers_keys, self.num_layers)

        def block(x_BTD, layer, keys_B):
            x_BTD = layer(x_BTD, bias, mask, memory, keys_B)
            return constrain(x_BTD, "batch", "length", "activation_embed")

        in_scan = self.unroll < self.num_layers  # pyright: ignore
        block = rematerialized(block, self.remat, in_scan=in_scan)
        x_BTD = dropout(x_BTD, rate, in_keys)
        if not in_scan:
            for layer, keys in zip(unstack(self.layers, self.num_layers), layer_keys, strict=True):
                x_BTD = block(x_BTD, layer, keys)
        else:
            scanned = (self.layers, None if keys_B is None else layer_keys)
            body = lambda x_BTD, layer: (block(x_BTD, *layer), None)
            x_BTD, _ = jax.lax.scan(body, x_BTD, scanned, unroll=self.unroll)  # pyright: ignore
        return dropout(self.final_norm(x_BTD), rate, out_keys)

    def position_bias(self, length: int, mask: Mask) -> PositionBias | None:
        """That of every block; None where every block has its own."""
        if not self.shared_bias:
            return None
        return self.relpos_bias(length, length, bidirectional=mask.bidirectional)


# By layer keys and values of the output so far, T positions of K slots.
KVCache = tuple[KeyValue, ...]


class DecodeStep(Protocol):
    """One decoding step, for inputs that are encoded."""

    def __call__(
        self, tokens_BK: jax.Array, index: jax.Array, kv_cache: KVCache, mask_BKTK: jax.Array
    ) -> tuple[jax.Array, KVCache]:
        """Logits, float32 [B, K, V], after beam k of row b has read `tokens_BK` at position
        `index`, and the KV cache with that position. Beam k attends to cache slot j of position t
        where `mask_BKTK[b, k, t, j]` is 0, not where it is `MASKED`; B or 1 rows."""
        ...


class EncoderDecoder(TokenModel):
    """T5 (Raffel et al. 2020), its 1.1 variant and their multilingual and byte-level relatives."""

    def add_stacks(self, cfg: T5Config, rngs: nnx.Rngs) -> None:
        self.encoder = Stack(cfg, cfg.num_encoder_layers, rngs=rngs)
        self.decoder = Stack(cfg, cfg.num_decoder_layers, cross_attention=True, rngs=rngs)
        self.add_prompt(cfg, rngs)

    def add_prompt(self, cfg: T5Config, rngs: nnx.Rngs) -> None:
        """Makes prompt tuning's vectors in front of the inputs, if there are any."""
        self.has_prompt = cfg.prompt_length > 0
        if self.has_prompt:
            # Its positions have no name: like a stack's layers they lie whole on every device.
            shape = (cfg.prompt_length, cfg.emb_dim)
            prompt_PD = jax.nn.initializers.normal(1.0)(rngs.params(), shape)
            self.prompt = nnx.Param(prompt_PD, axes=("embed",))

    @property
    def encoder_stack(self) -> Stack:
        """The stack that encodes the inputs."""
        return self.encoder

    def hidden(self, batch: Batch, keys_B: jax.Array | None = None) -> jax.Array:
        encoder_keys, decoder_keys = split_keys(keys_B, 2)
        encoder_segments = segment_ids(batch, "encoder", "encoder_input_tokens", self.pad_id)
        decoder_segments = segment_ids(batch, "decoder", "decoder_target_tokens", self.pad_id)
        packed = is_packed(batch, "encoder"), is_packed(batch, "decoder")
        encoded_BSD, encoder_segments = self.encode(
            batch["encoder_input_tokens"], encoder_segments, encoder_keys, packed=packed[0]
        )
        return self.decoder(
            self.embed(batch["decoder_input_tokens"]),
            Mask(decoder_segments, decoder_segments, causal=True, padded_at_end=not packed[1]),
            (
                encoded_BSD,
                Mask(decoder_segments, encoder_segments, padded_at_end=not any(packed)),
            ),
            decoder_keys,
        )

    def encode(
        self,
        tokens_BS: jax.Array,
        segments_BS: jax.Array,
        keys_B: jax.Array | None = None,
        *,
        packed: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """The encoder's output [B, S, D] and the segment of each of its positions [B, S], which are
        more than those of the tokens where a learned prompt stands in front of them."""
        x_BSD = self.embed(tokens_BS)
        if self.has_prompt:
            x_BSD, segments_BS = self._prepend_prompt(x_BSD, segments_BS)
        mask = Mask(segments_BS, segments_BS, padded_at_end=not packed)
        return self.encoder_stack(x_BSD, mask, keys_B=keys_B), segments_BS

    def _prepend_prompt(self, x_BSD: jax.Array, segments_BS: jax.Array):
        """Prompt tuning's vectors, in segment 1: the only one of a row that is not packed."""
        prompt_BPD = jnp.broadcast_to(self.prompt[...], (x_BSD.shape[0], *self.prompt.shape))
        x_BSD = jnp.concatenate([prompt_BPD, x_BSD], axis=1)
        segments_BS = jnp.concatenate(
            [jnp.ones(prompt_BPD.shape[:2], segments_BS.dtype), segments_BS], axis=1
        )
        return constrain(x_BSD, "batch", "length", "activation_embed"), segments_BS

    def hidden_of_targets(self, tokens_BS: jax.Array, targets_BT: jax.Array) -> jax.Array:
        """Teacher-forced decoder output [B, T, D], which predicts each of the targets;
        `pad_id` is padding."""
        batch = {
            "encoder_input_tokens": tokens_BS,
            "decoder_target_tokens": targets_BT,
            "decoder_input_tokens": shifted_right(targets_BT, self.decoder_start_id),
        }
        return self._scaled(self.hidden(batch))

    def start_decoding(
        self, weights: DecodeWeights, tokens_BS: jax.Array, max_length: int, num_beams: int = 1
    ) -> tuple[DecodeStep, KVCache]:
        """Encodes the inputs (`pad_id` is padding): the decoding step, and an empty KV cache for
        `max_length` positions of `num_beams` outputs a row."""
        segments_BS = is_token(tokens_BS, self.pad_id).astype(jnp.int32)
        encoded_BSD, segments_BS = in_row_blocks(self.encode, tokens_BS, segments_BS)
        stacked = unstack(self.decoder.layers, self.decoder.num_layers)  # for many rows
        encoded = [layer.cross_attention.memory(encoded_BSD) for layer in stacked]
        encoded_bias_B11S = jnp.where(segments_BS > 0, 0.0, MASKED)[:, None, None]
        relpos_bias = self.decoder.relpos_bias if self.decoder.shared_bias else None

        def decode(tokens_BK, index, kv_cache, mask_BKTK):
            bias_NT = relpos_bias.at(index, max_length) if relpos_bias is not None else None
            x_RD, new_cache = self.embed(tokens_BK.reshape(-1)), []
            for layer, old, memory in zip(weights.layers, kv_cache, encoded, strict=True):
                x_RD, new = layer.decode(
                    x_RD, old, index, bias_NT, mask_BKTK, memory, encoded_bias_B11S
                )
                new_cache.append(new)
            hidden_RD = self._scaled(self.decoder.final_norm(x_RD))
            return logits_of_rows(hidden_RD, weights.table).reshape(*tokens_BK.shape, -1), tuple(
                new_cache
            )

        empty = empty_kv_cache(encoded[0], max_length * num_beams)
        return decode, (empty,) * len(weights.layers)


def rematerialized(block, policy: str, *, in_scan: bool):
    """Computes a block's activations again in the backward pass: none, all but dots, or all."""
    if policy == "none":
        return block
    policies = {
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "full": jax.checkpoint_policies.nothing_saveable,
    }
    return jax.checkpoint(block, policy=policies[policy], prevent_cse=not in_scan)
