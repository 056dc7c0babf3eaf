"""One position after another: what choosing and searching have in common.

Shape suffixes: B rows, K outputs of a row in the making, S input length, T output length, P prefix
length, V vocab.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.logits_processors import adjusted
from t5jax.model.attention import MASKED
from t5jax.model.layout import DecodingLayout, lay_out
from t5jax.types import EOS_ID, Params

# (logits_BKV, said_BKT, index) -> logits_BKV, traced into the loop; `said` before `index` is given.
LogitsCallback = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class Request(NamedTuple):
    """What is to be decoded. A row of zeros has no input (it fills up a batch) and says nothing."""

    tokens_BS: jax.Array  # int32, 0 is padding
    prefix_BP: jax.Array  # int32 ids with which each output begins, 0 after them
    row_ids_B: jax.Array  # int32: what makes a row's samples its own, wherever the row stands


class Decoded(NamedTuple):
    """The outputs of a row, the best first."""

    tokens_BKT: jax.Array  # int32, 0 after the end
    scores_BK: jax.Array  # float32, see the functions that make them


class Stepper(NamedTuple):
    """`step(last_BK, index, past, mask_BKTK)`: float32 logits [B, K, V] and the new past."""

    step: Callable
    past: tuple  # of every model
    num_ids: int

    def logits(self, said_BKT, index, past, mask_BKTK):
        """After the token before `index`; the table's spare rows are never chosen."""
        # Padding is also what starts a T5 decoder.
        last_BK = jnp.where(index == 0, 0, said_BKT[:, :, jnp.maximum(index - 1, 0)])
        logits_BKV, past = self.step(last_BK, index, past, mask_BKTK)
        return logits_BKV[..., : self.num_ids], past


def open_stepper(
    model_defs: tuple[nnx.GraphDef, ...],
    params: tuple[Params, ...],
    request: Request,
    config: DecodingConfig,
    num_ids: int,
    layouts: tuple[DecodingLayout, ...] | None = None,
) -> Stepper:
    """Several models decode together: their logits are averaged (paper, section 3.6).

    `layouts`, one a model, are made of `params` where the caller does not keep them.
    """
    rows, opened = request.tokens_BS, []
    models = [nnx.merge(*pair) for pair in zip(model_defs, params, strict=True)]
    layouts = layouts or tuple(lay_out(model, rows.shape[0] * config.width) for model in models)
    for model, layout in zip(models, layouts, strict=True):
        opened.append(model.start_decoding(layout, rows, config.max_length, config.width))
    decodes = [decode for decode, _ in opened]

    def step(last_BK, index, past, mask_BKTK):
        results = [
            decode(last_BK, index, one, mask_BKTK)
            for decode, one in zip(decodes, past, strict=True)
        ]
        logits = [logits_BKV for logits_BKV, _ in results]
        mean = sum(logits[1:], logits[0]) / len(logits) if len(logits) > 1 else logits[0]
        return mean, tuple(past for _, past in results)

    return Stepper(step, tuple(past for _, past in opened), num_ids)


def visible(source_BKT: jax.Array, index: jax.Array) -> jax.Array:
    """[B, K, T, K]: 0 where output k goes on from what slot j read at position t, else MASKED."""
    K, T = source_BKT.shape[1:]
    from_slot = source_BKT[..., None] == jnp.arange(K)
    return jnp.where(from_slot & (jnp.arange(T) <= index)[:, None], 0.0, MASKED)


def without_input(request: Request) -> jax.Array:
    return jnp.all(request.tokens_BS == 0, axis=1)


def forced(request: Request, index: jax.Array) -> jax.Array:
    """int32 [B]: the token of the prefix at this position, 0 where the prefix has ended."""
    P = request.prefix_BP.shape[1]
    if P == 0:
        return jnp.zeros(request.tokens_BS.shape[0], jnp.int32)
    return jnp.where(index < P, request.prefix_BP[:, jnp.minimum(index, P - 1)], 0)


def ends(said_BKT: jax.Array, next_BK: jax.Array, index: jax.Array, config: DecodingConfig):
    """bool [B, K]: whether an output ends with `next_BK` at `index`."""
    ended = next_BK == EOS_ID
    for ids in config.stop:
        found = next_BK == ids[-1]
        for back, token in enumerate(reversed(ids[:-1]), 1):
            before = said_BKT[:, :, jnp.maximum(index - back, 0)]
            found &= (before == token) & (index >= back)
        ended |= found
    return ended


def adjust(
    scores_BKV, said_BKT, index, config: DecodingConfig, callback: LogitsCallback | None
) -> jax.Array:
    """The config's rules and logits processors, then the caller's."""
    scores_BKV = adjusted(scores_BKV, said_BKT, index, config)
    for process in (*config.logits_processors, *((callback,) if callback else ())):
        scores_BKV = process(scores_BKV, said_BKT, index)
    return scores_BKV
