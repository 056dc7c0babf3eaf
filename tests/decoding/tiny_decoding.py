"""A tiny model that ends some of its outputs, run on one batch."""

import functools

import numpy as np
from flax import nnx

from t5jax.decoding.decode_state import Request
from t5jax.decoding.generator import decode_batch
from t5jax.model.registry import abstract_model
from t5jax.types import EOS_ID
from tests.model import tiny_t5

CFG = tiny_t5.config("1.1")


@functools.cache
def params(seed: int = 4) -> dict:
    """Random, with EOS likely enough that some rows end early and some not at all."""
    weights = tiny_t5.random_params(CFG, seed=seed)
    weights["logits_dense"][:, EOS_ID] *= 2.5
    return weights


def inputs(rows: int = 9, length: int = 13) -> np.ndarray:
    """int32 [rows, length] of different lengths, with EOS."""
    tokens = tiny_t5.random_batch(CFG, rows, length, 1)["encoder_input_tokens"]
    for row in tokens:
        row[np.flatnonzero(row)[-1]] = EOS_ID
    return tokens


def run(
    tokens, config, num_ids=CFG.vocab_size, cfg=CFG, weights=None, logits_processor=None,
    prefix=None, row_ids=None,
):  # fmt: skip
    """(tokens [B, K, T], scores [B, K]); several models where `weights` is a tuple."""
    prefix = np.zeros((len(tokens), 0), np.int32) if prefix is None else prefix
    row_ids = np.arange(len(tokens)) if row_ids is None else row_ids
    request = Request(tokens, prefix, row_ids.astype(np.int32))
    weights = weights if isinstance(weights, tuple) else (weights or params(),)
    defs = (model_def(cfg),) * len(weights)
    decoded = decode_batch(defs, weights, request, config, num_ids, logits_processor)
    return tuple(map(np.asarray, decoded))


def model_def(cfg) -> nnx.GraphDef:
    return nnx.graphdef(abstract_model(cfg))


def teacher_forced(weights: dict, tokens, outputs) -> np.ndarray:
    """Log-probabilities [B, T, V] of every next token, without a cache."""
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.pad(outputs, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": np.ones_like(outputs),  # no position is padding
    }
    logits = np.asarray(_forward(weights, batch), np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@functools.cache
def _jitted():
    import jax

    return jax.jit(lambda weights, batch: tiny_t5.build(CFG, weights)(batch))


def _forward(weights, batch):
    return _jitted()(weights, batch)
