"""Attention mask: segment ids of packed rows, causality, prefixes.

Shape suffixes: B rows, T query length, S key length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

MASKED = -1e9  # added to scores; a row without any allowed key stays finite (uniform)


class Mask(NamedTuple):
    """Attention mask: queries see keys of the same non-zero segment, `causal` none after them."""

    query_segments: jax.Array  # [B, T] int32
    key_segments: jax.Array  # [B, S] int32; 0 is padding
    causal: bool = False
    prefix: jax.Array | None = None  # [B, S] int32: 1 at keys that earlier queries see, too
    # Whether it is known, without looking at the ids, that a row is one segment with padding at its
    # end: not so in packed batches.
    padded_at_end: bool = False

    @property
    def bidirectional(self) -> bool:
        """Whether a query may see later keys: then position buckets tell the directions apart
        (Mesh TensorFlow: all but fully autoregressive attention)."""
        return not self.causal or self.prefix is not None

    def bias(self, window: int | None = None) -> jax.Array:
        """[B, T, S] float32: 0 where a query sees a key, very negative elsewhere; keys farther away
        than `window` positions are not seen."""
        q, k = self.query_segments[:, :, None], self.key_segments[:, None, :]
        allowed = (q == k) & (k > 0)
        if self.causal:
            earlier = jnp.tril(jnp.ones(allowed.shape[1:], bool))
            allowed &= earlier if self.prefix is None else earlier | (self.prefix[:, None, :] > 0)
        if window is not None:
            T, S = allowed.shape[1:]
            allowed &= abs(jnp.arange(S) - jnp.arange(T)[:, None]) <= window
        return jnp.where(allowed, 0.0, MASKED)
