"""Model config of foreign weights, inferred from names and shapes, checked against settings."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from t5jax.convert.source_checkpoint import Weights
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.config import SIZES, T5Config
from t5jax.model.layer_stack import STACKS

# Defaults of what shapes cannot tell: those of the published models with plain and gated MLPs.
_PLAIN = {"mlp_activations": ("relu",), "dropout_rate": 0.1}
_GATED = {"mlp_activations": ("gelu", "linear"), "dropout_rate": 0.0}


def infer_model_config(weights: Weights, settings: Mapping[str, Any], notes: list[str]) -> T5Config:
    """The T5Config of the weights.

    Args:
      settings: fields of T5Config from a config file beside the weights. They must not contradict
        the shapes, and decide what shapes cannot tell.
      notes: gets a line for each default that is assumed.

    Raises:
      CheckpointError: no encoder-decoder T5, or weights and settings contradict each other.
    """
    inferred = _infer_from_shapes(weights, settings)
    conflicts = {
        name: (settings[name], value)
        for name, value in inferred.items()
        if name in settings and settings[name] != value
    }
    if conflicts:
        listed = "\n  ".join(
            f"{name}: {configured} by the config, {value} by the weights"
            for name, (configured, value) in conflicts.items()
        )
        raise CheckpointError(
            f"{weights.where}: config and weights contradict each other:\n  {listed}\nThey do not "
            "belong together; download both again"
        )
    gated = weights.at("encoder/layers/0/mlp/wi_0") is not None
    assumed = _GATED if gated else _PLAIN
    for name, value in assumed.items():
        if name not in settings:
            notes.append(f"{name} = {value}: assumed, no config beside the weights has it")
    fields = {**assumed, **settings, **inferred}
    if (len(fields["mlp_activations"]) == 2) != gated:
        raise CheckpointError(
            f"{weights.where}: the config has activations {fields['mlp_activations']}, but the "
            f"weights are those of {'a gated' if gated else 'a plain'} MLP"
        )
    known = {field.name for field in dataclasses.fields(T5Config)}
    try:
        return T5Config(**{name: value for name, value in fields.items() if name in known})
    except ConfigError as error:
        raise ConfigError(f"{weights.where}: {error}") from error


def _infer_from_shapes(weights: Weights, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of T5Config that follow from names and shapes."""
    title = weights.naming.title
    if not any(weights.at(f"{stack}/layers/0/self_attention/query") for stack in STACKS):
        example = next(iter(weights.arrays), "nothing at all")
        raise CheckpointError(
            f"{weights.where} holds no {title} T5: there is no "
            f"{weights.naming.name('encoder/layers/0/self_attention/query')}, but {example}; "
            "encoder-decoder T5, T5 1.1, mT5, umT5, ByT5 and FLAN-T5 can be converted"
        )
    per_layer = _per_layer(weights, settings)
    bias = "layers/0/relpos_bias" if per_layer else "relpos_bias"
    gated = weights.at("encoder/layers/0/mlp/wi_0") is not None
    table = _shape(weights, "token_embedder")
    heads, buckets = _shape(weights, f"encoder/{bias}/embedding")
    width = _shape(weights, "encoder/layers/0/self_attention/query")[1]
    if width % heads:
        raise CheckpointError(
            f"{weights.where}: queries of {width} features do not divide among {heads} heads"
        )
    return {
        "vocab_size": table[0],
        "emb_dim": table[1],
        "num_heads": heads,
        "head_dim": width // heads,
        "mlp_dim": _shape(weights, f"encoder/layers/0/mlp/{'wi_0' if gated else 'wi'}")[1],
        "num_encoder_layers": _num_layers(weights, "encoder"),
        "num_decoder_layers": _num_layers(weights, "decoder"),
        "relpos_num_buckets": buckets,
        "per_layer_relative_bias": per_layer,
        "tied_embeddings": weights.at("logits_dense") is None,
    }


def _per_layer(weights: Weights, settings: Mapping[str, Any]) -> bool:
    """Whether every layer has its own bias table; stacks of one layer need a config to tell."""
    if weights.at("encoder/relpos_bias/embedding") is None:
        return True
    second = [weights.at(f"{stack}/layers/1/self_attention/query") for stack in STACKS]
    if not any(second):
        return settings.get("per_layer_relative_bias", False)
    return any(weights.at(f"{stack}/layers/1/relpos_bias/embedding") for stack in STACKS)


def _num_layers(weights: Weights, stack: str) -> int:
    query = f"{stack}/layers/{{}}/self_attention/query"
    count = next(i for i in itertools.count() if weights.at(query.format(i)) is None)
    if not count:
        raise CheckpointError(
            f"{weights.where} has no {stack} layers ({weights.naming.name(query.format(0))} is "
            "missing): t5jax converts encoder-decoder models"
        )
    return count


def _shape(weights: Weights, layer_path: str) -> tuple[int, ...]:
    array = weights.at(layer_path)
    if array is None or len(array.shape) != 2:
        found = "is missing" if array is None else f"has shape {list(array.shape)}, not two axes"
        name = weights.original(weights.naming.name(layer_path))
        raise CheckpointError(f"{weights.where}: {name} {found}")
    return array.shape


def size_name(model: T5Config) -> str | None:
    """Name of the published size with these shapes, if there is one."""
    for name, make in SIZES.items():
        size = make(dropout_rate=model.dropout_rate, dtype=model.dtype)
        if size == model:
            return name
    return None
