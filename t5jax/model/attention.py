"""Softmax attention with an additive position bias, computed in the way that suits the hardware.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e9  # added to scores; a row without any allowed key stays finite (uniform)


class Mask(NamedTuple):
    """Who may look at whom: queries at keys of the same non-zero segment, and no future."""

    query_segments: jax.Array  # [B, T] int32
    key_segments: jax.Array  # [B, S] int32; 0 is padding
    causal: bool = False

    def bias(self) -> jax.Array:
        """[B, T, S] float32: 0 where a query may look, very negative elsewhere."""
        q, k = self.query_segments[:, :, None], self.key_segments[:, None, :]
        allowed = (q == k) & (k > 0)
        if self.causal:
            allowed &= jnp.tril(jnp.ones(allowed.shape[1:], bool))
        return jnp.where(allowed, 0.0, MASKED)


def attend(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias_NTS: jax.Array | None,
    mask: Mask,
    implementation: str = "einsum",
) -> jax.Array:
    """softmax(q k + bias + mask) v, [B, T, N, H] in the dtype of v; scores in float32.

    There is no 1/sqrt(head_dim): T5 folds it into the initial scale of the query weights.
    """
    if implementation == "auto":
        # A loop over rows stays in a CPU's cache, but would serialise rows that devices share.
        alone = jax.default_backend() == "cpu" and jax.device_count() == 1
        implementation = "per_example" if alone else "einsum"
    if implementation == "per_example":
        return _per_example(q_BTNH, k_BSNH, v_BSNH, bias_NTS, *mask)
    assert implementation == "einsum", implementation
    scores_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    scores_BNTS += mask.bias()[:, None]
    if bias_NTS is not None:
        scores_BNTS += bias_NTS.astype(jnp.float32)
    probs_BNTS = jax.nn.softmax(scores_BNTS).astype(v_BSNH.dtype)
    return jnp.einsum("BNTS,BSNH->BTNH", probs_BNTS, v_BSNH)


# One row after the other, its scores never leaving the cache; the backward pass computes the
# probabilities again from what normalised them, as in FlashAttention (Dao et al. 2022). Maximum and
# sum are stored apart: in a row without any allowed key, MASKED + log(sum) would round to MASKED.


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _per_example(q_BTNH, k_BSNH, v_BSNH, bias_NTS, query_segments, key_segments, causal):
    return _forward(q_BTNH, k_BSNH, v_BSNH, bias_NTS, query_segments, key_segments, causal)[0]


def _scores(q_TNH, k_SNH, bias_NTS, query_segments_T, key_segments_S, causal) -> jax.Array:
    scores_NTS = jnp.einsum("TNH,SNH->NTS", q_TNH, k_SNH, preferred_element_type=jnp.float32)
    if bias_NTS is not None:
        scores_NTS += bias_NTS.astype(jnp.float32)
    return scores_NTS + Mask(query_segments_T[None], key_segments_S[None], causal).bias()


def _forward(q_BTNH, k_BSNH, v_BSNH, bias_NTS, query_segments, key_segments, causal):
    def row(args):
        q_TNH, k_SNH, v_SNH, query_segments_T, key_segments_S = args
        scores_NTS = _scores(q_TNH, k_SNH, bias_NTS, query_segments_T, key_segments_S, causal)
        max_NT1 = jnp.max(scores_NTS, axis=-1, keepdims=True)
        exp_NTS = jnp.exp(scores_NTS - max_NT1)
        sum_NT1 = jnp.sum(exp_NTS, axis=-1, keepdims=True)
        probs_NTS = (exp_NTS / sum_NT1).astype(v_SNH.dtype)
        y_TNH = jnp.einsum("NTS,SNH->TNH", probs_NTS, v_SNH, preferred_element_type=jnp.float32)
        return y_TNH.astype(v_SNH.dtype), (max_NT1, sum_NT1)

    rows = (q_BTNH, k_BSNH, v_BSNH, query_segments, key_segments)
    y_BTNH, normalizers = jax.lax.map(row, rows)
    return y_BTNH, (*rows, bias_NTS, y_BTNH, normalizers)


def _backward(causal, residuals, dy_BTNH):
    q_BTNH, k_BSNH, v_BSNH, query_segments, key_segments, bias_NTS, y_BTNH, normalizers = residuals
    f32 = {"preferred_element_type": jnp.float32}

    def row(dbias_NTS, args):
        q_TNH, k_SNH, v_SNH, query_segments_T, key_segments_S, y_TNH, dy_TNH = args[:7]
        max_NT1, sum_NT1 = args[7]
        scores_NTS = _scores(q_TNH, k_SNH, bias_NTS, query_segments_T, key_segments_S, causal)
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

    rows = (q_BTNH, k_BSNH, v_BSNH, query_segments, key_segments, y_BTNH, dy_BTNH, normalizers)
    zero = None if bias_NTS is None else jnp.zeros(bias_NTS.shape, jnp.float32)
    dbias_NTS, (dq_BTNH, dk_BSNH, dv_BSNH) = jax.lax.scan(row, zero, rows)
    if dbias_NTS is not None and bias_NTS is not None:
        dbias_NTS = dbias_NTS.astype(bias_NTS.dtype)
    return dq_BTNH, dk_BSNH, dv_BSNH, dbias_NTS, None, None


_per_example.defvjp(_forward, _backward)
