"""Target log-likelihood under the model, or under an ensemble.

Shape suffixes: B rows, S input length, T target length, D emb_dim, V vocab.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.types import Params

_POSITIONS = 16  # whose logits exist at a time


def score_targets(
    model_defs: tuple[nnx.GraphDef, ...],
    params: tuple[Params, ...],
    tokens_BS: jax.Array,
    targets_BT: jax.Array,
) -> jax.Array:
    """Log-likelihood of every target token given the input and the targets before it.

    Args:
      params: of each model, in the compute dtype. Logits of several models are averaged.
      tokens_BS, targets_BT: int32, padded with the model's `pad_id`.

    Spare rows of the table have a probability, as in training, unless the model's `softmax_size`
    leaves them out.

    Returns float32 [B, T], 0 at padding.
    """
    models = [nnx.merge(*pair) for pair in zip(model_defs, params, strict=True)]
    tables = [model.logits_table() for model in models]
    hidden_TBD = tuple(
        model.hidden_of_targets(tokens_BS, targets_BT).swapaxes(0, 1) for model in models
    )

    def log_prob_at(position):
        hiddens, targets_B = position
        logits_BV = sum(_logits(h, table) for h, table in zip(hiddens, tables, strict=True))
        log_probs_BV = jax.nn.log_softmax(logits_BV / len(tables))
        return jnp.take_along_axis(log_probs_BV, targets_B[:, None], axis=1)[:, 0]

    scores_TB = jax.lax.map(log_prob_at, (hidden_TBD, targets_BT.T), batch_size=_POSITIONS)
    return jnp.where(targets_BT != models[0].pad_id, scores_TB.T, 0.0)


def _logits(hidden_BD: jax.Array, table_DV: jax.Array) -> jax.Array:
    return jnp.einsum("BD,DV->BV", hidden_BD, table_DV, preferred_element_type=jnp.float32)
