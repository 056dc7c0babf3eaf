"""Reference T5 in NumPy, from a foreign checkpoint's own parameter names: verifies a conversion
where the checkpoint's program is not installed.

Independent of `parameter_names` and `model`: names, layouts and formulas are written out again
(Raffel et al. 2020; T5X's and Hugging Face's names). One matrix in memory at a time, float32.

Shape suffixes: B rows, T queries, S keys, D emb_dim, N heads, H head_dim, R positions, V vocab.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from t5jax.checkpoints import BlockArray
from t5jax.convert.probe_inputs import ProbeInputs
from t5jax.model.config import T5Config

# (stack, layer, weight) -> name; weights are q k v o, xq xk xv xo (to the encoder), wi wi_0 wi_1
# wo, norm xnorm mlpnorm, bias; layer None: final.
NameOf = Callable[[str, int | None, str], str]


def _huggingface(stack: str, layer: int | None, weight: str) -> str:
    if layer is None:
        return f"{stack}.final_layer_norm.weight"
    mlp = 1 if stack == "encoder" else 2
    within = {"norm": "0.layer_norm", "xnorm": "1.layer_norm", "mlpnorm": f"{mlp}.layer_norm"}
    within |= {w: f"0.SelfAttention.{w}" for w in "qkvo"}
    within |= {f"x{w}": f"1.EncDecAttention.{w}" for w in "qkvo"}
    within |= {w: f"{mlp}.DenseReluDense.{w}" for w in ("wi", "wi_0", "wi_1", "wo")}
    within["bias"] = "0.SelfAttention.relative_attention_bias"
    return f"{stack}.block.{layer}.layer.{within[weight]}.weight"


def _t5x(stack: str, layer: int | None, weight: str) -> str:
    if layer is None:
        return f"{stack}/{stack}_norm/scale"
    own = "attention" if stack == "encoder" else "self_attention"
    long = {"q": "query", "k": "key", "v": "value", "o": "out"}
    within = {"norm": f"pre_{own}_layer_norm/scale", "mlpnorm": "pre_mlp_layer_norm/scale"}
    within["xnorm"] = "pre_cross_attention_layer_norm/scale"
    within |= {w: f"{own}/{name}/kernel" for w, name in long.items()}
    within |= {f"x{w}": f"encoder_decoder_attention/{name}/kernel" for w, name in long.items()}
    within |= {w: f"mlp/{w}/kernel" for w in ("wi", "wi_0", "wi_1", "wo")}
    within["bias"] = "relpos_bias/rel_embedding"
    return f"{stack}/layers_{layer}/{within[weight]}"


def _mesh_tf(stack: str, layer: int | None, weight: str) -> str:
    if layer is None:
        return f"{stack}/rms_norm/scale"
    mlp = "layer_001" if stack == "encoder" else "layer_002"
    within = {"norm": "layer_000/rms_norm/scale", "xnorm": "layer_001/rms_norm/scale"}
    within["mlpnorm"] = f"{mlp}/rms_norm/scale"
    within |= {w: f"layer_000/SelfAttention/{w}" for w in "qkvo"}
    within |= {f"x{w}": f"layer_001/EncDecAttention/{w}" for w in "qkvo"}
    within |= {w: f"{mlp}/DenseReluDense/{w}/kernel" for w in ("wi", "wi_0", "wi_1", "wo")}
    within["bias"] = "layer_000/SelfAttention/relative_attention_bias"
    return f"{stack}/block_{layer:03d}/{within[weight]}"


# kind -> (names, token table, logits, whether matrices are [out, in])
_FORMATS: dict[str, tuple[NameOf, str, str, bool]] = {
    "huggingface": (_huggingface, "shared.weight", "lm_head.weight", True),
    "t5x": (_t5x, "token_embedder/embedding", "decoder/logits_dense/kernel", False),
    "mesh_tf": (_mesh_tf, "shared/embedding", "decoder/logits/kernel", False),
}


class NumpyT5:
    """The model of a checkpoint's arrays (under the names of its format)."""

    def __init__(self, kind: str, arrays: Mapping[str, BlockArray], model: T5Config):
        self._name, self._embedding, self._head, self._out_in = _FORMATS[kind]
        self._arrays, self._model = arrays, model

    def logits(self, probe: ProbeInputs) -> np.ndarray:
        """float32 [R, V] at the positions of the probe."""
        y_BTD = self._decoded(probe, self._encoded(probe))
        return self._logits(y_BTD[probe.rows, probe.positions])

    def greedy(
        self, inputs: Sequence[Sequence[int]], ends: Collection[int], num_ids: int, length: int
    ) -> list[list[int]]:
        """The likeliest token of the first `num_ids` at each position, up to one of `ends` (which
        is included) or `length` tokens, by output."""
        start = self._model.decoder_start_id
        outputs: list[list[int]] = [[] for _ in inputs]
        ended = lambda ids: bool(ids) and ids[-1] in ends
        encoded: np.ndarray | None = None
        for step in range(length):
            probe = ProbeInputs.of_outputs(inputs, [[*ids, 0] for ids in outputs], start)
            encoded = self._encoded(probe) if encoded is None else encoded
            y_BTD = self._decoded(probe, encoded)
            last_BD = y_BTD[np.arange(len(inputs)), probe.target_lengths - 1]
            best_B = self._logits(last_BD)[:, :num_ids].argmax(axis=1)
            for ids, token in zip(outputs, best_B.tolist(), strict=True):
                if not ended(ids):
                    ids.append(token)
            if all(map(ended, outputs)) or step + 1 == length:
                break
        return outputs

    def _encoded(self, probe: ProbeInputs) -> np.ndarray:
        is_token = probe.encoder_mask
        allowed = is_token[:, None, :] & is_token[:, :, None]
        return self._stack("encoder", self._embed(probe.encoder_tokens), allowed, None, None)

    def _decoded(self, probe: ProbeInputs, encoded_BSD: np.ndarray) -> np.ndarray:
        y_BTD = self._embed(probe.decoder_inputs)
        B, T = probe.decoder_inputs.shape
        causal = np.tril(np.ones((T, T), bool)) & probe.decoder_mask[:, None, :]
        cross = np.broadcast_to(probe.encoder_mask[:, None, :], (B, T, encoded_BSD.shape[1]))
        return self._stack("decoder", y_BTD, causal, encoded_BSD, cross)

    def _logits(self, y_RD: np.ndarray) -> np.ndarray:
        if self._head in self._arrays:
            return self._project(y_RD, self._arrays[self._head], vocab_first=self._out_in)
        scaled = y_RD * np.float32(1 / math.sqrt(y_RD.shape[-1]))
        return self._project(scaled, self._arrays[self._embedding], vocab_first=True)

    def _stack(self, stack, x_BTD, allowed_BTT, memory_BSD, cross_BTS):
        bias_NTT = None
        for layer in range(getattr(self._model, f"num_{stack}_layers")):
            weight = lambda name, layer=layer: self._matrix(self._name(stack, layer, name))
            if self._model.per_layer_relative_bias or layer == 0:
                bias_NTT = self._bias(stack, layer, x_BTD.shape[1])
            y = _normalised(x_BTD, self._whole(self._name(stack, layer, "norm")))
            x_BTD = x_BTD + self._attention(y, y, weight, "", bias_NTT, allowed_BTT)
            if memory_BSD is not None:
                y = _normalised(x_BTD, self._whole(self._name(stack, layer, "xnorm")))
                x_BTD = x_BTD + self._attention(y, memory_BSD, weight, "x", None, cross_BTS)
            y = _normalised(x_BTD, self._whole(self._name(stack, layer, "mlpnorm")))
            x_BTD = x_BTD + self._mlp(y, weight)
        return _normalised(x_BTD, self._whole(self._name(stack, None, "")))

    def _attention(self, x_BTD, memory_BSD, weight, prefix, bias_NTS, allowed_BTS):
        N = self._model.num_heads
        heads = lambda x: x.reshape(*x.shape[:2], N, -1)
        q_BTNH = heads(x_BTD @ weight(f"{prefix}q"))
        k_BSNH = heads(memory_BSD @ weight(f"{prefix}k"))
        scores_BNTS = np.einsum("btnh,bsnh->bnts", q_BTNH, k_BSNH, optimize=True)
        if bias_NTS is not None:
            scores_BNTS = scores_BNTS + bias_NTS
        scores_BNTS = np.where(allowed_BTS[:, None], scores_BNTS, np.float32(-1e9))
        scores_BNTS = np.exp(scores_BNTS - scores_BNTS.max(axis=-1, keepdims=True))
        probs_BNTS = scores_BNTS / scores_BNTS.sum(axis=-1, keepdims=True)
        v_BSNH = heads(memory_BSD @ weight(f"{prefix}v"))
        y_BTNH = np.einsum("bnts,bsnh->btnh", probs_BNTS, v_BSNH, optimize=True)
        return y_BTNH.reshape(*x_BTD.shape[:2], -1) @ weight(f"{prefix}o")

    def _mlp(self, x_BTD, weight):
        activations = [_ACTIVATIONS[name] for name in self._model.mlp_activations]
        if len(activations) == 1:
            return activations[0](x_BTD @ weight("wi")) @ weight("wo")
        hidden = activations[0](x_BTD @ weight("wi_0"))
        return (hidden * activations[1](x_BTD @ weight("wi_1"))) @ weight("wo")

    def _bias(self, stack: str, layer: int, length: int) -> np.ndarray:
        name = self._name(stack, layer, "bias")
        if name not in self._arrays:  # T5X keeps a shared table outside the layers
            name = name.replace("/layers_0/", "/")
        table = self._matrix(name)  # [N, buckets], or [buckets, N] turned
        distance = np.arange(length)[None, :] - np.arange(length)[:, None]
        return table[:, self._buckets(distance, both_ways=stack == "encoder")]

    def _buckets(self, distance: np.ndarray, both_ways: bool) -> np.ndarray:
        """Key position minus query position -> bucket."""
        buckets = self._model.relpos_num_buckets // (2 if both_ways else 1)
        offset = buckets * (distance > 0) if both_ways else np.zeros_like(distance)
        n = np.abs(distance) if both_ways else np.maximum(-distance, 0)
        exact = buckets // 2
        ratio = math.log(self._model.relpos_max_distance / exact)
        with np.errstate(divide="ignore"):
            far = exact + (np.log(n / exact) / ratio * (buckets - exact) + 1e-9)
        far = np.minimum(np.where(n < exact, 0, far), buckets - 1).astype(np.int64)
        return offset + np.where(n < exact, n, far)

    def _embed(self, tokens: np.ndarray) -> np.ndarray:
        table = self._arrays[self._embedding]
        columns = slice(0, table.shape[1])
        ids, inverse = np.unique(tokens, return_inverse=True)
        rows = [table.read((slice(i, i + 1), columns)) for i in ids.tolist()]
        return np.concatenate(rows).astype(np.float32)[inverse.reshape(tokens.shape)]

    def _project(self, y_RD: np.ndarray, table: BlockArray, *, vocab_first: bool) -> np.ndarray:
        vocab = 0 if vocab_first else 1
        found = np.zeros((len(y_RD), table.shape[vocab]), np.float32)
        for region in table.regions():
            block = table.read(region).astype(np.float32)
            found[:, region[vocab]] += y_RD[:, region[1 - vocab]] @ (
                block.T if vocab_first else block
            )
        return found

    def _whole(self, name: str) -> np.ndarray:
        return self._arrays[name].whole().astype(np.float32, copy=False)

    def _matrix(self, name: str) -> np.ndarray:
        return self._whole(name).T if self._out_in else self._whole(name)


def _normalised(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.float32(1e-6)) * scale


def _gelu_tanh(x: np.ndarray) -> np.ndarray:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (1 + np.tanh(inner))


def _gelu_exact(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return (0.5 * x * (1 + erf(x / math.sqrt(2)))).astype(np.float32)


_ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu_tanh,
    "gelu_exact": _gelu_exact,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
}
