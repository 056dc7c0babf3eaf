"""The decoding step with its KV cache, stop conditions and prefixes, of sampling and beam search.

Shape suffixes: B rows, K outputs of a row (samples or beams), S input length, T output length,
P prefix length, V vocab.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.decoding.config import DecodingConfig, LogitsProcessor
from t5jax.decoding.logits_processors import apply_logits_processors
from t5jax.errors import ConfigError, foreign_code
from t5jax.model.attention import MASKED
from t5jax.model.decode_weights import DecodeWeights, decode_weights
from t5jax.model.encoder_decoder import KVCache
from t5jax.types import EOS_ID, Params


class Request(NamedTuple):
    """Inputs of a batch. A row of zeros has no input (it fills the batch up) and empty outputs."""

    tokens_BS: jax.Array  # int32, 0 is padding
    prefix_BP: jax.Array  # int32 ids with which each output begins, 0 after them
    row_ids_B: jax.Array  # int32: the row's random key follows from it


class Decoded(NamedTuple):
    """The outputs of a row, the best first."""

    tokens_BKT: jax.Array  # int32, 0 after the end
    scores_BK: jax.Array  # float32, of `sampling.greedy_or_sample` or `beam_search.beam_search`


class DecodeState(NamedTuple):
    """The decoding step, `step(last_BK, index, kv_cache, mask_BKTK)`: float32 logits [B, K, V] and
    the updated KV cache; and the cache before the first step."""

    step: Callable
    kv_cache: tuple[KVCache, ...]  # one a model
    num_ids: int

    def logits(self, tokens_BKT, index, kv_cache, mask_BKTK):
        """Logits at `index`, given the tokens before; without the table's spare rows."""
        # Padding is also what starts a T5 decoder.
        last_BK = jnp.where(index == 0, 0, tokens_BKT[:, :, jnp.maximum(index - 1, 0)])
        logits_BKV, kv_cache = self.step(last_BK, index, kv_cache, mask_BKTK)
        return logits_BKV[..., : self.num_ids], kv_cache


def init_decode_state(
    model_defs: tuple[nnx.GraphDef, ...],
    params: tuple[Params, ...],
    request: Request,
    config: DecodingConfig,
    num_ids: int,
    weights: tuple[DecodeWeights, ...] | None = None,
) -> DecodeState:
    """Encodes the inputs and allocates the KV cache. Of several models, an ensemble, the logits are
    averaged (Raffel et al. 2020, section 3.6).

    `weights`, one a model, are made of `params` where the caller does not keep them.
    """
    rows, started = request.tokens_BS, []
    models = [nnx.merge(*pair) for pair in zip(model_defs, params, strict=True)]
    num_rows = rows.shape[0] * config.width
    weights = weights or tuple(decode_weights(model, num_rows) for model in models)
    for model, own in zip(models, weights, strict=True):
        started.append(model.start_decoding(own, rows, config.max_length, config.width))
    decodes = [decode for decode, _ in started]

    def step(last_BK, index, kv_cache, mask_BKTK):
        results = [
            decode(last_BK, index, own, mask_BKTK)
            for decode, own in zip(decodes, kv_cache, strict=True)
        ]
        logits = [logits_BKV for logits_BKV, _ in results]
        mean = sum(logits[1:], logits[0]) / len(logits) if len(logits) > 1 else logits[0]
        return mean, tuple(own for _, own in results)

    return DecodeState(step, tuple(own for _, own in started), num_ids)


def beam_attention_mask(slots_BKT: jax.Array, index: jax.Array) -> jax.Array:
    """[B, K, T, K]: 0 where output k has at position t the token of cache slot j, else MASKED."""
    K, T = slots_BKT.shape[1:]
    from_slot = slots_BKT[..., None] == jnp.arange(K)
    return jnp.where(from_slot & (jnp.arange(T) <= index)[:, None], 0.0, MASKED)


def has_no_input(request: Request) -> jax.Array:
    return jnp.all(request.tokens_BS == 0, axis=1)


def forced_tokens(request: Request, index: jax.Array) -> jax.Array:
    """int32 [B]: the token of the prefix at this position, 0 where the prefix has ended."""
    P = request.prefix_BP.shape[1]
    if P == 0:
        return jnp.zeros(request.tokens_BS.shape[0], jnp.int32)
    return jnp.where(index < P, request.prefix_BP[:, jnp.minimum(index, P - 1)], 0)


def prefix_lengths(request: Request) -> jax.Array:
    """int32 [B]: the tokens of each output's prefix. An empty array is not used: inside
    `on_each_device` JAX 0.11's XLA crashes over one while it compiles."""
    B, P = request.prefix_BP.shape
    return jnp.sum(request.prefix_BP > 0, axis=1) if P else jnp.zeros(B, jnp.int32)


def is_finished(
    tokens_BKT: jax.Array, next_BK: jax.Array, index: jax.Array, config: DecodingConfig
):
    """bool [B, K]: whether an output ends with `next_BK` at `index`."""
    ended = next_BK == EOS_ID
    for ids in config.stop:
        matches = next_BK == ids[-1]
        for back, token in enumerate(reversed(ids[:-1]), 1):
            before = tokens_BKT[:, :, jnp.maximum(index - back, 0)]
            matches &= (before == token) & (index >= back)
        ended |= matches
    return ended


def process_logits(
    scores_BKV, tokens_BKT, index, config: DecodingConfig, logits_processor: LogitsProcessor | None
) -> jax.Array:
    """Applies the config's rules and logits processors, then the caller's."""
    scores_BKV = apply_logits_processors(scores_BKV, tokens_BKT, index, config)
    for process in config.logits_processors:
        name = getattr(process, "__qualname__", type(process).__qualname__)
        with foreign_code(f"the logits processor {name}", "decoding", ConfigError):
            processed_BKV = process(scores_BKV, tokens_BKT, index)
        if jnp.shape(processed_BKV) != scores_BKV.shape:
            raise ConfigError(
                f"decoding: the logits processor {name} returned shape "
                f"{list(jnp.shape(processed_BKV))}, not that of its scores, "
                f"{list(scores_BKV.shape)}"
            )
        scores_BKV = processed_BKV
    return logits_processor(scores_BKV, tokens_BKT, index) if logits_processor else scores_BKV
