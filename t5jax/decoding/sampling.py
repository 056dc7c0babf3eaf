"""Greedy decoding and sampling.

Shape suffixes: B rows, K outputs of a row, T output length, V vocab.
"""

import jax
import jax.numpy as jnp

from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.decode_state import (
    Decoded,
    LogitsCallback,
    Request,
    Stepper,
    adjust,
    ends,
    forced,
    visible,
    without_input,
)
from t5jax.decoding.logits_processors import truncated


def choose(
    stepper: Stepper,
    request: Request,
    config: DecodingConfig,
    callback: LogitsCallback | None = None,
) -> Decoded:
    """The likeliest next token at every position, or a sample of it, until all rows have ended.

    A score is the log-likelihood of the output's tokens by the model, before rules, temperature
    and truncation, the prefix left out. Several samples of a row are in the order of being drawn.
    """
    B, K, T = request.tokens_BS.shape[0], config.width, config.max_length
    keys_BK = _keys(request.row_ids_B, config)
    own_slot_BKT = jnp.broadcast_to(jnp.arange(K)[:, None], (1, K, T))

    def unfinished(carry):
        index, _, _, ended_BK, _ = carry
        return (index < T) & ~jnp.all(ended_BK)

    def step(carry):
        index, said_BKT, scores_BK, ended_BK, past = carry
        mask = visible(own_slot_BKT, index)
        logits_BKV, past = stepper.logits(said_BKT, index, past, mask)
        chances_BKV = adjust(logits_BKV, said_BKT, index, config, callback)
        next_BK = _pick(chances_BKV, keys_BK, index, config)
        forced_BK = jnp.broadcast_to(forced(request, index)[:, None], (B, K))
        next_BK = jnp.where(forced_BK > 0, forced_BK, next_BK)
        next_BK = jnp.where(ended_BK, 0, next_BK)
        own_BK = jnp.take_along_axis(logits_BKV, next_BK[..., None], axis=-1)[..., 0]
        gained_BK = own_BK - jax.nn.logsumexp(logits_BKV, axis=-1)
        scores_BK += jnp.where(ended_BK | (forced_BK > 0), 0.0, gained_BK)
        ended_BK |= ends(said_BKT, next_BK, index, config)
        return index + 1, said_BKT.at[:, :, index].set(next_BK), scores_BK, ended_BK, past

    ended_BK = jnp.broadcast_to(without_input(request)[:, None], (B, K))
    said_BKT, scores_BK = jnp.zeros((B, K, T), jnp.int32), jnp.zeros((B, K), jnp.float32)
    carry = (jnp.int32(0), said_BKT, scores_BK, ended_BK, stepper.past)
    _, said_BKT, scores_BK, _, _ = jax.lax.while_loop(unfinished, step, carry)
    return Decoded(said_BKT, scores_BK)


def _keys(row_ids_B: jax.Array, config: DecodingConfig) -> jax.Array:
    """A key of every sample's own, which does not depend on where its row stands."""
    root = jax.random.key(config.seed)
    of_row = jax.vmap(lambda row: jax.random.fold_in(root, row))(row_ids_B)
    of_sample = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(of_sample, in_axes=(0, None))(of_row, jnp.arange(config.width))


def _pick(logits_BKV, keys_BK, index, config: DecodingConfig) -> jax.Array:
    if not config.temperature:
        return jnp.argmax(logits_BKV, axis=-1).astype(jnp.int32)
    logits_BKV = truncated(logits_BKV / config.temperature, config.top_k, config.top_p)
    draw = lambda key, logits_V: jax.random.categorical(jax.random.fold_in(key, index), logits_V)
    return jax.vmap(jax.vmap(draw))(keys_BK, logits_BKV).astype(jnp.int32)
