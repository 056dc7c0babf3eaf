"""What a weight is called: here, in Hugging Face's models, in T5X and in Mesh TensorFlow.

A place is a weight of one layer (`model.layer_stack`): `encoder/layers/3/mlp/wo`, `token_embedder`.
"""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from t5jax.model.config import T5Config
from t5jax.model.layer_stack import parameters_by_path
from t5jax.model.registry import abstract_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
    """How a format calls the weights; `name` takes a place."""

    title: str
    name: Callable[[str], str]
    transposed: bool = False  # its matrices are [out, in], but for the token table


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


def _huggingface(place: str) -> str:
    if place == "token_embedder":
        return "shared.weight"
    if place == "logits_dense":
        return "lm_head.weight"
    stack, *rest = place.split("/")
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
    raise KeyError(place)


# ---- T5X: the minimal T5; `t5x` brings its other layouts into this one

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


def _t5x(place: str) -> str:
    if place == "token_embedder":
        return "token_embedder/embedding"
    if place == "logits_dense":
        return "decoder/logits_dense/kernel"
    stack, *rest = place.split("/")
    match rest:
        case ["final_norm", "scale"]:
            return f"{stack}/{stack}_norm/scale"
        case [*layer, "relpos_bias", "embedding"]:
            return "/".join([stack, *_t5x_layer(layer), "relpos_bias/rel_embedding"])
        case ["layers", layer, module, weight]:
            module = _T5X_MODULES[stack].get(module, module)
            weight = weight if weight == "scale" else f"{weight}/kernel"
            return f"{stack}/layers_{layer}/{module}/{weight}"
    raise KeyError(place)


def _t5x_layer(layer: list[str]) -> list[str]:
    return ["_".join(layer)] if layer else []


# ---- Mesh TensorFlow; `mesh_tf` brings the older names of its norms into these


def _mesh_tf(place: str) -> str:
    if place == "token_embedder":
        return "shared/embedding"
    if place == "logits_dense":
        return "decoder/logits/kernel"
    stack, *rest = place.split("/")
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
    raise KeyError(place)


HUGGINGFACE = Naming(title="Hugging Face", name=_huggingface, transposed=True)
T5X = Naming(title="T5X", name=_t5x)
MESH_TF = Naming(title="Mesh TensorFlow", name=_mesh_tf)
