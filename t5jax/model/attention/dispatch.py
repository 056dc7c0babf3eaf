"""Choice of the attention implementation, by the platform of the mesh that is traced for.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim.
"""

import functools
import itertools
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax

from t5jax.errors import ConfigError
from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.cudnn import cudnn_attention, why_not_cudnn
from t5jax.model.attention.einsum import einsum_attention
from t5jax.model.attention.mask import Mask
from t5jax.model.attention.rowwise import rowwise_attention, why_not_rowwise
from t5jax.model.attention.score import PLAIN, ScoreFunction
from t5jax.model.matmul import on_one_cpu
from t5jax.sharding import platform_in_program

logger = logging.getLogger("t5jax")
# What "auto" tries before einsum, by platform.
_PREFERRED: dict[str, tuple[str, ...]] = {"tpu": ("pallas",), "gpu": ("cudnn", "triton")}
# The platform that an implementation needs; the others run on every one.
PLATFORM_OF = {name: platform for platform, names in _PREFERRED.items() for name in names}


class Implementation(NamedTuple):
    """An attention and its limits; both functions take (q, k, v, bias, mask, score)."""

    attend: Callable[..., jax.Array]
    why_not: Callable[..., str | None]  # why it cannot do this call; None: it can


def dot_product_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    implementation: str = "einsum",
    score: ScoreFunction = PLAIN,
) -> jax.Array:
    """softmax(q k + bias + mask) v, [B, T, N, H] in the dtype of v; scores in float32.

    There is no 1/sqrt(head_dim): T5 folds it into the initial scale of the query weights. Where the
    implementation cannot do this call, the next of the platform does, at last einsum, and the
    reason is logged once. Raises ConfigError if it needs another platform than that of the mesh.
    """
    call = (q_BTNH, k_BSNH, v_BSNH, bias, mask, score)
    for name, following in itertools.pairwise((*_candidates(implementation), "einsum")):
        attend, why_not = _load(name)
        reason = why_not(*call)
        if reason is None:
            return attend(*call)
        _log_once(f"attention: not {name} for this call, because {reason}; next: {following}")
    return einsum_attention(*call)


def _candidates(implementation: str) -> tuple[str, ...]:
    """Names of the implementations to try before einsum, in order."""
    platform = platform_in_program()
    preferred = _PREFERRED.get(platform, ())
    if implementation == "auto":
        return ("rowwise",) if on_one_cpu() else preferred
    if implementation in preferred:
        return preferred[preferred.index(implementation) :]
    needed = PLATFORM_OF.get(implementation, platform)
    if needed != platform:
        raise ConfigError(
            f"model.attention = {implementation!r}: runs on {needed} devices, this mesh's are "
            f"{platform}; set model.attention = 'auto', which takes the platform's fastest"
        )
    return () if implementation == "einsum" else (implementation,)


def _load(name: str) -> Implementation:
    if name == "rowwise":
        return Implementation(rowwise_attention, why_not_rowwise)
    if name == "cudnn":
        return Implementation(cudnn_attention, why_not_cudnn)
    # Imported where it is used: Pallas takes half a second, which no run on CPUs should wait for.
    if name == "pallas":
        from t5jax.model.attention.pallas import pallas_attention, why_not_pallas

        return Implementation(pallas_attention, why_not_pallas)
    from t5jax.model.attention.triton import triton_attention, why_not_triton

    return Implementation(triton_attention, why_not_triton)


@functools.cache
def _log_once(message: str) -> None:
    logger.warning(message)


def why_not(
    implementation: str,
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    score: ScoreFunction = PLAIN,
) -> str | None:
    """Why the named implementation cannot do this call on the devices that it is traced for, so
    that `dot_product_attention` refuses it or falls back; None if it can."""
    needed = PLATFORM_OF.get(implementation)
    if needed not in (None, platform_in_program()):
        return f"it runs on {needed} devices"
    if implementation == "einsum":
        return None
    return _load(implementation).why_not(q_BTNH, k_BSNH, v_BSNH, bias, mask, score)
