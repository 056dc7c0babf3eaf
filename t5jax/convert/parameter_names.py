"""Parameter name maps: from our layer paths to the names of Hugging Face, T5X and Mesh TensorFlow.

A layer path names a weight of one layer (`model.layer_stack`): `encoder/layers/3/mlp/wo`.
"""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from t5jax.model.config import T5Config
from t5jax.model.layer_stack import parameters_by_path
from t5jax.model.registry import abstract_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterNaming:
    """Parameter names of a format; `name` maps a layer path to them."""

    title: str
    name: Callable[[str], str]
    transposed: bool = False  # matrices are [out, in], except for the token table


def parameters(model: T5Config) -> dict[str, jax.ShapeDtypeStruct]:
    """Our parameters by path, as shapes."""
    return parameters_by_path(nnx.to_pure_dict(nnx.state(abstract_model(model), nnx.Param)))


# ---- Hugging Face: T5ForConditionalGeneration, MT5…, UMT5…

_SUBLAYERS = {
    "encoder": {"self_attention": 0, "mlp": 1},
    "decoder": {"self_attention": 0, "cross_attention": 1, "mlp": 2},
}
_MODULES = {
    "self_attention": "SelfAttention",
    "cross_attention": "EncDecAttention",
    "mlp": "DenseReluDense",
}
_QKVO = {"query": "q", "key": "k", "value": "v", "out": "o"}


def _huggingface(layer_path: str) -> str:
    if layer_path == "token_embedder":
        return "shared.weight"
    if layer_path == "logits_dense":
        return "lm_head.weight"
    stack, *rest = layer_path.split("/")
    match rest:
        case ["final_norm", "scale"]:
            return f"{stack}.final_layer_norm.weight"
        case ["relpos_bias", "embedding"]:
            return _huggingface(f"{stack}/layers/0/relpos_bias/embedding")
        case ["layers", layer, "relpos_bias", "embedding"]:
            within = "layer.0.SelfAttention.relative_attention_bias"
            return f"{stack}.block.{layer}.{within}.weight"
        case ["layers", layer, module, "scale"]:
            sublayer = _SUBLAYERS[stack][module.removesuffix("_norm")]
            return f"{stack}.block.{layer}.layer.{sublayer}.layer_norm.weight"
        case ["layers", layer, module, weight]:
            within = f"layer.{_SUBLAYERS[stack][module]}.{_MODULES[module]}"
            return f"{stack}.block.{layer}.{within}.{_QKVO.get(weight, weight)}.weight"
    raise KeyError(layer_path)


# ---- T5X: the minimal T5; `t5x` maps its other layouts to this one

_T5X_MODULES = {
    "encoder": {
        "self_attention": "attention",
        "self_attention_norm": "pre_attention_layer_norm",
        "mlp_norm": "pre_mlp_layer_norm",
    },
    "decoder": {
        "self_attention_norm": "pre_self_attention_layer_norm",
        "cross_attention": "encoder_decoder_attention",
        "cross_attention_norm": "pre_cross_attention_layer_norm",
        "mlp_norm": "pre_mlp_layer_norm",
    },
}


def _t5x(layer_path: str) -> str:
    if layer_path == "token_embedder":
        return "token_embedder/embedding"
    if layer_path == "logits_dense":
        return "decoder/logits_dense/kernel"
    stack, *rest = layer_path.split("/")
    match rest:
        case ["final_norm", "scale"]:
            return f"{stack}/{stack}_norm/scale"
        case [*layer, "relpos_bias", "embedding"]:
            return "/".join([stack, *_t5x_layer(layer), "relpos_bias/rel_embedding"])
        case ["layers", layer, module, weight]:
            module = _T5X_MODULES[stack].get(module, module)
            weight = weight if weight == "scale" else f"{weight}/kernel"
            return f"{stack}/layers_{layer}/{module}/{weight}"
    raise KeyError(layer_path)


def _t5x_layer(layer: list[str]) -> list[str]:
    return ["_".join(layer)] if layer else []


# ---- Mesh TensorFlow; `mesh_tf` maps older names of norms to these


def _mesh_tf(layer_path: str) -> str:
    if layer_path == "token_embedder":
        return "shared/embedding"
    if layer_path == "logits_dense":
        return "decoder/logits/kernel"
    stack, *rest = layer_path.split("/")
    match rest:
        case ["final_norm", "scale"]:
            return f"{stack}/rms_norm/scale"
        case ["relpos_bias", "embedding"]:
            return _mesh_tf(f"{stack}/layers/0/relpos_bias/embedding")
        case ["layers", layer, "relpos_bias", "embedding"]:
            within = "layer_000/SelfAttention/relative_attention_bias"
            return f"{stack}/block_{int(layer):03}/{within}"
        case ["layers", layer, module, "scale"]:
            sublayer = _SUBLAYERS[stack][module.removesuffix("_norm")]
            return f"{stack}/block_{int(layer):03}/layer_{sublayer:03}/rms_norm/scale"
        case ["layers", layer, module, weight]:
            within = f"layer_{_SUBLAYERS[stack][module]:03}/{_MODULES[module]}"
            weight = _QKVO.get(weight, f"{weight}/kernel")
            return f"{stack}/block_{int(layer):03}/{within}/{weight}"
    raise KeyError(layer_path)


HUGGINGFACE = ParameterNaming(title="Hugging Face", name=_huggingface, transposed=True)
T5X = ParameterNaming(title="T5X", name=_t5x)
MESH_TF = ParameterNaming(title="Mesh TensorFlow", name=_mesh_tf)
