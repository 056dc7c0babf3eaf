"""Logits processors: repetition penalty, no repeated n-grams, minimum length, top-k and top-p.

Applied before a token is chosen, to logits (sampling) or log-probabilities (beam search), as
`transformers` does it and in its order, so that both give the same outputs. An output's history
begins with the padding that starts a T5 decoder.

Shape suffixes: B rows, K outputs of a row, T output length, V vocab.
"""

import jax
import jax.numpy as jnp

from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.top_k import fast_top_k
from t5jax.types import EOS_ID

_FILTERED = -jnp.inf


def apply_logits_processors(
    scores_BKV: jax.Array, tokens_BKT: jax.Array, index: jax.Array, config: DecodingConfig
) -> jax.Array:
    """The processed scores of the token at `index`, given those before."""
    if config.repetition_penalty != 1.0:
        scores_BKV = _repetition_penalty(scores_BKV, tokens_BKT, index, config.repetition_penalty)
    if config.no_repeat_ngram:
        scores_BKV = _no_repeat_ngram(scores_BKV, tokens_BKT, index, config.no_repeat_ngram)
    if config.min_length:
        is_eos_V = jnp.arange(scores_BKV.shape[-1]) == EOS_ID
        scores_BKV = jnp.where(is_eos_V & (index < config.min_length), _FILTERED, scores_BKV)
    return scores_BKV


def _repetition_penalty(scores_BKV, tokens_BKT, index, penalty: float):
    history = _with_start(tokens_BKT)
    is_set = jnp.arange(history.shape[-1]) <= index
    seen_BKV = _marked(scores_BKV.shape, history, is_set)
    weaker = jnp.where(scores_BKV < 0, scores_BKV * penalty, scores_BKV / penalty)
    return jnp.where(seen_BKV, weaker, scores_BKV)


def _no_repeat_ngram(scores_BKV, tokens_BKT, index, n: int):
    """Masks tokens that would repeat an n-gram of the output."""
    history = _with_start(tokens_BKT)  # its first index + 1 positions are set
    num_starts = history.shape[-1] - n + 1
    if num_starts < 1:
        return scores_BKV
    complete = jnp.arange(num_starts) + n - 1 <= index
    again = jnp.broadcast_to(complete, (*history.shape[:2], num_starts))
    for j in range(n - 1):
        position = jnp.maximum(index + 1 - (n - 1) + j, 0)
        latest = jax.lax.dynamic_index_in_dim(history, position, axis=2)
        again &= history[:, :, j : j + num_starts] == latest
    return jnp.where(
        _marked(scores_BKV.shape, history[:, :, n - 1 :], again), _FILTERED, scores_BKV
    )


def _with_start(tokens_BKT):
    return jnp.pad(tokens_BKT, ((0, 0), (0, 0), (1, 0)))


def _marked(shape, ids, where):
    """bool of `shape` [B, K, V]: True at the ids, where `where` is."""
    B, K, V = shape
    row, output = jnp.arange(B)[:, None, None], jnp.arange(K)[None, :, None]
    ids = jnp.where(where, ids, V)  # out of range: dropped
    return jnp.zeros(shape, bool).at[row, output, ids].set(True, mode="drop")


def top_k_top_p_filter(logits_BKV: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Top-k filtering, then nucleus (top-p) filtering: all logits but the k largest, then all but
    the fewest that have the probability p together, are masked (Holtzman et al. 2020)."""
    if 0 < top_k < logits_BKV.shape[-1]:
        least = fast_top_k(logits_BKV, top_k)[0][..., -1:]
        logits_BKV = jnp.where(logits_BKV < least, _FILTERED, logits_BKV)
    if top_p < 1.0:
        falling = jnp.sort(logits_BKV, axis=-1, descending=True)
        before = jnp.cumsum(jax.nn.softmax(falling), axis=-1) - jax.nn.softmax(falling)
        kept = jnp.sum(before < top_p, axis=-1, keepdims=True)
        least = jnp.take_along_axis(falling, kept - 1, axis=-1)
        logits_BKV = jnp.where(logits_BKV < least, _FILTERED, logits_BKV)
    return logits_BKV
