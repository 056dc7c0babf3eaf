"""Every attention against einsum on this device: outputs and gradients, part of accelerator.py.

The reference is einsum in float32 at the highest precision of products. The output's gradient is 0
at padding, as in training: there implementations may differ, and nothing of it reaches a loss.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.attention import NAMES, attend, first_line
from t5jax.model.attention import Mask, PositionBias

ARRAYS = ("y", "dq", "dk", "dv", "dbias")
# Of the largest value of each array. Products of float32 are sums of bfloat16 or TF32 products in
# some kernels of accelerators, whatever precision is asked for.
LIMITS = {"bfloat16": 2e-2, "float32": 5e-3}
LIMITS_ON_CPU = {"bfloat16": 2e-2, "float32": 1e-5}


class Case(NamedTuple):
    """One attention; `rows` says how its rows are filled: "padded" ones have different lengths,
    "packed" ones several segments and padding; "masked" are all but two, "masked keys" the keys of
    all but two (examples with empty inputs)."""

    name: str
    queries: int
    keys: int
    rows: str = "padded"
    causal: bool = False
    prefix: bool = False
    has_bias: bool = True
    num_heads: int = 12
    head_dim: int = 64

    def smaller(self) -> "Case":
        """The same for a machine without an accelerator."""
        sizes = {"queries": self.queries // 8, "keys": self.keys // 8}
        return self._replace(num_heads=3, head_dim=self.head_dim // 8, **sizes)


CASES = (
    Case("encoder, padded", 512, 512),
    Case("encoder, packed", 512, 512, rows="packed"),
    Case("decoder, T=114", 114, 114, causal=True),
    Case("decoder, T=114, packed", 114, 114, rows="packed", causal=True),
    Case("cross, 114 x 512", 114, 512, has_bias=False),
    Case("cross, 114 x 512, packed", 114, 512, rows="packed", has_bias=False),
    Case("length 1000, packed", 1000, 1000, rows="packed"),
    Case("rows without keys", 512, 512, rows="masked"),
    Case("cross, rows without inputs", 114, 512, rows="masked keys", has_bias=False),
    Case("prefix, packed", 512, 512, rows="packed", causal=True, prefix=True),
    Case("head_dim 128, padded", 512, 512, head_dim=128, num_heads=8),
)


def segments(kind: str, num_rows: int, length: int, seed: int = 0) -> np.ndarray:
    """int32 [B, length]; the same seed gives queries and keys the same segments."""
    rng = np.random.default_rng(seed)
    found = np.zeros((num_rows, length), np.int32)
    for number, row in enumerate(found):
        if kind.startswith("masked"):
            row[: {0: length, 1: 1}.get(number, 0)] = 1
        elif kind == "padded":
            row[: round(length * rng.uniform(0.5, 1.0))] = 1
        else:
            for segment, end in enumerate(np.sort(rng.uniform(0.1, 0.95, 3))[::-1]):
                row[: round(length * end)] = 3 - segment
    return found


def inputs_of(case: Case, num_rows: int = 3):
    """(q, k, v, dy, bias by distance or None, mask), of values that bfloat16 holds."""
    rng = np.random.default_rng(1)
    N, H = case.num_heads, case.head_dim
    of_queries = "padded" if case.rows == "masked keys" else case.rows
    query_segments = segments(of_queries, num_rows, case.queries)
    key_segments = segments(case.rows, num_rows, case.keys)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape, np.float32), "bfloat16")
    q, dy = (normal(num_rows, case.queries, N, H) for _ in range(2))
    k, v = (normal(num_rows, case.keys, N, H) for _ in range(2))
    bias_NW = normal(N, case.queries + case.keys) if case.has_bias else None
    prefix = None
    if case.prefix:  # of the first segment: what reads all of itself
        prefix = jnp.asarray((np.arange(case.keys) < case.keys // 8) & (key_segments > 0), np.int32)
    mask = Mask(
        jnp.asarray(query_segments),
        jnp.asarray(key_segments),
        case.causal,
        prefix,
        padded_at_end=case.rows != "packed",
    )
    seen = jnp.asarray(query_segments > 0)[:, :, None, None]
    return H**-0.5 * q, k, v, jnp.where(seen, dy, 0), bias_NW, mask


def outputs_and_gradients(implementation: str, dtype: str, q, k, v, dy, bias_NW, mask: Mask):
    """y, dq, dk, dv and, with a bias, dbias of one implementation, computed in `dtype`."""

    @jax.jit
    def run(q, k, v, dy, bias_NW, arrays):
        queries, keys, prefix = arrays
        given = mask._replace(query_segments=queries, key_segments=keys, prefix=prefix)

        def forward(q, k, v, bias_NW):
            bias = None if bias_NW is None else PositionBias.of_distances(bias_NW, q.shape[1])
            return attend(implementation, q, k, v, bias, given)

        y, gradients = jax.vjp(forward, q, k, v, bias_NW)
        return y, *gradients(dy)

    inputs = jax.tree.map(lambda x: x.astype(dtype), (q, k, v, dy, bias_NW))
    arrays = (mask.query_segments, mask.key_segments, mask.prefix)
    with jax.default_matmul_precision("highest"):
        return jax.device_get(run(*inputs, arrays))


def check(case: Case, names: tuple[str, ...]) -> Iterator[dict]:
    """A dict for each dtype and implementation: `errors` relative to the largest value of each
    array, `limit` and `ok`; or `why_not`. All are given the same numbers, which bfloat16 holds."""
    inputs = inputs_of(case)
    reference = outputs_and_gradients("einsum", "float32", *inputs)
    seen = np.asarray(inputs[-1].query_segments > 0)
    limits = LIMITS_ON_CPU if jax.default_backend() == "cpu" else LIMITS
    for dtype, limit in limits.items():
        for name in names:
            row = {"implementation": name, "dtype": dtype, "case": case.name, "limit": limit}
            try:
                got = outputs_and_gradients(name, dtype, *inputs)
            except Exception as error:  # the table says what the device or the kernel refuses
                yield row | {"why_not": first_line(error)}
                continue
            errors = {}
            for what, x, y in zip(ARRAYS, got, reference, strict=True):
                if y is not None:
                    errors[what] = relative_error(*((x[seen], y[seen]) if what == "y" else (x, y)))
            yield row | {"errors": errors, "ok": all(error <= limit for error in errors.values())}


def names_to_check() -> tuple[str, ...]:
    """The implementations but the reference, and but the one for CPUs elsewhere."""
    left_out = ("einsum",) if jax.default_backend() == "cpu" else ("einsum", "rowwise")
    return tuple(name for name in NAMES if name not in left_out)


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference over the largest value wanted; infinite for what is not finite."""
    difference = np.max(np.abs(np.asarray(got, np.float64) - np.asarray(want, np.float64)))
    error = difference / np.max(np.abs(want))
    return float(error) if np.isfinite(error) else float("inf")
