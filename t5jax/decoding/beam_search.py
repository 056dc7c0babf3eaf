"""Beam search, with T5X's rules or those of `transformers`.

Beams change places at every step; what they have computed stays where it is. `source[b, k, t]` is
the slot that read the token which beam k has at position t, and attention looks there: every key is
read once for all beams of a row, and none is copied.

Shape suffixes: B rows, K beams, C = 2 K candidates, T output length, V vocab.
"""

from typing import NamedTuple

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
from t5jax.decoding.top_k import largest

WORST = -1.0e9  # of a beam that is not there


class _Beams(NamedTuple):
    said_BKT: jax.Array
    scores_BK: jax.Array  # log-likelihood, while it grows; divided by the penalty, when finished


class _Search(NamedTuple):
    index: jax.Array
    live: _Beams
    finished: _Beams  # the best first; WORST where there are fewer than K
    hopeful_B: jax.Array  # rows whose live beams may still beat what is finished
    source_BKT: jax.Array
    past: tuple


def search(
    stepper: Stepper,
    request: Request,
    config: DecodingConfig,
    callback: LogitsCallback | None = None,
) -> Decoded:
    """The best `num_outputs` of `num_beams` beams.

    At every position 2 K candidates are taken, so that K go on even if K of them end. A score is
    the log-likelihood of what was chosen (the prefix left out), divided by the length penalty;
    with T5X's rule a beam that did not end is not divided, and comes behind those that ended.
    """
    B, K, T = request.tokens_BS.shape[0], config.num_beams, config.max_length
    prefix_length_B = jnp.sum(request.prefix_BP > 0, axis=1)

    def step(now: _Search) -> _Search:
        slots = jnp.broadcast_to(jnp.arange(K)[None], (B, K))
        source_BKT = now.source_BKT.at[:, :, now.index].set(slots)
        mask = visible(source_BKT, now.index)
        logits_BKV, past = stepper.logits(now.live.said_BKT, now.index, now.past, mask)
        scores_BC, parent_BC, token_BC = _candidates(
            logits_BKV, now, forced(request, now.index), config, callback
        )
        said_BCT = _of(now.live.said_BKT, parent_BC)
        ended_BC = ends(said_BCT, token_BC, now.index, config)
        if config.beam_rule == "huggingface":
            ended_BC |= now.index + 1 == T  # whatever is left at the end counts as finished
        said_BCT = said_BCT.at[:, :, now.index].set(token_BC)
        live_BC = jnp.where(ended_BC, scores_BC + WORST, scores_BC)
        live_scores_BK, kept_BK = jax.lax.top_k(live_BC, K)
        live = _Beams(_of(said_BCT, kept_BK), live_scores_BK)
        length_B = now.index + 1 - prefix_length_B
        penalized_BC = scores_BC / _penalty(length_B, config)[:, None]
        may_finish_BC = ended_BC & now.hopeful_B[:, None]
        if config.beam_rule == "huggingface":
            may_finish_BC &= jnp.arange(2 * K) < K
        penalized_BC = jnp.where(may_finish_BC, penalized_BC, WORST)
        finished = _best(now.finished, _Beams(said_BCT, penalized_BC), K)
        hopeful_B = now.hopeful_B & _hopeful(live, finished, length_B, prefix_length_B, config)
        sources = _of(_of(source_BKT, parent_BC), kept_BK)
        return _Search(now.index + 1, live, finished, hopeful_B, sources, past)

    unfinished = lambda now: (now.index < T) & jnp.any(now.hopeful_B)
    end = jax.lax.while_loop(unfinished, step, _begin(request, stepper, config))
    return _outputs(end, without_input(request), config)


def _begin(request: Request, stepper: Stepper, config: DecodingConfig) -> _Search:
    B, K, T = request.tokens_BS.shape[0], config.num_beams, config.max_length
    nothing = jnp.zeros((B, K, T), jnp.int32)
    # All beams are alike at first: only one of them may have candidates.
    first_BK = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, WORST), (B, K))
    return _Search(
        index=jnp.int32(0),
        live=_Beams(nothing, first_BK),
        finished=_Beams(nothing, jnp.full((B, K), WORST)),
        hopeful_B=~without_input(request),
        source_BKT=nothing,
        past=stepper.past,
    )


def _candidates(logits_BKV, now: _Search, forced_B, config, callback):
    """(scores, parents, tokens), [B, C] each, the best first."""
    B, K, V = logits_BKV.shape
    C = 2 * K
    logprobs_BKV = logits_BKV - jax.nn.logsumexp(logits_BKV, axis=-1, keepdims=True)
    logprobs_BKV = adjust(logprobs_BKV, now.live.said_BKT, now.index, config, callback)
    # The best of all are among the best of each beam, which are much fewer to sort.
    each = min(C, V)
    gained_BKC, token_BKC = largest(logprobs_BKV, each)
    is_forced = (forced_B > 0)[:, None, None]
    gained_BKC = jnp.where(is_forced, jnp.where(jnp.arange(each) == 0, 0.0, WORST), gained_BKC)
    token_BKC = jnp.where(is_forced, forced_B[:, None, None], token_BKC)
    total = jnp.maximum(now.live.scores_BK[..., None] + gained_BKC, 2 * WORST)
    scores_BC, place_BC = jax.lax.top_k(total.reshape(B, K * each), C)
    token_BC = jnp.take_along_axis(token_BKC.reshape(B, K * each), place_BC, axis=1)
    return scores_BC, place_BC // each, token_BC


def _penalty(length_B: jax.Array, config: DecodingConfig) -> jax.Array:
    length_B = jnp.maximum(length_B, 1).astype(jnp.float32)
    if config.beam_rule == "t5x":
        length_B = (5.0 + length_B) / 6.0
    return length_B**config.length_penalty


def _hopeful(live, finished, length_B, prefix_length_B, config: DecodingConfig) -> jax.Array:
    """bool [B]: whether the best live beam, at its best, would beat the worst finished one."""
    worst_B = jnp.min(finished.scores_BK, axis=1)
    if config.beam_rule == "t5x":  # longest, it is divided by most
        length_B = config.max_length - prefix_length_B
    return live.scores_BK[:, 0] / _penalty(length_B, config) > worst_B


def _best(one: _Beams, other: _Beams, num: int) -> _Beams:
    scores = jnp.concatenate([one.scores_BK, other.scores_BK], axis=1)
    said = jnp.concatenate([one.said_BKT, other.said_BKT], axis=1)
    scores, places = jax.lax.top_k(scores, num)
    return _Beams(_of(said, places), scores)


def _of(x_BKT: jax.Array, places_BC: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x_BKT, places_BC[..., None], axis=1)


def _outputs(end: _Search, empty_B: jax.Array, config: DecodingConfig) -> Decoded:
    """What has ended, and behind it, where that is too little, what has not."""
    finished, live = end.finished, end.live
    said = jnp.concatenate([finished.said_BKT, live.said_BKT], axis=1)
    scores = jnp.concatenate([finished.scores_BK, live.scores_BK], axis=1)
    ranks = jnp.where(finished.scores_BK > WORST, finished.scores_BK, 3 * WORST)
    ranks = jnp.concatenate([ranks, live.scores_BK + WORST], axis=1)
    _, places = jax.lax.top_k(ranks, config.num_outputs)
    said = jnp.where(empty_B[:, None, None], 0, _of(said, places))
    scores = jnp.take_along_axis(scores, places, axis=1)
    return Decoded(said, jnp.where(empty_B[:, None], 0.0, scores))
