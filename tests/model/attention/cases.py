"""Attentions of every kind of mask, and what NumPy in float64 makes of them, with gradients."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from t5jax.model.attention import Mask, PositionBias, dot_product_attention
from t5jax.model.attention.score import PLAIN


class Case(NamedTuple):
    """Inputs of one attention; `dy` is the gradient of its output."""

    query_segments: list[list[int]]  # [B, T]
    key_segments: list[list[int]]  # [B, S]
    causal: bool
    has_bias: bool
    prefix: list[list[int]] | None = None  # [B, S]

    def arrays(self, num_heads=3, head_dim=5):
        """q, k, v, the bias by distance [N, T + S], and dy."""
        rng = np.random.default_rng(3)
        (B, T), S = np.shape(self.query_segments), np.shape(self.key_segments)[1]
        normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
        q = normal(B, T, num_heads, head_dim)
        k, v = normal(B, S, num_heads, head_dim), normal(B, S, num_heads, head_dim)
        bias = normal(num_heads, T + S) if self.has_bias else None
        return q, k, v, bias, normal(*q.shape)

    def mask(self) -> Mask:
        as_array = functools.partial(jnp.asarray, dtype=jnp.int32)
        prefix = None if self.prefix is None else as_array(self.prefix)
        return Mask(as_array(self.query_segments), as_array(self.key_segments), self.causal, prefix)


PACKED = [[1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 0], [1] * 11, [1] + [0] * 10, [0] * 11]
CASES = {
    "packed decoder": Case(PACKED, PACKED, causal=True, has_bias=True),
    "packed encoder": Case(PACKED, PACKED, causal=False, has_bias=True),
    # Row 2: inputs of another segment only; row 3: no inputs; row 4: a row that fills up a batch.
    "cross": Case(
        [[1, 1, 2, 2, 2, 0, 0], [1] * 7, [2] * 7, [1] * 7, [0] * 7],
        [[1, 1, 1, 2, 0], [1, 1, 0, 0, 0], [1] * 5, [0] * 5, [0] * 5],
        causal=False,
        has_bias=False,
    ),
    # Prefixes of three and one in row 1; all of row 2; none in row 3.
    "packed prefix LM": Case(
        PACKED,
        PACKED,
        causal=True,
        has_bias=True,
        prefix=[[1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0], [1] * 11, [0] * 11, [1] * 11],
    ),
    "one position": Case([[1], [1]], [[1], [0]], causal=True, has_bias=True),
}


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def reference(case: Case, q, k, v, bias, dy, score=PLAIN):
    """(y, dq, dk, dv, dbias) in float64, row by row and head by head."""
    q, k, v, dy = (x.astype(np.float64) for x in (q, k, v, dy))
    y, dq, dk, dv = (np.zeros_like(x) for x in (q, q, k, v))
    T, S = q.shape[1], k.shape[1]
    dbias = np.zeros((q.shape[2], T + S))
    index_TS = np.arange(S) - np.arange(T)[:, None] + T - 1
    for b, (query_segments, key_segments) in enumerate(
        zip(np.array(case.query_segments), np.array(case.key_segments), strict=True)
    ):
        allowed = (query_segments[:, None] == key_segments) & (key_segments > 0)
        if case.causal:
            past = np.arange(len(key_segments)) <= np.arange(len(query_segments))[:, None]
            allowed &= past if case.prefix is None else past | (np.array(case.prefix)[b] > 0)
        if score.window is not None:
            allowed &= abs(np.arange(S) - np.arange(T)[:, None]) <= score.window
        for n in range(q.shape[2]):
            products, slope = q[b, :, n] @ k[b, :, n].T, 1.0
            if score.soft_cap is not None:
                bounded = np.tanh(products / score.soft_cap)
                products, slope = score.soft_cap * bounded, 1 - bounded**2
            scores = products + (0.0 if bias is None else bias[n][index_TS])
            # A query that may look nowhere looks everywhere, equally.
            scores = np.where(allowed, scores, np.where(allowed.any(1)[:, None], -np.inf, 0.0))
            p = softmax(scores)
            y[b, :, n] = p @ v[b, :, n]
            dv[b, :, n] = p.T @ dy[b, :, n]
            dp = dy[b, :, n] @ v[b, :, n].T
            ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True))
            np.add.at(dbias[n], index_TS, ds)
            ds = ds * slope
            dq[b, :, n], dk[b, :, n] = ds @ k[b, :, n], ds.T @ q[b, :, n]
    return y, dq, dk, dv, dbias


def attend_and_gradients(case: Case, implementation: str, q, k, v, bias, dy, score=PLAIN):
    @jax.jit
    def run(q, k, v, bias, dy):
        def call(q, k, v, bias):
            bias = None if bias is None else PositionBias.of_distances(bias, q.shape[1])
            return dot_product_attention(q, k, v, bias, case.mask(), implementation, score)

        y, gradients = jax.vjp(call, q, k, v, bias)
        return y, *gradients(dy)

    return run(q, k, v, bias, dy)
