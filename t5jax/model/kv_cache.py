"""Keys and values that decoding attends to, in the layout that the platform reads fastest.

Heads first, [B, N, S, H], on CPUs and GPUs: those of a head are contiguous. On TPUs heads are
joined, [B, S, N H]: then all lanes are filled whatever head_dim is, and one matrix product does all
heads, with queries that are zero at the features of the other ones. That is N times the work and
yet less than reading keys and values takes.

Shape suffixes: B rows, K beams of a row, R = B K, T target length, S source length, J = K slots of
a position, N heads, H head_dim, D = N H.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from t5jax.sharding import on_shards, platform_in_program


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, of the same shape and layout."""

    key: jax.Array
    value: jax.Array

    @property
    def heads_are_joined(self) -> bool:
        return self.key.ndim == 3


def laid_out(key_BSNH: jax.Array, value_BSNH: jax.Array) -> KeyValue:
    """In the platform's layout."""
    if platform_in_program() == "tpu":
        return KeyValue(*(x.reshape(*x.shape[:2], -1) for x in (key_BSNH, value_BSNH)))
    return KeyValue(key_BSNH.swapaxes(1, 2), value_BSNH.swapaxes(1, 2))


def empty_kv_cache(like: KeyValue, num_slots: int) -> KeyValue:
    """Of as many rows and heads."""
    axis = _positions(like)
    shape = (*like.key.shape[:axis], num_slots, *like.key.shape[axis + 1 :])
    empty = jnp.zeros(shape, like.key.dtype)
    return KeyValue(empty, empty)


def update_kv_cache(kv_cache: KeyValue, new: KeyValue, index: jax.Array) -> KeyValue:
    """The cache of T J slots with keys and values [R, N, H] written at position `index`.

    A position's slots are contiguous, so that the update is one slice and attention reads the array
    in its own shape: XLA writes twice, into copies, where it is read in another one.
    """
    B, axis = kv_cache.key.shape[0], _positions(kv_cache)
    joined = kv_cache.heads_are_joined

    def store(old, x_RNH):
        x_BJNH = x_RNH.reshape(B, -1, *x_RNH.shape[1:])
        J = x_BJNH.shape[1]
        new = x_BJNH.reshape(B, J, -1) if joined else x_BJNH.swapaxes(1, 2)
        return jax.lax.dynamic_update_slice_in_dim(old, new, index * J, axis=axis)

    return KeyValue(store(kv_cache.key, new.key), store(kv_cache.value, new.value))


def scores_of(q_BKNH: jax.Array, memory: KeyValue) -> jax.Array:
    """Products of queries and keys, float32 [B, N, K, S]."""
    f32 = {"preferred_element_type": jnp.float32}
    if not memory.heads_are_joined:
        return jnp.einsum("BKNH,BNSH->BNKS", q_BKNH, memory.key, **f32)

    def products(q_BKNH, k_BSD):
        q_BNKD = _only_own_features(q_BKNH.reshape(*q_BKNH.shape[:2], -1)[:, None], q_BKNH.shape[2])
        return jnp.einsum("BNKD,BSD->BNKS", q_BNKD, k_BSD, **f32)

    axes = ("batch", None, "heads", None), ("batch", None, "heads")
    return on_shards(products, axes, ("batch", "heads", None, None))(q_BKNH, memory.key)


def sum_of_values(probs_BNKS: jax.Array, memory: KeyValue) -> jax.Array:
    """Values weighted by the probabilities, [B, K, N H]."""
    if not memory.heads_are_joined:
        y_BKNH = (probs_BNKS @ memory.value).swapaxes(1, 2)
        return y_BKNH.reshape(*y_BKNH.shape[:2], -1)

    def products(probs_BNKS, v_BSD):
        f32 = {"preferred_element_type": jnp.float32}
        y_BNKD = jnp.einsum("BNKS,BSD->BNKD", probs_BNKS, v_BSD, **f32)
        own_BNKD = _only_own_features(y_BNKD, probs_BNKS.shape[1])
        return jnp.sum(own_BNKD, axis=1).astype(v_BSD.dtype)

    axes = ("batch", "heads", None, None), ("batch", None, "heads")
    return on_shards(products, axes, ("batch", None, "heads"))(probs_BNKS, memory.value)


def _positions(memory: KeyValue) -> int:
    """The axis of positions."""
    return 1 if memory.heads_are_joined else 2


def _only_own_features(x_BNKD: jax.Array, num_heads: int) -> jax.Array:
    """[B, N, K, D] with zeros at the features of other heads than a row's own."""
    D = x_BNKD.shape[-1]
    head_D = jnp.arange(D) // (D // num_heads)
    own_N1D = jnp.arange(num_heads)[:, None, None] == head_D
    return jnp.where(own_N1D, x_BNKD, 0)
