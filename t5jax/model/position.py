"""Relative position bias (Raffel et al. 2020, section 2.1; buckets as in Mesh TensorFlow)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5jax.model.attention.bias import PositionBias
from t5jax.model.config import T5Config


def relative_position_buckets(
    distance: np.ndarray, *, bidirectional: bool, num_buckets: int, max_distance: int
) -> np.ndarray:
    """Bucket of each distance `key position - query position`, int32, same shape.

    Near distances get a bucket each; from half of a direction's buckets on they share
    logarithmically wider ones, the last of which takes all distances from `max_distance` on.
    Bidirectional: the upper half of the buckets is for keys after the query; otherwise keys after
    the query all fall into bucket 0. In NumPy float64 because device logarithms of lower precision
    move the edges.
    """
    if bidirectional:
        num_buckets //= 2
        first = np.where(distance > 0, num_buckets, 0)
        distance = np.abs(distance)
    else:
        first, distance = 0, np.maximum(-distance, 0)
    exact = num_buckets // 2
    # Exact powers lie on edges: 1e-9 decides them as every published implementation does.
    scaled = np.log(np.maximum(distance, exact) / exact) / np.log(max_distance / exact)
    far = exact + np.floor(scaled * (num_buckets - exact) + 1e-9).astype(np.int32)
    bucket = np.where(distance < exact, distance, np.minimum(far, num_buckets - 1))
    return (first + bucket).astype(np.int32)


class RelativePositionBias(nnx.Module):
    """One learned scalar per head and bucket of distance.

    The meaning of a bucket depends on the call: one table may serve a bidirectional stack and a
    causal one.
    """

    def __init__(self, cfg: T5Config, *, rngs: nnx.Rngs):
        shape = (cfg.num_heads, cfg.relpos_num_buckets)
        init = jax.nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        self.embedding = nnx.Param(init(rngs.params(), shape), axes=("heads", "relpos_buckets"))
        self.max_distance = cfg.relpos_max_distance

    def __call__(self, query_length: int, key_length: int, *, bidirectional: bool) -> PositionBias:
        """Bias of every query position and key position, in the table's dtype."""
        distance = np.arange(1 - query_length, key_length + 1)
        by_distance_NW = self.by_distance(distance, bidirectional=bidirectional)
        return PositionBias.of_distances(by_distance_NW, query_length, self.max_distance)

    def by_distance(self, distance: np.ndarray, *, bidirectional: bool) -> jax.Array:
        """Bias [N, len(distance)] of keys at `distance` after the query."""
        table = self.embedding[...]
        buckets = relative_position_buckets(
            distance,
            bidirectional=bidirectional,
            num_buckets=table.shape[-1],
            max_distance=self.max_distance,
        )
        # In float32 for the gradient: hundreds of distances may add to one bucket.
        return table.astype(jnp.float32)[:, buckets].astype(table.dtype)

    def at(self, index: jax.Array, length: int, *, bidirectional: bool = False) -> jax.Array:
        """Bias [N, length] of the query position `index` (traced) to positions 0 … length-1."""
        by_distance = self.by_distance(np.arange(1 - length, length), bidirectional=bidirectional)
        return jax.lax.dynamic_slice_in_dim(by_distance, length - 1 - index, length, axis=1)
