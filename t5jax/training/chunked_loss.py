"""Summed cross-entropy of logits that are never stored whole: chunks of tokens, on every device.

Values and gradients are made together, so that no product is computed twice and nothing of a
chunk's logits is kept. Each device works through its own tokens; the gradient of the logits table
is added up over the devices once, after the last chunk, and scattered where FSDP shards the table.

Shape suffixes: B rows, T target length, N tokens, C tokens of a chunk, D emb_dim, V vocab.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from t5jax.sharding import mesh_axes, num_shards, on_shards

# Of the rule: float32 bytes of a chunk's logits on one device, and the least tokens of a chunk. The
# table's gradient is read and written once a chunk: more, smaller chunks would cost time.
_CHUNK_BYTES, _CHUNK_TOKENS = 2**27, 1024
_ROWS = ("batch", None)


class _Settings(NamedTuple):
    z_loss: float
    label_smoothing: float
    num_chunks: int | None  # None: by the rule


def summed_cross_entropy(
    hidden_BTD, table_DV, targets_BT, scales_BT, *, z_loss, label_smoothing, num_chunks=None
):
    """Σ scales · (smoothed cross-entropy + z-loss) of the logits hidden @ table.

    Returns (float32 scalar, (cross-entropy [B, T], log Z [B, T], correct [B, T] bool)); only the
    scalar has a gradient. Each device has float32 logits of its tokens / `num_chunks` at a time;
    None: a number by the size of the logits.
    """
    settings = _Settings(z_loss, label_smoothing, num_chunks)
    return _summed(hidden_BTD, table_DV, targets_BT, scales_BT, settings)


def chunks_by_size(num_tokens: int, vocab_size: int) -> int:
    """The number of chunks for the tokens and the part of the vocabulary of one device."""
    tokens = max(_CHUNK_TOKENS, _CHUNK_BYTES // (4 * vocab_size))
    return max(1, -(-num_tokens // tokens))


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _summed(hidden_BTD, table_DV, targets_BT, scales_BT, settings):
    return _on_devices(False, hidden_BTD, table_DV, targets_BT, scales_BT, settings)[0]


def _forward(hidden_BTD, table_DV, targets_BT, scales_BT, settings):
    return _on_devices(True, hidden_BTD, table_DV, targets_BT, scales_BT, settings)


def _backward(settings, residuals, cotangents):
    dhidden_BTD, dtable_DV = residuals
    dtotal = cotangents[0]  # per-token values are metrics: no gradient through them
    scaled = lambda x: (x * dtotal).astype(x.dtype)
    return scaled(dhidden_BTD), scaled(dtable_DV), None, None


_summed.defvjp(_forward, _backward)


def _on_devices(with_gradients: bool, hidden_BTD, table_DV, targets_BT, scales_BT, settings):
    """((total, per token), (d hidden, d table) or None), each device for its own rows."""
    rows = mesh_axes("batch")
    if hidden_BTD.shape[0] % num_shards("batch"):
        rows = ()  # rows that the devices cannot share equally: XLA's own way
    shared = [axis for axis in mesh_axes("embed") if axis in rows]
    scattered = tuple(shared) if table_DV.shape[0] % num_shards("embed") == 0 else ()
    reduced = tuple(axis for axis in rows if axis not in scattered)

    def local(hidden_BTD, table_DV, targets_BT, scales_BT):
        result = _over_chunks(with_gradients, hidden_BTD, table_DV, targets_BT, scales_BT, settings)
        (total, per_token), gradients = result
        total = jax.lax.psum(total, rows) if rows else total
        if gradients is None:
            return total, per_token
        dhidden_BTD, dtable_DV = gradients
        if scattered:
            dtable_DV = jax.lax.psum_scatter(dtable_DV, scattered, tiled=True)
        dtable_DV = jax.lax.psum(dtable_DV, reduced) if reduced else dtable_DV
        return total, per_token, dhidden_BTD, dtable_DV.astype(table_DV.dtype)  # pyright: ignore

    table_axes = ("embed" if scattered else None, None)
    in_axes = ((*_ROWS, None), None, _ROWS, _ROWS)
    out_axes = [None, _ROWS, (*_ROWS, None), table_axes][: 4 if with_gradients else 2]
    if rows:
        local = on_shards(local, in_axes, out_axes, over="batch")
    total, per_token, *gradients = local(hidden_BTD, table_DV, targets_BT, scales_BT)
    return (total, per_token), gradients or None


def _over_chunks(with_gradients: bool, hidden_BTD, table_DV, targets_BT, scales_BT, settings):
    """As `_on_devices`, of one device's rows; d table in float32."""
    N, V = targets_BT.size, table_DV.shape[1]
    num_chunks = settings.num_chunks or chunks_by_size(N, -(-V // num_shards("vocab")))
    split = lambda x, *tail: _split(x.reshape(N, *tail), num_chunks)
    D = hidden_BTD.shape[-1]
    chunks = split(hidden_BTD, D), split(targets_BT), split(scales_BT)

    def body(carry, chunk):
        hidden_CD, targets_C, scales_C = chunk
        total, dtable_DV = carry
        value, per_token, dlogits = _one_chunk(hidden_CD, table_DV, targets_C, scales_C, settings)
        if not with_gradients:
            return (total + value, None), (per_token, None)
        dlogits_CV = dlogits().astype(hidden_CD.dtype)
        f32 = {"preferred_element_type": jnp.float32}
        dhidden_CD = jnp.einsum("CV,DV->CD", dlogits_CV, table_DV, **f32)
        dtable_DV += jnp.einsum("CD,CV->DV", hidden_CD, dlogits_CV, **f32)
        return (total + value, dtable_DV), (per_token, dhidden_CD.astype(hidden_CD.dtype))

    zero = jnp.zeros(table_DV.shape, jnp.float32) if with_gradients else None
    (total, dtable_DV), outputs = _scan(body, (jnp.float32(0.0), zero), chunks)
    whole = lambda x: x.reshape(-1, *x.shape[2:])[:N].reshape(*targets_BT.shape, *x.shape[2:])
    per_token, dhidden_BTD = jax.tree.map(whole, outputs)
    return (total, per_token), (dhidden_BTD, dtable_DV) if with_gradients else None


def _split(x_N: jax.Array, num_chunks: int) -> jax.Array:
    """[N, ...] -> [num_chunks, C, ...], filled up with zeros."""
    fill = -x_N.shape[0] % num_chunks
    x_N = jnp.pad(x_N, ((0, fill), *((0, 0),) * (x_N.ndim - 1)))
    return x_N.reshape(num_chunks, -1, *x_N.shape[1:])


def _scan(body, carry, chunks):
    """lax.scan, without a loop for a single chunk."""
    if chunks[0].shape[0] > 1:
        return jax.lax.scan(body, carry, chunks)
    carry, y = body(carry, jax.tree.map(lambda x: x[0], chunks))
    return carry, jax.tree.map(lambda x: x[None], y)


def _one_chunk(hidden_CD, table_DV, targets_C, scales_C, settings):
    """Summed objective, per-token values, and a function making d objective / d logits."""
    V, z_loss = table_DV.shape[1], settings.z_loss
    off = settings.label_smoothing / (V - 1)
    on = 1.0 - settings.label_smoothing
    logits_CV = jnp.einsum("CD,DV->CV", hidden_CD, table_DV, preferred_element_type=jnp.float32)
    # A comparison instead of an index: the vocabulary may be divided among devices.
    is_target_CV = jax.lax.broadcasted_iota(jnp.int32, logits_CV.shape, 1) == targets_C[:, None]
    log_z_C = jax.nn.logsumexp(logits_CV, axis=-1)
    nll_C = log_z_C - jnp.sum(jnp.where(is_target_CV, logits_CV, 0.0), axis=-1)
    correct_C = jnp.argmax(logits_CV, axis=-1) == targets_C
    smoothed_C = nll_C
    if settings.label_smoothing:
        entropy = -(on * jnp.log(on) + (V - 1) * off * jnp.log(off + 1e-20))
        off_target_C = V * log_z_C - jnp.sum(logits_CV, axis=-1)
        smoothed_C = (on - off) * nll_C + off * off_target_C - entropy
    total = jnp.sum(scales_C * (smoothed_C + z_loss * log_z_C**2))

    def dlogits():
        p_CV = jnp.exp(logits_CV - log_z_C[:, None])
        q_CV = jnp.where(is_target_CV, on, off)
        return scales_C[:, None] * ((1.0 + 2.0 * z_loss * log_z_C[:, None]) * p_CV - q_CV)

    return total, (nll_C, log_z_C, correct_C), dlogits
