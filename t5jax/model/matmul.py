"""Matrix products with weights, chosen by hardware and batch size.

Shape suffixes: R rows, D and F features of the two sides of a weight.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.sharding import devices_in_program, platform_in_program

# Measured: docs/benchmarks.md.
_SMALL_BATCH = range(3, 65)
_BLOCK_TOKENS = 1024


class TransposedParam(nnx.Param):
    """A weight [D, F] stored as [F, D], for products with small batches on a CPU."""


def on_one_cpu(devices: int | None = None) -> bool:
    """Whether a program that `devices` run together (default: the one that is being traced) runs on
    a CPU alone."""
    return platform_in_program() == "cpu" and (devices or devices_in_program()) == 1


def dense(x: jax.Array, weight: nnx.Param) -> jax.Array:
    """x @ weight over the last axis, [..., D] -> [..., F].

    As one matrix product: from a batch of matrices XLA makes the weight's gradient out of
    transposed copies, which on CPUs takes longer than the product itself.
    """
    if isinstance(weight, TransposedParam):
        return small_batch_matmul(x, weight[...])
    return (x.reshape(-1, x.shape[-1]) @ weight[...]).reshape(*x.shape[:-1], -1)


def small_batch_matmul(x_RD: jax.Array, weight_FD: jax.Array, dtype=None) -> jax.Array:
    """x @ weight, [R, F], as weight^T @ x^T: CPU kernels pack the right operand, and a weight that
    is read once for a few rows is not worth packing.

    The barriers keep the compiler from undoing the transposition.
    """
    x_DR = jax.lax.optimization_barrier(x_RD.T)
    y_FR = jnp.matmul(weight_FD, x_DR, preferred_element_type=dtype)
    return jax.lax.optimization_barrier(y_FR).T


def is_small_batch(num_rows: int, devices: int | None = None) -> bool:
    """Whether `small_batch_matmul` is the faster one; False for a symbolic number of rows."""
    return isinstance(num_rows, int) and num_rows in _SMALL_BATCH and on_one_cpu(devices)


def transpose_weights(module: nnx.Module) -> None:
    """Transposes the matrices of a module, which `dense` multiplies with, for small batches."""
    for name, value in list(vars(module).items()):
        if isinstance(value, nnx.Param) and value.ndim == 2:
            setattr(module, name, TransposedParam(value[...].T))


def in_row_blocks(function: Callable, tokens_BS: jax.Array, segments_BS: jax.Array):
    """`function(tokens_BS, segments_BS)`, whose results have the same rows.

    On one CPU a few rows at a time, so that activations reuse memory: first writes to a CPU's fresh
    memory are slow.
    """
    B, S = tokens_BS.shape
    if not (isinstance(B, int) and isinstance(S, int) and on_one_cpu()):
        return function(tokens_BS, segments_BS)
    most = max(_BLOCK_TOKENS // S, 1)
    rows = max(n for n in range(1, B + 1) if B % n == 0 and n <= most)
    blocks = tuple(x.reshape(B // rows, rows, S) for x in (tokens_BS, segments_BS))
    results = jax.lax.map(lambda block: function(*block), blocks)
    return jax.tree.map(lambda x: x.reshape(B, *x.shape[2:]), results)
