"""What is done to scores (logits or log-probabilities) before a token is chosen.

As `transformers` does it, in its order, so that both give the same outputs. The history that rules
look at begins with the padding that starts a T5 decoder.

Shape suffixes: B rows, K outputs of a row, T output length, V vocab.
"""

import jax
import jax.numpy as jnp

from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.top_k import largest
from t5jax.types import EOS_ID

NEVER = -jnp.inf


def adjusted(
    scores_BKV: jax.Array, said_BKT: jax.Array, index: jax.Array, config: DecodingConfig
) -> jax.Array:
    """The scores of the token at `index`, given those before."""
    if config.repetition_penalty != 1.0:
        scores_BKV = _repetition_penalty(scores_BKV, said_BKT, index, config.repetition_penalty)
    if config.no_repeat_ngram:
        scores_BKV = _no_repeat(scores_BKV, said_BKT, index, config.no_repeat_ngram)
    if config.min_length:
        is_eos_V = jnp.arange(scores_BKV.shape[-1]) == EOS_ID
        scores_BKV = jnp.where(is_eos_V & (index < config.min_length), NEVER, scores_BKV)
    return scores_BKV


def _repetition_penalty(scores_BKV, said_BKT, index, penalty: float):
    history = _with_start(said_BKT)
    said = jnp.arange(history.shape[-1]) <= index
    seen_BKV = _marked(scores_BKV.shape, history, said)
    weaker = jnp.where(scores_BKV < 0, scores_BKV * penalty, scores_BKV / penalty)
    return jnp.where(seen_BKV, weaker, scores_BKV)


def _no_repeat(scores_BKV, said_BKT, index, n: int):
    """Tokens that would complete n tokens that came before are never chosen."""
    history = _with_start(said_BKT)  # its first index + 1 positions are given
    num_starts = history.shape[-1] - n + 1
    if num_starts < 1:
        return scores_BKV
    complete = jnp.arange(num_starts) + n - 1 <= index
    again = jnp.broadcast_to(complete, (*history.shape[:2], num_starts))
    for j in range(n - 1):
        position = jnp.maximum(index + 1 - (n - 1) + j, 0)
        latest = jax.lax.dynamic_index_in_dim(history, position, axis=2)
        again &= history[:, :, j : j + num_starts] == latest
    return jnp.where(_marked(scores_BKV.shape, history[:, :, n - 1 :], again), NEVER, scores_BKV)


def _with_start(said_BKT):
    return jnp.pad(said_BKT, ((0, 0), (0, 0), (1, 0)))


def _marked(shape, ids, where):
    """bool of `shape` [B, K, V]: True at the ids that count."""
    B, K, V = shape
    row, output = jnp.arange(B)[:, None, None], jnp.arange(K)[None, :, None]
    kept = jnp.where(where, ids, V)  # out of range: dropped
    return jnp.zeros(shape, bool).at[row, output, kept].set(True, mode="drop")


def truncated(logits_BKV: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Logits of which the unlikely ones are never sampled: all but the k likeliest, then all but
    the fewest that have the probability p together (Holtzman et al. 2020)."""
    if 0 < top_k < logits_BKV.shape[-1]:
        least = largest(logits_BKV, top_k)[0][..., -1:]
        logits_BKV = jnp.where(logits_BKV < least, NEVER, logits_BKV)
    if top_p < 1.0:
        falling = jnp.sort(logits_BKV, axis=-1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(falling), axis=-1) - jax.nn.softmax(falling)
        kept = jnp.sum(before < top_p, axis=-1, keepdims=True)
        least = jnp.take_along_axis(falling, kept - 1, axis=-1)
        logits_BKV = jnp.where(logits_BKV < least, NEVER, logits_BKV)
    return logits_BKV
