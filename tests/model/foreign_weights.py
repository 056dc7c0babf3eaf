"""Weights under the names and in the layouts of T5X and Hugging Face, as parameters of ours."""

from collections.abc import Mapping

import jax
import numpy as np

Weights = Mapping[str, np.ndarray]

# Ours -> theirs, within a layer of the encoder and of the decoder.
T5X_LAYERS = {
    "encoder": {
        "self_attention": "attention",
        "self_attention_norm": "pre_attention_layer_norm",
        "mlp": "mlp",
        "mlp_norm": "pre_mlp_layer_norm",
    },
    "decoder": {
        "self_attention": "self_attention",
        "self_attention_norm": "pre_self_attention_layer_norm",
        "cross_attention": "encoder_decoder_attention",
        "cross_attention_norm": "pre_cross_attention_layer_norm",
        "mlp": "mlp",
        "mlp_norm": "pre_mlp_layer_norm",
    },
}
HF_LAYERS = {
    "encoder": {
        "self_attention": "layer.0.SelfAttention",
        "self_attention_norm": "layer.0.layer_norm",
        "mlp": "layer.1.DenseReluDense",
        "mlp_norm": "layer.1.layer_norm",
    },
    "decoder": {
        "self_attention": "layer.0.SelfAttention",
        "self_attention_norm": "layer.0.layer_norm",
        "cross_attention": "layer.1.EncDecAttention",
        "cross_attention_norm": "layer.1.layer_norm",
        "mlp": "layer.2.DenseReluDense",
        "mlp_norm": "layer.2.layer_norm",
    },
}
HF_ATTENTION = {"query": "q", "key": "k", "value": "v", "out": "o"}


def from_t5x(weights: Weights) -> dict:
    """Of the minimal T5X model, named like `encoder/layers_0/mlp/wi/kernel`."""

    def layer(stack: str, i: int) -> dict:
        blocks: dict = {}
        for ours, theirs in T5X_LAYERS[stack].items():
            prefix = f"{stack}/layers_{i}/{theirs}/"
            found = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            blocks[ours] = {name.removesuffix("/kernel"): v for name, v in found.items()}
        return blocks

    def stack(name: str) -> dict:
        return {
            "layers": _stacked([layer(name, i) for i in range(_count(weights, f"{name}/layers_"))]),
            "relpos_bias": {"embedding": weights[f"{name}/relpos_bias/rel_embedding"]},
            "final_norm": {"scale": weights[f"{name}/{name}_norm/scale"]},
        }

    params = {name: stack(name) for name in ("encoder", "decoder")}
    params["token_embedder"] = weights["token_embedder/embedding"]
    if "decoder/logits_dense/kernel" in weights:
        params["logits_dense"] = weights["decoder/logits_dense/kernel"]
    return params


def from_hf(weights: Weights, *, tied: bool) -> dict:
    """Of `T5ForConditionalGeneration` and umT5's, whose kernels are [out, in]."""

    def layer(stack: str, i: int) -> dict:
        blocks: dict = {}
        for ours, theirs in HF_LAYERS[stack].items():
            prefix = f"{stack}.block.{i}.{theirs}"
            if ours.endswith("norm"):
                blocks[ours] = {"scale": weights[f"{prefix}.weight"]}
            elif ours.endswith("attention"):
                kernel = lambda name, at=prefix: weights[f"{at}.{HF_ATTENTION[name]}.weight"].T
                blocks[ours] = {name: kernel(name) for name in HF_ATTENTION}
            else:
                names = {name: f"{prefix}.{name}.weight" for name in ("wi", "wi_0", "wi_1", "wo")}
                blocks[ours] = {n: weights[at].T for n, at in names.items() if at in weights}
        return blocks

    def stack(name: str) -> dict:
        num_layers = _count(weights, f"{name}.block.")
        bias = "{}.block.{}.layer.0.SelfAttention.relative_attention_bias.weight".format
        tables = [weights[bias(name, i)].T for i in range(num_layers) if bias(name, i) in weights]
        layers = _stacked([layer(name, i) for i in range(num_layers)])
        scale = {"final_norm": {"scale": weights[f"{name}.final_layer_norm.weight"]}}
        if len(tables) == 1:
            return {"layers": layers, "relpos_bias": {"embedding": tables[0]}, **scale}
        return {"layers": {**layers, "relpos_bias": {"embedding": np.stack(tables)}}, **scale}

    params = {name: stack(name) for name in ("encoder", "decoder")}
    params["token_embedder"] = weights["shared.weight"]
    if not tied:
        params["logits_dense"] = weights["lm_head.weight"].T
    return params


def flattened(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    flat = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        flat |= flattened(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def _count(weights: Weights, prefix: str) -> int:
    """How many different numbers follow the prefix."""
    numbers = {
        name.removeprefix(prefix).replace("/", ".").split(".")[0]
        for name in weights
        if name.startswith(prefix)
    }
    return len(numbers)


def _stacked(layers: list[dict]) -> dict:
    """Equal dicts of dicts of arrays, one a layer -> one with a leading axis over layers."""
    stacked = lambda *arrays: np.stack(arrays)
    return jax.tree.map(stacked, *layers)
