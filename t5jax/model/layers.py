"""The layers of T5: RMSNorm, Attention with its KV cache, MLP, Adapter, and TransformerBlock.

Shape suffixes: B rows, K beams of a row, R = B K, T target/query length, S source/key length,
D emb_dim, N heads, H head_dim, F mlp_dim. Every parameter names its axes; `sharding/` is the only
file that knows where they live. Initial values are T5X's. Randomness is an argument: `keys_B`, one
key per row, so that a row's dropout does not depend on how a batch was cut; None means evaluation.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from t5jax.model.attention import Mask, PositionBias, dot_product_attention
from t5jax.model.config import T5Config
from t5jax.model.kv_cache import (
    KeyValue,
    laid_out,
    scores_of,
    sum_of_values,
    update_kv_cache,
)
from t5jax.model.matmul import dense
from t5jax.model.position import RelativePositionBias

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=True),  # T5 1.1's: the tanh approximation
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}
fan_in_normal = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")
fan_in_truncated = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def new_param(rngs: nnx.Rngs, init, **axes: int) -> nnx.Param:
    """A float32 weight, its axes by name: `new_param(rngs, init, embed=512, mlp=1024)`."""
    return nnx.Param(init(rngs.params(), tuple(axes.values())), axes=tuple(axes))


def split_keys(keys_B: jax.Array | None, num: int):
    """`num` independent sets of row keys, [num, B]; of None as many times None."""
    if keys_B is None:
        return (None,) * num
    return jax.vmap(lambda key: jax.random.split(key, num), out_axes=1)(keys_B)


def dropout(x_BTD: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """Zeroes features, the same ones at every position (Mesh TensorFlow, T5X)."""
    if keys_B is None or rate == 0.0:
        return x_BTD
    shape = (1, *x_BTD.shape[2:])
    keep_B1D = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(keys_B)
    return jnp.where(keep_B1D, x_BTD / (1.0 - rate), 0.0).astype(x_BTD.dtype)


class RMSNorm(nnx.Module):
    """T5's layer norm: it neither subtracts the mean nor adds a bias. Computed in float32."""

    def __init__(self, cfg: T5Config):
        self.scale = nnx.Param(jnp.ones(cfg.emb_dim), axes=("embed",))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x = x_BTD.astype(jnp.float32)
        x *= jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
        return x.astype(x_BTD.dtype) * self.scale[...].astype(x_BTD.dtype)


class Attention(nnx.Module):
    """Multi-head attention. The usual 1/sqrt(head_dim) is folded into the query's initial scale.

    Heads and their features share one axis of a weight, as Adafactor and T5 checkpoints expect.
    """

    def __init__(self, cfg: T5Config, *, rngs: nnx.Rngs):
        D, H, NH = cfg.emb_dim, cfg.head_dim, cfg.num_heads * cfg.head_dim
        query_init = jax.nn.initializers.variance_scaling(1.0 / H, "fan_in", "normal")
        self.query = new_param(rngs, query_init, embed=D, heads=NH)
        self.key = new_param(rngs, fan_in_normal, embed=D, heads=NH)
        self.value = new_param(rngs, fan_in_normal, embed=D, heads=NH)
        self.out = new_param(rngs, fan_in_normal, heads=NH, embed=D)
        self.num_heads, self.dropout_rate = cfg.num_heads, cfg.dropout_rate
        self.implementation = cfg.attention

    def __call__(
        self,
        x_BTD: jax.Array,
        memory_BSD: jax.Array,
        bias: PositionBias | None,
        mask: Mask,
        keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Queries from x, keys and values from memory (x itself for self-attention); [B, T, D]."""
        key, value = self.keys_and_values(memory_BSD)
        # Dropping a probability at every query at once, as T5 does, is dropping that key's value.
        value = dropout_values(value, self.dropout_rate, keys_B)
        y_BTNH = dot_product_attention(
            self._project(x_BTD, self.query), key, value, bias, mask, self.implementation
        )
        return dense(y_BTNH.reshape(*y_BTNH.shape[:2], -1), self.out)

    def keys_and_values(self, memory_BSD: jax.Array) -> KeyValue:
        return KeyValue(self._project(memory_BSD, self.key), self._project(memory_BSD, self.value))

    def memory(self, memory_BSD: jax.Array) -> KeyValue:
        """Keys and values as `decode` reads them."""
        return laid_out(*self.keys_and_values(memory_BSD))

    def decode(
        self, x_RD: jax.Array, memories: Sequence[KeyValue], biases: Sequence[jax.Array]
    ) -> jax.Array:
        """Attention of one position of K beams a row to cached keys and values: to the
        concatenation of several caches, of which none is copied. R = B K. Returns [R, D].

        A bias [B, N, K, S] for each carries position and mask.
        """
        B = memories[0].key.shape[0]
        q_RNH = self._project(x_RD, self.query)
        q_BKNH = q_RNH.reshape(B, -1, *q_RNH.shape[1:])
        scores = [scores_of(q_BKNH, m) + bias for m, bias in zip(memories, biases, strict=True)]
        borders = np.cumsum([x.shape[-1] for x in scores])[:-1]
        probs = jax.nn.softmax(jnp.concatenate(scores, axis=-1)).astype(x_RD.dtype)
        parts = zip(jnp.split(probs, borders, axis=-1), memories, strict=True)
        first, *others = (sum_of_values(*part) for part in parts)
        return dense(sum(others, first).reshape(x_RD.shape[0], -1), self.out)

    def _project(self, x: jax.Array, weight: nnx.Param) -> jax.Array:
        return dense(x, weight).reshape(*x.shape[:-1], self.num_heads, -1)


def dropout_values(v_BSNH: jax.Array, rate: float, keys_B: jax.Array | None) -> jax.Array:
    """Zeroes whole values of single heads at single positions."""
    if keys_B is None or rate == 0.0:
        return v_BSNH
    shape = (*v_BSNH.shape[1:3], 1)
    keep_BSN1 = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(keys_B)
    return jnp.where(keep_BSN1, v_BSNH / (1.0 - rate), 0.0).astype(v_BSNH.dtype)


class MLP(nnx.Module):
    """Feed-forward without biases: `act(x wi) wo`, or gated `act0(x wi_0) act1(x wi_1) wo`."""

    def __init__(self, cfg: T5Config, *, rngs: nnx.Rngs):
        D, F = cfg.emb_dim, cfg.mlp_dim
        self.activations, self.dropout_rate = cfg.mlp_activations, cfg.dropout_rate
        if len(cfg.mlp_activations) == 1:
            self.wi = new_param(rngs, fan_in_truncated, embed=D, mlp=F)
        else:
            self.wi_0 = new_param(rngs, fan_in_truncated, embed=D, mlp=F)
            self.wi_1 = new_param(rngs, fan_in_truncated, embed=D, mlp=F)
        self.wo = new_param(rngs, fan_in_truncated, mlp=F, embed=D)

    def __call__(self, x: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        if len(self.activations) == 1:
            hidden = ACTIVATIONS[self.activations[0]](dense(x, self.wi))
        else:
            gate, up = ACTIVATIONS[self.activations[0]], ACTIVATIONS[self.activations[1]]
            hidden = gate(dense(x, self.wi_0)) * up(dense(x, self.wi_1))
        return dense(dropout(hidden, self.dropout_rate, keys_B), self.wo)


class Adapter(nnx.Module):
    """A bottleneck at the end of a block (Houlsby et al. 2019), which at first adds nothing."""

    def __init__(self, cfg: T5Config, *, rngs: nnx.Rngs):
        self.norm = RMSNorm(cfg)
        self.down = new_param(rngs, fan_in_truncated, embed=cfg.emb_dim, mlp=cfg.adapter_dim)
        self.up = new_param(rngs, jax.nn.initializers.zeros, mlp=cfg.adapter_dim, embed=cfg.emb_dim)

    def __call__(self, x: jax.Array) -> jax.Array:
        return dense(jax.nn.relu(dense(self.norm(x), self.down)), self.up)


class TransformerBlock(nnx.Module):
    """Pre-norm residual block: self-attention, cross-attention in a decoder, MLP, adapter."""

    def __init__(self, cfg: T5Config, *, cross_attention: bool, rngs: nnx.Rngs):
        if cfg.per_layer_relative_bias:
            self.relpos_bias = RelativePositionBias(cfg, rngs=rngs)
        self.self_attention_norm = RMSNorm(cfg)
        self.self_attention = Attention(cfg, rngs=rngs)
        if cross_attention:
            self.cross_attention_norm = RMSNorm(cfg)
            self.cross_attention = Attention(cfg, rngs=rngs)
        self.mlp_norm = RMSNorm(cfg)
        self.mlp = MLP(cfg, rngs=rngs)
        if cfg.adapter_dim:
            self.adapter = Adapter(cfg, rngs=rngs)
        self.has_adapter = cfg.adapter_dim > 0
        self.dropout_rate, self.per_layer_bias = cfg.dropout_rate, cfg.per_layer_relative_bias

    def __call__(
        self,
        x_BTD: jax.Array,
        bias: PositionBias | None,
        mask: Mask,
        memory: tuple[jax.Array, Mask] | None = None,
        keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """`memory` is the encoder's output [B, S, D] with its mask; `bias` is the stack's
        position bias, None where every block has its own. Returns [B, T, D]."""
        keys = split_keys(keys_B, 6 + self.has_adapter)
        if self.per_layer_bias:
            T = x_BTD.shape[1]
            bias = self.relpos_bias(T, T, bidirectional=mask.bidirectional)
        y = self.self_attention_norm(x_BTD)
        y = self.self_attention(y, y, bias, mask, keys[0])
        x_BTD += dropout(y, self.dropout_rate, keys[1])
        if memory is not None:
            encoded_BSD, cross_mask = memory
            y = self.cross_attention_norm(x_BTD)
            y = self.cross_attention(y, encoded_BSD, None, cross_mask, keys[2])
            x_BTD += dropout(y, self.dropout_rate, keys[3])
        y = self.mlp(self.mlp_norm(x_BTD), keys[4])
        x_BTD += dropout(y, self.dropout_rate, keys[5])
        if self.has_adapter:
            x_BTD += dropout(self.adapter(x_BTD), self.dropout_rate, keys[6])
        return x_BTD

    def decode(
        self,
        x_RD: jax.Array,
        kv_cache: KeyValue,
        index: jax.Array,
        bias_NT: jax.Array | None,
        mask_BKTJ: jax.Array,
        encoded: KeyValue,
        encoded_bias_B11S: jax.Array,
    ) -> tuple[jax.Array, KeyValue]:
        """One decoding step of a block: (x, the KV cache with this position's keys and values).

        `kv_cache` holds T positions of J = K cache slots, those from `index` on not
        yet written; `mask_BKTJ` is 0 at the slots of each beam's history, else very small, so that
        beams are reordered without moving the cache. `bias_NT` is the stack's position bias of this
        position to all of them. R = B K.
        """
        if self.per_layer_bias:
            bias_NT = self.relpos_bias.at(index, mask_BKTJ.shape[2])
        assert bias_NT is not None
        y_RD = self.self_attention_norm(x_RD)
        kv_cache = update_kv_cache(kv_cache, self.self_attention.keys_and_values(y_RD), index)
        bias_BNKS = kv_cache_bias(bias_NT, mask_BKTJ)
        x_RD += self.self_attention.decode(y_RD, [kv_cache], [bias_BNKS])
        y_RD = self.cross_attention_norm(x_RD)
        x_RD += self.cross_attention.decode(y_RD, [encoded], [encoded_bias_B11S])
        return self.mlp_and_adapter(x_RD), kv_cache

    def mlp_and_adapter(self, x_RD: jax.Array) -> jax.Array:
        """The sublayers after attention."""
        x_RD += self.mlp(self.mlp_norm(x_RD))
        return x_RD + self.adapter(x_RD) if self.has_adapter else x_RD


def kv_cache_bias(bias_NT: jax.Array, mask_BKTJ: jax.Array) -> jax.Array:
    """[B, N, K, T J]: position bias and beam mask, in the layout of the KV cache."""
    bias_BNKTJ = bias_NT[None, :, None, :, None] + mask_BKTJ[:, None]
    return bias_BNKTJ.reshape(*bias_BNKTJ.shape[:3], -1)
