"""Attention by cuDNN's fused kernels (through `jax.nn.dot_product_attention`), on NVIDIA GPUs from
Ampere on.

cuDNN computes in bfloat16 and takes the position bias [N, T, S] in bfloat16, too: its gradient is
rounded to bfloat16 entry by entry before it is summed over equal distances. Its backward pass adds
in no fixed order unless XLA_FLAGS has --xla_gpu_deterministic_ops=true.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim.
"""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t5jax.errors import ConfigError
from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.mask import Mask
from t5jax.model.attention.score import PLAIN, ScoreFunction
from t5jax.sharding import device_kind_in_program, on_shards

_LIBRARY = "cudnn"  # "xla" computes the same on any platform
# Compute capability of NVIDIA's data centre GPUs, by what is in their names.
_CAPABILITIES = {
    r"B300": (10, 3),
    r"B200": (10, 0),
    r"H(100|200|800|20)\b": (9, 0),
    r"L(4|40|40S)\b|Ada": (8, 9),
    r"A(100|800|30)\b": (8, 0),
    r"T4\b": (7, 5),
    r"V100|P100": (7, 0),
}
_OLDEST, _OF_UNKNOWN = (8, 0), (8, 0)
# What JAX asks the host's GPU for while it traces, and what stands for one that is not there.
_VERSION = 91000


class _Arrays(NamedTuple):
    q_BTNH: Any
    k_BSNH: Any
    v_BSNH: Any
    bias_NTS: Any  # None: no position bias
    query_lengths_B: Any
    key_lengths_B: Any


def cudnn_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    score: ScoreFunction = PLAIN,
) -> jax.Array:
    """Attention of rows that are padded at their end. The result at a padding query is 0, where
    einsum's is some average: neither a loss nor another position ever reads it.

    Queries of a row without any key get the mean of the values, as einsum's; no gradient goes from
    them to queries and keys, of which the mean does not depend.
    """
    assert score == PLAIN, score
    assert mask.padded_at_end, mask
    T, S = q_BTNH.shape[1], k_BSNH.shape[1]
    key_lengths_B = _lengths(mask.key_segments)
    has_keys_B = key_lengths_B > 0
    # What cuDNN makes of a row without keys is not specified: equal scores of all of them are.
    arrays = _Arrays(
        jnp.where(has_keys_B[:, None, None, None], q_BTNH, 0),
        k_BSNH,
        v_BSNH,
        None if bias is None else bias.dense_NTS.astype(q_BTNH.dtype),
        jnp.where(has_keys_B, _lengths(mask.query_segments), T),
        jnp.where(has_keys_B, key_lengths_B, S),
    )
    features = ("batch", None, "heads", None)
    rows = ("batch",)
    axes = _Arrays(features, features, features, ("heads", None, None), rows, rows)
    attend = lambda *arrays: _attend(mask.causal, _Arrays(*arrays))
    return on_shards(attend, axes, features)(*arrays)


def why_not_cudnn(q_BTNH, k_BSNH, v_BSNH, bias, mask, score) -> str | None:
    """Why `cudnn_attention` cannot do this call; None: it can."""
    (T, _, H), S = q_BTNH.shape[1:], k_BSNH.shape[1]
    capability = compute_capability()
    if capability < _OLDEST:
        return f"a {device_kind_in_program()} is older than NVIDIA's Ampere"
    if q_BTNH.dtype != jnp.bfloat16:
        return f"it computes in bfloat16, not in {q_BTNH.dtype}"
    if mask.prefix is not None or not mask.padded_at_end:
        return "it would store [B, N, T, S] for the mask of packed rows or a prefix"
    if score != PLAIN:
        return f"it has no {score}"
    if bias is not None and (T % 2 or S % 2):
        return f"its bias has no gradient for odd lengths ({T} queries, {S} keys)"
    largest = 256 if capability >= (9, 0) else 128
    if H % 8 or largest < H:
        return f"head_dim is {H}, not a multiple of 8 up to {largest}"
    return None


def compute_capability() -> tuple[int, int]:
    """Of the mesh's GPUs, by their name: they need not be here."""
    kind = device_kind_in_program()
    matches = (value for name, value in _CAPABILITIES.items() if re.search(name, kind))
    return next(matches, _OF_UNKNOWN)


def _lengths(segments_BT: jax.Array) -> jax.Array:
    return jnp.sum(segments_BT > 0, axis=1, dtype=jnp.int32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(causal: bool, arrays: _Arrays) -> jax.Array:
    """`jax.nn`'s, but its gradient is made here: within the context in which JAX looks for a GPU,
    however late a caller differentiates."""
    with _as_if_gpu_were_here():
        return _call(causal, arrays)


def _forward(causal: bool, arrays: _Arrays):
    *differentiated, query_lengths_B, key_lengths_B = arrays

    def call(q_BTNH, k_BSNH, v_BSNH, bias_NTS):
        given = q_BTNH, k_BSNH, v_BSNH, bias_NTS, query_lengths_B, key_lengths_B
        return _call(causal, _Arrays(*given))

    with _as_if_gpu_were_here():
        return jax.vjp(call, *differentiated)


def _backward(causal: bool, backward, dy_BTNH):
    dq_BTNH, dk_BSNH, dv_BSNH, dbias_NTS = backward(dy_BTNH)
    return (_Arrays(dq_BTNH, dk_BSNH, dv_BSNH, dbias_NTS, None, None),)


_attend.defvjp(_forward, _backward)


def _call(causal: bool, arrays: _Arrays) -> jax.Array:
    bias_NTS = arrays.bias_NTS
    return jax.nn.dot_product_attention(
        arrays.q_BTNH,
        arrays.k_BSNH,
        arrays.v_BSNH,
        None if bias_NTS is None else bias_NTS[None],
        scale=1.0,
        is_causal=causal,
        query_seq_lengths=arrays.query_lengths_B,
        key_value_seq_lengths=arrays.key_lengths_B,
        implementation=_LIBRARY,
    )


@contextlib.contextmanager
def _as_if_gpu_were_here() -> Iterator[None]:
    """Context in which JAX traces cuDNN's attention on a host without a GPU, for the mesh's.

    JAX has no public way to say which GPU is meant. Raises ConfigError where its version asks in
    another way.
    """
    if jax.default_backend() == "gpu":
        yield
        return
    from jax._src.cudnn import fused_attention_stablehlo as rules

    number = lambda text: tuple(map(int, text.split(".")))
    answers = {
        "check_cudnn_version": lambda: _VERSION,
        "check_compute_capability": lambda text: compute_capability() >= number(text),
        "is_cuda_compute_capability_equal": lambda text: compute_capability() == number(text),
    }
    if missing := [name for name in answers if not hasattr(rules, name)]:
        raise ConfigError(
            f"model.attention = 'cudnn': JAX {jax.__version__} cannot be told of a GPU that is not "
            f"here (it has no {missing[0]}); set model.attention = 'triton' to plan"
        )
    kept = {name: getattr(rules, name) for name in answers}
    try:
        for name, answer in answers.items():
            setattr(rules, name, answer)
        yield
    finally:
        for name, value in kept.items():
            setattr(rules, name, value)
