"""Products with weights, computed in the way that suits the hardware.

Shape suffixes: R rows, D and F features of the two sides of a weight.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from t5jax.sharding import devices_together

# Measured: docs/benchmarks.md.
_FEW_ROWS = range(3, 65)
_TOKENS_OF_A_PART = 1024


class FewRowsParam(nnx.Param):
    """A weight [D, F] that lies as [F, D], for products with few rows on a CPU."""


def on_one_cpu(devices: int | None = None) -> bool:
    """Whether a program that `devices` run together (default: the one that is being traced) runs on
    a CPU alone."""
    return jax.default_backend() == "cpu" and (devices or devices_together()) == 1


def dense(x: jax.Array, weight: nnx.Param) -> jax.Array:
    """x @ weight over the last axis, [..., D] -> [..., F].

    As one matrix product: from a batch of matrices XLA makes the weight's gradient out of
    transposed copies, which on CPUs takes longer than the product itself.
    """
    if isinstance(weight, FewRowsParam):
        return product_of_few_rows(x, weight[...])
    return (x.reshape(-1, x.shape[-1]) @ weight[...]).reshape(*x.shape[:-1], -1)


def product_of_few_rows(x_RD: jax.Array, weight_FD: jax.Array, dtype=None) -> jax.Array:
    """x @ weight, [R, F], as weight^T @ x^T: kernels for CPUs pack what they multiply from the
    right, and a weight read once for a few rows is not worth packing.

    The barriers keep the compiler from turning it round again.
    """
    x_DR = jax.lax.optimization_barrier(x_RD.T)
    y_FR = jnp.matmul(weight_FD, x_DR, preferred_element_type=dtype)
    return jax.lax.optimization_barrier(y_FR).T


def are_few_rows(num_rows: int, devices: int | None = None) -> bool:
    """Whether `product_of_few_rows` is the faster one; False for a symbolic number of rows."""
    return isinstance(num_rows, int) and num_rows in _FEW_ROWS and on_one_cpu(devices)


def turn_weights(module: nnx.Module) -> None:
    """Lays the matrices of a module, which it multiplies with by `dense`, out for few rows."""
    for name, value in list(vars(module).items()):
        if isinstance(value, nnx.Param) and value.ndim == 2:
            setattr(module, name, FewRowsParam(value[...].T))


def in_parts(function: Callable, tokens_BS: jax.Array, segments_BS: jax.Array):
    """`function(tokens_BS, segments_BS)`, whose results have the same rows.

    On one CPU it is given a few rows at a time, so that what it computes on the way lies in memory
    that is in use already: a CPU's fresh memory is slow.
    """
    B, S = tokens_BS.shape
    if not (isinstance(B, int) and isinstance(S, int) and on_one_cpu()):
        return function(tokens_BS, segments_BS)
    most = max(_TOKENS_OF_A_PART // S, 1)
    rows = max(n for n in range(1, B + 1) if B % n == 0 and n <= most)
    parts = tuple(x.reshape(B // rows, rows, S) for x in (tokens_BS, segments_BS))
    results = jax.lax.map(lambda part: function(*part), parts)
    return jax.tree.map(lambda x: x.reshape(B, *x.shape[2:]), results)
