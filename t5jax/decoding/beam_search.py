"""Beam search, with T5X's rules or those of `transformers`.

Beams are reordered at every step, the KV cache is not. `slots[b, k, t]` is the cache slot of the
token that beam k has at position t, and the attention mask selects it: every key is read once for
all beams of a row, and none is copied.

Shape suffixes: B rows, K beams, C = 2 K candidates, T output length, V vocab.
"""

from typing import NamedTuple

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
    prefix_lengths,
)
from t5jax.decoding.top_k import fast_top_k

NEG_INF = -1.0e9  # score of a beam that does not exist


class _Beams(NamedTuple):
    tokens_BKT: jax.Array
    scores_BK: jax.Array  # log-likelihood, while it grows; divided by the penalty, when finished


class _BeamState(NamedTuple):
    index: jax.Array
    live: _Beams
    finished: _Beams  # the best first; NEG_INF where there are fewer than K
    can_improve_B: jax.Array  # rows whose live beams may still beat a finished one
    slots_BKT: jax.Array
    kv_cache: tuple


def beam_search(
    decoder: DecodeState,
    request: Request,
    config: DecodingConfig,
    logits_processor: LogitsProcessor | None = None,
) -> Decoded:
    """The best `num_outputs` of `num_beams` beams.

    At every position 2 K candidates are taken, so that K stay live even if K of them end. A score
    is the log-likelihood of the output (without the prefix) divided by the length penalty; with
    T5X's rule a beam that did not end is not divided, and ranks behind those that ended.
    """
    B, K, T = request.tokens_BS.shape[0], config.num_beams, config.max_length
    prefix_length_B = prefix_lengths(request, decoder)

    def step(state: _BeamState) -> _BeamState:
        index = state.index
        own_BK = jnp.broadcast_to(jnp.arange(K)[None], (B, K))
        slots_BKT = state.slots_BKT.at[:, :, index].set(own_BK)
        mask = beam_attention_mask(slots_BKT, index)
        logits_BKV, log_z_BK, kv_cache = decoder.logits(
            state.live.tokens_BKT, index, state.kv_cache, mask
        )
        log_probs_BKV = apply_logits_processors(
            logits_BKV - log_z_BK[..., None],
            state.live.tokens_BKT,
            index,
            config,
            decoder,
            logits_processor,
        )
        forced_B = forced_tokens(request, index, decoder)
        scores_BC, parent_BC, token_BC = _candidates(
            log_probs_BKV, state, forced_B, ~decoder.is_padding(forced_B)
        )
        tokens_BCT = _gather_beams(state.live.tokens_BKT, parent_BC)
        ended_BC = is_finished(tokens_BCT, token_BC, index, config, decoder)
        if config.beam_rule == "huggingface":
            ended_BC |= index + 1 == T  # what is live at max_length counts as finished
        tokens_BCT = tokens_BCT.at[:, :, index].set(token_BC)
        live_BC = jnp.where(ended_BC, scores_BC + NEG_INF, scores_BC)
        live_scores_BK, kept_BK = jax.lax.top_k(live_BC, K)
        live = _Beams(_gather_beams(tokens_BCT, kept_BK), live_scores_BK)
        length_B = index + 1 - prefix_length_B
        penalized_BC = scores_BC / _length_penalty(length_B, config)[:, None]
        may_finish_BC = ended_BC & state.can_improve_B[:, None]
        if config.beam_rule == "huggingface":
            may_finish_BC &= jnp.arange(2 * K) < K
        penalized_BC = jnp.where(may_finish_BC, penalized_BC, NEG_INF)
        finished = _top_beams(state.finished, _Beams(tokens_BCT, penalized_BC), K)
        can_improve_B = state.can_improve_B & _can_improve(
            live, finished, length_B, prefix_length_B, config
        )
        slots_BKT = _gather_beams(_gather_beams(slots_BKT, parent_BC), kept_BK)
        return _BeamState(index + 1, live, finished, can_improve_B, slots_BKT, kv_cache)

    unfinished = lambda state: (state.index < T) & jnp.any(state.can_improve_B)
    end = jax.lax.while_loop(unfinished, step, _init_state(request, decoder, config))
    return _outputs(end, has_no_input(request, decoder), config, decoder)


def _init_state(request: Request, decoder: DecodeState, config: DecodingConfig) -> _BeamState:
    B, K, T = request.tokens_BS.shape[0], config.num_beams, config.max_length
    nothing = decoder.padding((B, K, T))
    # All beams are equal at first: only one of them may have candidates.
    first_BK = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, NEG_INF), (B, K))
    return _BeamState(
        index=jnp.int32(0),
        live=_Beams(nothing, first_BK),
        finished=_Beams(nothing, jnp.full((B, K), NEG_INF)),
        can_improve_B=~has_no_input(request, decoder),
        slots_BKT=jnp.zeros((B, K, T), jnp.int32),
        kv_cache=decoder.kv_cache,
    )


def _candidates(log_probs_BKV, state: _BeamState, forced_B, is_forced_B):
    """(scores, parent beams, tokens), [B, C] each, the best first."""
    B, K, V = log_probs_BKV.shape
    C = 2 * K
    # The best of all are among the best of each beam, which are much fewer to sort.
    each = min(C, V)
    gained_BKC, token_BKC = fast_top_k(log_probs_BKV, each)
    is_forced = is_forced_B[:, None, None]
    gained_BKC = jnp.where(is_forced, jnp.where(jnp.arange(each) == 0, 0.0, NEG_INF), gained_BKC)
    token_BKC = jnp.where(is_forced, forced_B[:, None, None], token_BKC)
    total = jnp.maximum(state.live.scores_BK[..., None] + gained_BKC, 2 * NEG_INF)
    scores_BC, index_BC = jax.lax.top_k(total.reshape(B, K * each), C)
    token_BC = jnp.take_along_axis(token_BKC.reshape(B, K * each), index_BC, axis=1)
    return scores_BC, index_BC // each, token_BC


def _length_penalty(length_B: jax.Array, config: DecodingConfig) -> jax.Array:
    length_B = jnp.maximum(length_B, 1).astype(jnp.float32)
    if config.beam_rule == "t5x":
        length_B = (5.0 + length_B) / 6.0
    return length_B**config.length_penalty


def _can_improve(live, finished, length_B, prefix_length_B, config: DecodingConfig) -> jax.Array:
    """bool [B]: whether the bound on the best live beam's final score exceeds the worst finished
    score."""
    worst_B = jnp.min(finished.scores_BK, axis=1)
    if config.beam_rule == "t5x":  # the largest penalty is that of the maximal length
        length_B = config.max_length - prefix_length_B
    return live.scores_BK[:, 0] / _length_penalty(length_B, config) > worst_B


def _top_beams(one: _Beams, other: _Beams, num: int) -> _Beams:
    scores = jnp.concatenate([one.scores_BK, other.scores_BK], axis=1)
    tokens = jnp.concatenate([one.tokens_BKT, other.tokens_BKT], axis=1)
    scores, indices = jax.lax.top_k(scores, num)
    return _Beams(_gather_beams(tokens, indices), scores)


def _gather_beams(x_BKT: jax.Array, indices_BC: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BKT, indices_BC[..., None], axis=1)


def _outputs(
    end: _BeamState, empty_B: jax.Array, config: DecodingConfig, decoder: DecodeState
) -> Decoded:
    """The best finished beams, then live ones where fewer than `num_outputs` have finished."""
    finished, live = end.finished, end.live
    tokens = jnp.concatenate([finished.tokens_BKT, live.tokens_BKT], axis=1)
    scores = jnp.concatenate([finished.scores_BK, live.scores_BK], axis=1)
    ranks = jnp.where(finished.scores_BK > NEG_INF, finished.scores_BK, 3 * NEG_INF)
    ranks = jnp.concatenate([ranks, live.scores_BK + NEG_INF], axis=1)
    _, indices = jax.lax.top_k(ranks, config.num_outputs)
    tokens = jnp.where(empty_B[:, None, None], decoder.pad_id, _gather_beams(tokens, indices))
    scores = jnp.take_along_axis(scores, indices, axis=1)
    return Decoded(tokens, jnp.where(empty_B[:, None], 0.0, scores))
