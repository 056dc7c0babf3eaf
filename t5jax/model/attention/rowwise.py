"""Attention one row after the other, for a CPU: a row's scores never leave its cache.

The backward pass computes the probabilities again from what normalised them, as in FlashAttention
(Dao et al. 2022).

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim.
"""

import functools

import jax
import jax.numpy as jnp

from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.mask import Mask
from t5jax.model.attention.score import PLAIN, ScoreFunction


def rowwise_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    score: ScoreFunction = PLAIN,
) -> jax.Array:
    """Attention in a loop over the rows, which would serialise rows that devices share."""
    assert score == PLAIN, score
    mask_arrays = mask.query_segments, mask.key_segments, mask.prefix
    dense_NTS = None if bias is None else bias.dense_NTS
    return _rowwise(q_BTNH, k_BSNH, v_BSNH, dense_NTS, mask_arrays, mask.causal)


def why_not_rowwise(q_BTNH, k_BSNH, v_BSNH, bias, mask, score: ScoreFunction) -> str | None:
    """Why `rowwise_attention` cannot do this call; None: it can."""
    return None if score == PLAIN else "it has no window and no soft cap"


# Maximum and sum are stored apart: in a row without any allowed key, MASKED + log(sum) would round
# to MASKED. `mask_arrays` are those of a Mask.


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _rowwise(q_BTNH, k_BSNH, v_BSNH, bias_NTS, mask_arrays, causal):
    return _forward(q_BTNH, k_BSNH, v_BSNH, bias_NTS, mask_arrays, causal)[0]


def _scores(q_TNH, k_SNH, bias_NTS, mask_arrays, causal) -> jax.Array:
    """[N, T, S] of one row, float32, masked."""
    scores_NTS = jnp.einsum("TNH,SNH->NTS", q_TNH, k_SNH, preferred_element_type=jnp.float32)
    if bias_NTS is not None:
        scores_NTS += bias_NTS.astype(jnp.float32)
    queries, keys, prefix = jax.tree.map(lambda x: x[None], mask_arrays)
    return scores_NTS + Mask(queries, keys, causal, prefix).bias()


def _forward(q_BTNH, k_BSNH, v_BSNH, bias_NTS, mask_arrays, causal):
    def row(args):
        q_TNH, k_SNH, v_SNH, mask_arrays = args
        scores_NTS = _scores(q_TNH, k_SNH, bias_NTS, mask_arrays, causal)
        max_NT1 = jnp.max(scores_NTS, axis=-1, keepdims=True)
        exp_NTS = jnp.exp(scores_NTS - max_NT1)
        sum_NT1 = jnp.sum(exp_NTS, axis=-1, keepdims=True)
        probs_NTS = (exp_NTS / sum_NT1).astype(v_SNH.dtype)
        y_TNH = jnp.einsum("NTS,SNH->TNH", probs_NTS, v_SNH, preferred_element_type=jnp.float32)
        return y_TNH.astype(v_SNH.dtype), (max_NT1, sum_NT1)

    rows = (q_BTNH, k_BSNH, v_BSNH, mask_arrays)
    y_BTNH, normalizers = jax.lax.map(row, rows)
    return y_BTNH, (*rows, bias_NTS, y_BTNH, normalizers)


def _backward(causal, residuals, dy_BTNH):
    q_BTNH, k_BSNH, v_BSNH, mask_arrays, bias_NTS, y_BTNH, normalizers = residuals
    f32 = {"preferred_element_type": jnp.float32}

    def row(dbias_NTS, args):
        q_TNH, k_SNH, v_SNH, mask_arrays, y_TNH, dy_TNH, (max_NT1, sum_NT1) = args
        scores_NTS = _scores(q_TNH, k_SNH, bias_NTS, mask_arrays, causal)
        probs_NTS = jnp.exp(scores_NTS - max_NT1) / sum_NT1
        dv_SNH = jnp.einsum("NTS,TNH->SNH", probs_NTS.astype(v_SNH.dtype), dy_TNH, **f32)
        dprobs_NTS = jnp.einsum("TNH,SNH->NTS", dy_TNH, v_SNH, **f32)
        delta_NT = jnp.einsum("TNH,TNH->NT", dy_TNH, y_TNH, **f32)
        dscores_NTS = probs_NTS * (dprobs_NTS - delta_NT[..., None])
        ds_NTS = dscores_NTS.astype(q_TNH.dtype)
        dq_TNH = jnp.einsum("NTS,SNH->TNH", ds_NTS, k_SNH, **f32).astype(q_TNH.dtype)
        dk_SNH = jnp.einsum("NTS,TNH->SNH", ds_NTS, q_TNH, **f32).astype(k_SNH.dtype)
        if dbias_NTS is not None:
            dbias_NTS += dscores_NTS
        return dbias_NTS, (dq_TNH, dk_SNH, dv_SNH.astype(v_SNH.dtype))

    rows = (q_BTNH, k_BSNH, v_BSNH, mask_arrays, y_BTNH, dy_BTNH, normalizers)
    zero = None if bias_NTS is None else jnp.zeros(bias_NTS.shape, jnp.float32)
    dbias_NTS, (dq_BTNH, dk_BSNH, dv_BSNH) = jax.lax.scan(row, zero, rows)
    if dbias_NTS is not None and bias_NTS is not None:
        dbias_NTS = dbias_NTS.astype(bias_NTS.dtype)
    return dq_BTNH, dk_BSNH, dv_BSNH, dbias_NTS, None


_rowwise.defvjp(_forward, _backward)
