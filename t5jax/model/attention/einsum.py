"""The reference implementation of attention: two einsums and a softmax, on any platform.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim.
"""

import jax
import jax.numpy as jnp

from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.mask import Mask
from t5jax.model.attention.score import PLAIN, ScoreFunction


def einsum_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    score: ScoreFunction = PLAIN,
) -> jax.Array:
    """Attention whose scores [B, N, T, S] are stored, in float32."""
    scores_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    scores_BNTS = score.capped(scores_BNTS)
    scores_BNTS += mask.bias(score.window)[:, None]
    if bias is not None:
        scores_BNTS += bias.dense_NTS.astype(jnp.float32)
    probs_BNTS = jax.nn.softmax(scores_BNTS).astype(v_BSNH.dtype)
    return jnp.einsum("BNTS,BSNH->BTNH", probs_BNTS, v_BSNH)
