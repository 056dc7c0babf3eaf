"""Choice of the attention implementation, by the platform of the mesh that is traced for.

Shape suffixes: B rows, T query length, S key length, N heads, H head_dim.
"""

from collections.abc import Callable

import jax

from t5jax.model.attention.bias import PositionBias
from t5jax.model.attention.einsum import einsum_attention
from t5jax.model.attention.mask import Mask
from t5jax.model.attention.rowwise import rowwise_attention
from t5jax.model.matmul import on_one_cpu

IMPLEMENTATIONS: dict[str, Callable] = {"einsum": einsum_attention, "rowwise": rowwise_attention}


def dot_product_attention(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    bias: PositionBias | None,
    mask: Mask,
    implementation: str = "einsum",
) -> jax.Array:
    """softmax(q k + bias + mask) v, [B, T, N, H] in the dtype of v; scores in float32.

    There is no 1/sqrt(head_dim): T5 folds it into the initial scale of the query weights.
    """
    if implementation == "auto":
        implementation = _implementation_of_platform()
    return IMPLEMENTATIONS[implementation](q_BTNH, k_BSNH, v_BSNH, bias, mask)


def _implementation_of_platform() -> str:
    return "rowwise" if on_one_cpu() else "einsum"
