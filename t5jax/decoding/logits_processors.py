"""Logits processors: repetition penalty, no repeated n-grams, minimum length, top-k and top-p.

Applied before a token is chosen, to logits (sampling) or log-probabilities (beam search), as
`transformers` does it and in its order, so that both give the same outputs. An output's history
begins with the token that starts the decoder.

Those of a user's own: `config.LogitsProcessor`, docs/extending.md.

Shape suffixes: B rows, K outputs of a row, T output length, V vocab.
"""

import dataclasses

import jax
import jax.numpy as jnp

from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.top_k import fast_top_k

_FILTERED = -jnp.inf


def apply_builtin_processors(
    scores_BKV: jax.Array, history: jax.Array, index: jax.Array, config: DecodingConfig, eos_id: int
) -> jax.Array:
    """The processed scores of the token at `index`; `history` [B, K, 1 + T] is what the decoder
    has read, its start first, of which positions up to `index` are set."""
    if config.repetition_penalty != 1.0:
        scores_BKV = _repetition_penalty(scores_BKV, history, index, config.repetition_penalty)
    if config.no_repeat_ngram:
        scores_BKV = _no_repeat_ngram(scores_BKV, history, index, config.no_repeat_ngram)
    if config.min_length:
        is_eos_V = jnp.arange(scores_BKV.shape[-1]) == eos_id
        scores_BKV = jnp.where(is_eos_V & (index < config.min_length), _FILTERED, scores_BKV)
    return scores_BKV


def _repetition_penalty(scores_BKV, history, index, penalty: float):
    is_set = jnp.arange(history.shape[-1]) <= index
    seen_BKV = _marked(scores_BKV.shape, history, is_set)
    weaker = jnp.where(scores_BKV < 0, scores_BKV * penalty, scores_BKV / penalty)
    return jnp.where(seen_BKV, weaker, scores_BKV)


def _no_repeat_ngram(scores_BKV, history, index, n: int):
    """Masks tokens that would repeat an n-gram of the output."""
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


def _marked(shape, ids, where):
    """bool of `shape` [B, K, V]: True at the ids, where `where` is."""
    B, K, V = shape
    row, output = jnp.arange(B)[:, None, None], jnp.arange(K)[None, :, None]
    ids = jnp.where(where, ids, V)  # out of range: dropped
    return jnp.zeros(shape, bool).at[row, output, ids].set(True, mode="drop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuppressedTokens:
    """Tokens that are never chosen, or not as the first of an output (transformers'
    `suppress_tokens` and `begin_suppress_tokens`), or not at positions from `span[0]` to before
    `span[1]`, from 0."""

    ids: tuple[int, ...]
    first_only: bool = False
    span: tuple[int, int] | None = None

    def __call__(self, scores_BKV: jax.Array, tokens_BKT: jax.Array, index: jax.Array) -> jax.Array:
        del tokens_BKT
        is_suppressed_V = jnp.isin(jnp.arange(scores_BKV.shape[-1]), jnp.array(self.ids))
        here = (index == 0) | (not self.first_only)
        if self.span is not None:
            here &= (index >= self.span[0]) & (index < self.span[1])
        return jnp.where(is_suppressed_V & here, _FILTERED, scores_BKV)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForcedToken:
    """The one token at a position of every output, the first being 0 (transformers'
    `forced_bos_token_id`; at the last position `forced_eos_token_id`). It costs a beam nothing."""

    id: int
    position: int

    def __call__(self, scores_BKV: jax.Array, tokens_BKT: jax.Array, index: jax.Array) -> jax.Array:
        del tokens_BKT
        is_it_V = jnp.arange(scores_BKV.shape[-1]) == self.id
        forced = jnp.where(is_it_V, 0.0, _FILTERED)
        return jnp.where(index == self.position, forced, scores_BKV)


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
