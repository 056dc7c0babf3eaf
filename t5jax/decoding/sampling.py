"""Greedy decoding and sampling.

Shape suffixes: B rows, K outputs of a row, T output length, V vocab.
"""

import jax
import jax.numpy as jnp

from t5jax.decoding.config import DecodingConfig, LogitsProcessor
from t5jax.decoding.decode_state import (
    Decoded,
    DecodeState,
    Request,
    apply_logits_processors,
    beam_attention_mask,
    forced_tokens,
    has_no_input,
    is_finished,
)
from t5jax.decoding.logits_processors import top_k_top_p_filter


def greedy_or_sample(
    decoder: DecodeState,
    request: Request,
    config: DecodingConfig,
    logits_processor: LogitsProcessor | None = None,
) -> Decoded:
    """The most likely token at every position, or with a temperature a sample, until all rows end.

    A score is the log-likelihood of the output's tokens under the model, before logits processors,
    temperature, top-k and top-p, without the prefix. Samples of a row are in the order of drawing.
    """
    B, K, T = request.tokens_BS.shape[0], config.width, config.max_length
    keys_BK = _sample_keys(request.row_ids_B, config)
    slots_BKT = jnp.broadcast_to(jnp.arange(K)[:, None], (1, K, T))

    def unfinished(carry):
        index, _, _, ended_BK, _ = carry
        return (index < T) & ~jnp.all(ended_BK)

    def step(carry):
        index, tokens_BKT, scores_BK, ended_BK, kv_cache = carry
        mask = beam_attention_mask(slots_BKT, index)
        logits_BKV, log_z_BK, kv_cache = decoder.logits(tokens_BKT, index, kv_cache, mask)
        processed_BKV = apply_logits_processors(
            logits_BKV, tokens_BKT, index, config, decoder, logits_processor
        )
        next_BK = _next_token(processed_BKV, keys_BK, index, config)
        forced_BK = jnp.broadcast_to(forced_tokens(request, index, decoder)[:, None], (B, K))
        is_forced_BK = ~decoder.is_padding(forced_BK)
        next_BK = jnp.where(is_forced_BK, forced_BK, next_BK)
        logit_BK = jnp.take_along_axis(logits_BKV, next_BK[..., None], axis=-1)[..., 0]
        scores_BK += jnp.where(ended_BK | is_forced_BK, 0.0, logit_BK - log_z_BK)
        next_BK = jnp.where(ended_BK, decoder.pad_id, next_BK)
        ended_BK |= is_finished(tokens_BKT, next_BK, index, config, decoder)
        return index + 1, tokens_BKT.at[:, :, index].set(next_BK), scores_BK, ended_BK, kv_cache

    ended_BK = jnp.broadcast_to(has_no_input(request, decoder)[:, None], (B, K))
    tokens_BKT, scores_BK = decoder.padding((B, K, T)), jnp.zeros((B, K), jnp.float32)
    carry = (jnp.int32(0), tokens_BKT, scores_BK, ended_BK, decoder.kv_cache)
    _, tokens_BKT, scores_BK, _, _ = jax.lax.while_loop(unfinished, step, carry)
    return Decoded(tokens_BKT, scores_BK)


def _sample_keys(row_ids_B: jax.Array, config: DecodingConfig) -> jax.Array:
    """A random key per sample, from seed, row id and sample number: not from the row's place."""
    root = jax.random.key(config.seed)
    of_row = jax.vmap(lambda row: jax.random.fold_in(root, row))(row_ids_B)
    of_sample = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(of_sample, in_axes=(0, None))(of_row, jnp.arange(config.width))


def _next_token(logits_BKV, keys_BK, index, config: DecodingConfig) -> jax.Array:
    if not config.temperature:
        return jnp.argmax(logits_BKV, axis=-1).astype(jnp.int32)
    logits_BKV = top_k_top_p_filter(logits_BKV / config.temperature, config.top_k, config.top_p)
    draw = lambda key, logits_V: jax.random.categorical(jax.random.fold_in(key, index), logits_V)
    return jax.vmap(jax.vmap(draw))(keys_BK, logits_BKV).astype(jnp.int32)
