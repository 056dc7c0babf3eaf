"""Relative position bias of one attention, by distance and as a matrix.

Shape suffixes: T query length, S key length, N heads, W = T + S distances.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class PositionBias(NamedTuple):
    """The same bias in two forms: an implementation reads one of them, and the compiler drops the
    other. `dense_NTS[n, t, s]` is `by_distance_NW[n, T - 1 + s - t]`."""

    by_distance_NW: jax.Array  # entry w is for the distance w - (T - 1) of a key after the query
    dense_NTS: jax.Array
    # Distance from which on it is constant, on each side; None: from nowhere. Implementations may
    # give the gradients of distances that are farther away to this one.
    constant_from: int | None = None

    @classmethod
    def of_distances(
        cls, by_distance_NW: jax.Array, query_length: int, constant_from: int | None = None
    ) -> "PositionBias":
        """From the biases [N, T + S] of the distances 1 - T … S (the last of which is not used)."""
        return cls(by_distance_NW, toeplitz(by_distance_NW, query_length), constant_from)


def toeplitz(by_distance_NW: jax.Array, query_length: int) -> jax.Array:
    """[N, T, S] from the biases [N, T + S] of the distances 1 - T … S.

    The distances are laid T times in a row, which is read with rows one shorter: indexing by [T, S]
    buckets would make the gradient a scatter of T S.
    """
    (N, W), T = by_distance_NW.shape, query_length
    flat = jnp.broadcast_to(by_distance_NW[:, None], (N, T, W)).reshape(N, T * W)
    return flat[:, T - 1 : T * W - 1].reshape(N, T, W - 1)[:, :, : W - T]
