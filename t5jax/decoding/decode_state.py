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
from t5jax.decoding.logits_processors import apply_builtin_processors
from t5jax.errors import ConfigError, foreign_code
from t5jax.model.attention import MASKED
from t5jax.model.decode_weights import DecodeWeights, decode_weights
from t5jax.model.encoder_decoder import KVCache
from t5jax.types import Params


class Request(NamedTuple):
    """Inputs of a batch, padded with the model's `pad_id`. A row of padding alone has no input (it
    fills the batch up) and empty outputs."""

    tokens_BS: jax.Array  # int32
    prefix_BP: jax.Array  # int32 ids with which each output begins, padding after them
    row_ids_B: jax.Array  # int32: the row's random key follows from it


class Decoded(NamedTuple):
    """The outputs of a row, the best first."""

    tokens_BKT: jax.Array  # int32, padding after the end
    scores_BK: jax.Array  # float32, of `sampling.greedy_or_sample` or `beam_search.beam_search`


class DecodeState(NamedTuple):
    """The decoding step, `step(last_BK, index, kv_cache, mask_BKTK)`: float32 logits [B, K, V] and
    the updated KV cache; the cache before the first step, and the model's special ids."""

    step: Callable
    kv_cache: tuple[KVCache, ...]  # one a model
    num_ids: int
    pad_id: int
    eos_id: int
    start_id: int

    def logits(self, tokens_BKT, index, kv_cache, mask_BKTK):
        """At `index`, given the tokens before: logits of the vocabulary's ids, which alone can be
        chosen; the logarithm of the softmax's denominator [B, K], to which all rows of the table
        contribute, as in training; and the KV cache."""
        last_BK = tokens_BKT[:, :, jnp.maximum(index - 1, 0)]
        last_BK = jnp.where(index == 0, self.start_id, last_BK)
        logits_BKV, kv_cache = self.step(last_BK, index, kv_cache, mask_BKTK)
        log_z_BK = jax.nn.logsumexp(logits_BKV, axis=-1)
        return logits_BKV[..., : self.num_ids], log_z_BK, kv_cache

    def is_padding(self, tokens: jax.Array) -> jax.Array:
        return tokens == self.pad_id

    def padding(self, shape: tuple[int, ...]) -> jax.Array:
        """int32 of the shape."""
        return jnp.full(shape, self.pad_id, jnp.int32)

    def history(self, tokens_BKT: jax.Array) -> jax.Array:
        """int32 [B, K, 1 + T]: what the decoder has read, its start included."""
        return jnp.pad(tokens_BKT, ((0, 0), (0, 0), (1, 0)), constant_values=self.start_id)


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

    one = models[0]
    ids = {"pad_id": one.pad_id, "eos_id": one.eos_id, "start_id": one.decoder_start_id}
    return DecodeState(step, tuple(own for _, own in started), num_ids, **ids)


def beam_attention_mask(slots_BKT: jax.Array, index: jax.Array) -> jax.Array:
    """[B, K, T, K]: 0 where output k has at position t the token of cache slot j, else MASKED."""
    K, T = slots_BKT.shape[1:]
    from_slot = slots_BKT[..., None] == jnp.arange(K)
    return jnp.where(from_slot & (jnp.arange(T) <= index)[:, None], 0.0, MASKED)


def has_no_input(request: Request, decoder: DecodeState) -> jax.Array:
    return jnp.all(decoder.is_padding(request.tokens_BS), axis=1)


def forced_tokens(request: Request, index: jax.Array, decoder: DecodeState) -> jax.Array:
    """int32 [B]: the token of the prefix at this position, padding where the prefix has ended."""
    P = request.prefix_BP.shape[1]
    if P == 0:
        return decoder.padding(request.tokens_BS.shape[:1])
    forced_B = request.prefix_BP[:, jnp.minimum(index, P - 1)]
    return jnp.where(index < P, forced_B, decoder.pad_id)


def prefix_lengths(request: Request, decoder: DecodeState) -> jax.Array:
    """int32 [B]: the tokens of each output's prefix. An empty array is not used: inside
    `on_each_device` JAX 0.11's XLA crashes over one while it compiles."""
    B, P = request.prefix_BP.shape
    return jnp.sum(~decoder.is_padding(request.prefix_BP), axis=1) if P else jnp.zeros(B, jnp.int32)


def is_finished(
    tokens_BKT: jax.Array,
    next_BK: jax.Array,
    index: jax.Array,
    config: DecodingConfig,
    decoder: DecodeState,
) -> jax.Array:
    """bool [B, K]: whether an output ends with `next_BK` at `index`."""
    ended = next_BK == decoder.eos_id
    for ids in config.stop:
        matches = next_BK == ids[-1]
        for back, token in enumerate(reversed(ids[:-1]), 1):
            before = tokens_BKT[:, :, jnp.maximum(index - back, 0)]
            matches &= (before == token) & (index >= back)
        ended |= matches
    return ended


def apply_logits_processors(
    scores_BKV: jax.Array,
    tokens_BKT: jax.Array,
    index: jax.Array,
    config: DecodingConfig,
    decoder: DecodeState,
    logits_processor: LogitsProcessor | None,
) -> jax.Array:
    """Applies the config's rules and logits processors, then the caller's."""
    history = decoder.history(tokens_BKT)
    scores_BKV = apply_builtin_processors(scores_BKV, history, index, config, decoder.eos_id)
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
