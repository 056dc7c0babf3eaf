"""Dot-product attention with an additive position bias: masks and implementations.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from t5jax.model.matmul import on_one_cpu

MASKED = -1e9  # added to scores; a row without any allowed key stays finite (uniform)


class Mask(NamedTuple):
    """Attention mask: queries see keys of the same non-zero segment, `causal` none after them."""

    query_segments: jax.Array  # [B, T] int32
    key_segments: jax.Array  # [B, S] int32; 0 is padding
    causal: bool = False
    prefix: jax.Array | None = None  # [B, S] int32: 1 at keys that earlier queries see, too

    @property
    def bidirectional(self) -> bool:
        """Whether a query may see later keys: then position buckets tell the directions apart
        (Mesh TensorFlow: all but fully autoregressive attention)."""
        return not self.causal or self.prefix is not None

    def bias(self) -> jax.Array:
        """[B, T, S] float32: 0 where a query sees a key, very negative elsewhere."""
        q, k = self.query_segments[:, :, None], self.key_segments[:, None, :]
        allowed = (q == k) & (k > 0)
        if self.causal:
            earlier = jnp.tril(jnp.ones(allowed.shape[1:], bool))
            allowed &= earlier if self.prefix is None else earlier | (self.prefix[:, None, :] > 0)
        return jnp.where(allowed, 0.0, MASKED)


def dot_product_attention(
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
        implementation = "per_example" if on_one_cpu() else "einsum"
    if implementation == "per_example":
        mask_arrays = mask.query_segments, mask.key_segments, mask.prefix
        return _per_example(q_BTNH, k_BSNH, v_BSNH, bias_NTS, mask_arrays, mask.causal)
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
# `mask_arrays` are those of a Mask.


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _per_example(q_BTNH, k_BSNH, v_BSNH, bias_NTS, mask_arrays, causal):
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


_per_example.defvjp(_forward, _backward)
