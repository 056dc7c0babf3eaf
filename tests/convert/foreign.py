"""Checkpoints of other programs, written here from nothing but NumPy and their formats' rules.

Names and layouts are spelled out again, so that a mistake in `t5jax.convert` meets no friend here.
"""

import json
import pathlib

import numpy as np
import tensorstore as ts
from flax import serialization

from t5jax.model.config import T5Config

Weights = dict[str, np.ndarray]

# Odd sizes, pairwise different; enough rows for bytes.
TINY = {
    "vocab_size": 389, "emb_dim": 18, "num_heads": 3, "head_dim": 5, "mlp_dim": 22,
    "num_encoder_layers": 3, "num_decoder_layers": 2, "dropout_rate": 0.1,
}  # fmt: skip
PLAIN = {"mlp_activations": ("relu",), "tied_embeddings": True}
VARIANTS = {
    "t5": (PLAIN, "t5"),
    "t5_1_1": ({}, "t5"),
    "mt5": ({"vocab_size": 401, "emb_dim": 14}, "mt5"),
    "umt5": ({"per_layer_relative_bias": True, "vocab_size": 397}, "umt5"),
    "byt5": ({"num_encoder_layers": 5, "num_decoder_layers": 1, "vocab_size": 384}, "t5"),
}


def model_of(variant: str) -> T5Config:
    return T5Config(**{**TINY, **VARIANTS[variant][0]})


def random_weights(model: T5Config, seed: int = 0) -> Weights:
    """Every weight random, by a name of its own: stack, layer, weight; matrices are [in, out]."""
    rng = np.random.default_rng(seed)
    D, NH, F = model.emb_dim, model.num_heads * model.head_dim, model.mlp_dim
    weights = {}

    def matrix(name, rows, columns, scale=None):
        scale = rows**-0.5 if scale is None else scale
        weights[name] = (rng.normal(size=(rows, columns)) * scale).astype(np.float32)

    def norm(name):
        weights[name] = (1 + 0.3 * rng.normal(size=D)).astype(np.float32)

    matrix("table", model.vocab_size, D, 1.0)
    for stack, layers in (
        ("encoder", model.num_encoder_layers),
        ("decoder", model.num_decoder_layers),
    ):
        for layer in range(layers):
            at = f"{stack} {layer}"
            for prefix in ("", "x") if stack == "decoder" else ("",):
                for name in "qkv":
                    scale = (D * model.head_dim) ** -0.5 if name == "q" else None
                    matrix(f"{at} {prefix}{name}", D, NH, scale)
                matrix(f"{at} {prefix}o", NH, D)
                norm(f"{at} {prefix}norm")
            for name in ("wi",) if len(model.mlp_activations) == 1 else ("wi_0", "wi_1"):
                matrix(f"{at} {name}", D, F)
            matrix(f"{at} wo", F, D)
            norm(f"{at} mlpnorm")
            if layer == 0 or model.per_layer_relative_bias:
                matrix(f"{at} bias", model.num_heads, model.relpos_num_buckets, 0.7)
        norm(f"{stack} final")
    if not model.tied_embeddings:
        matrix("head", D, model.vocab_size)
    return weights


# ---- Hugging Face


def huggingface_name(name: str) -> str:
    if name in ("table", "head"):
        return {"table": "shared.weight", "head": "lm_head.weight"}[name]
    stack, *rest = name.split()
    if rest == ["final"]:
        return f"{stack}.final_layer_norm.weight"
    layer, weight = rest
    mlp = {"encoder": 1, "decoder": 2}[stack]
    sublayers = {
        "norm": "0.layer_norm", "xnorm": "1.layer_norm", "mlpnorm": f"{mlp}.layer_norm",
        "bias": "0.SelfAttention.relative_attention_bias",
    }  # fmt: skip
    if weight in sublayers:
        within = sublayers[weight]
    elif weight.startswith("w"):
        within = f"{mlp}.DenseReluDense.{weight}"
    elif weight.startswith("x"):
        within = f"1.EncDecAttention.{weight[1:]}"
    else:
        within = f"0.SelfAttention.{weight}"
    return f"{stack}.block.{layer}.layer.{within}.weight"


def huggingface_weights(weights: Weights) -> Weights:
    """[out, in], but for the token table."""
    turned = lambda name, x: x if name == "table" or x.ndim == 1 else np.ascontiguousarray(x.T)
    return {huggingface_name(name): turned(name, x) for name, x in weights.items()}


def huggingface_config(model: T5Config, model_type: str = "t5", **changes) -> dict:
    gated = len(model.mlp_activations) == 2
    return {
        "model_type": model_type,
        "vocab_size": model.vocab_size,
        "d_model": model.emb_dim,
        "d_kv": model.head_dim,
        "d_ff": model.mlp_dim,
        "num_heads": model.num_heads,
        "num_layers": model.num_encoder_layers,
        "num_decoder_layers": model.num_decoder_layers,
        "relative_attention_num_buckets": model.relpos_num_buckets,
        "dropout_rate": model.dropout_rate,
        "feed_forward_proj": "gated-gelu" if gated else "relu",
        "layer_norm_epsilon": 1e-6,
        "is_encoder_decoder": True,
        "tie_word_embeddings": model.tied_embeddings,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    } | changes


def write_safetensors(path: pathlib.Path, arrays: Weights) -> None:
    """By the format's page: length, header, bytes one after the other."""
    codes = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
    header, data = {}, b""
    for name, x in arrays.items():
        offsets = [len(data), len(data) + x.nbytes]
        header[name] = {"dtype": codes[x.dtype.name], "shape": x.shape, "data_offsets": offsets}
        data += x.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def read_safetensors(path: pathlib.Path) -> Weights:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
    }


def write_huggingface(
    folder: pathlib.Path, arrays: Weights, config: dict, *, tokenizer_class="ByT5Tokenizer"
) -> pathlib.Path:
    folder.mkdir(parents=True)
    write_safetensors(folder / "model.safetensors", arrays)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": tokenizer_class, "extra_ids": 125})
    )
    return folder


def tiny_huggingface(folder: pathlib.Path, variant: str, seed: int = 0) -> pathlib.Path:
    model = model_of(variant)
    weights = huggingface_weights(random_weights(model, seed))
    return write_huggingface(folder, weights, huggingface_config(model, VARIANTS[variant][1]))


# ---- T5X


def t5x_name(name: str, *, per_layer_bias: str | None = None) -> str:
    """In the minimal network's layout; `per_layer_bias` is what a layer calls its table."""
    if name in ("table", "head"):
        return {"table": "token_embedder/embedding", "head": "decoder/logits_dense/kernel"}[name]
    stack, *rest = name.split()
    if rest == ["final"]:
        return f"{stack}/{stack}_norm/scale"
    layer, weight = rest
    own = {"encoder": "attention", "decoder": "self_attention"}[stack]
    if weight == "bias":
        within = f"layers_{layer}/{per_layer_bias}" if per_layer_bias else "relpos_bias"
        return f"{stack}/{within}/rel_embedding"
    long = {"q": "query", "k": "key", "v": "value", "o": "out"}
    norms = {"norm": own, "xnorm": "cross_attention", "mlpnorm": "mlp"}
    if weight in norms:
        within = f"pre_{norms[weight]}_layer_norm/scale"
    elif weight.startswith("w"):
        within = f"mlp/{weight}/kernel"
    elif weight.startswith("x"):
        within = f"encoder_decoder_attention/{long[weight[1:]]}/kernel"
    else:
        within = f"{own}/{long[weight]}/kernel"
    return f"{stack}/layers_{layer}/{within}"


def write_t5x(folder: pathlib.Path, leaves: dict[str, np.ndarray], *, inline=()) -> pathlib.Path:
    """`checkpoint` with a description of every array, and a zarr directory for each; those of
    `inline` in the index itself."""
    folder.mkdir(parents=True)
    tree: dict = {"version": 3, "optimizer": {}}
    for path, array in leaves.items():
        *parents, name = path.split("/")
        branch = tree["optimizer"]
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = array if path in inline else _zarr(folder, path.replace("/", "."), array)
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
    return folder


def _zarr(folder: pathlib.Path, name: str, array: np.ndarray) -> dict:
    chunks = [max(1, -(-size // 2)) for size in array.shape]
    metadata = {"chunks": chunks, "compressor": {"id": "gzip", "level": 1}, "shape": array.shape}
    spec = {
        "driver": "zarr",
        "dtype": array.dtype.name,
        "kvstore": {"driver": "file", "path": f"{folder / name}/"},
        "metadata": {**metadata, "shape": list(array.shape)},
    }
    ts.open(spec, create=True).result().write(array).result()
    return {**spec, "kvstore": {"driver": "gfile", "path": f"{name}/"}}


# ---- Mesh TensorFlow


def mesh_tf_name(name: str, *, old_norms: bool = False) -> str:
    norm, final = ("layer_norm", "final_layer_norm") if old_norms else ("rms_norm", "rms_norm")
    if name in ("table", "head"):
        return {"table": "shared/embedding", "head": "decoder/logits/kernel"}[name]
    stack, *rest = name.split()
    if rest == ["final"]:
        return f"{stack}/{final}/scale"
    layer, weight = int(rest[0]), rest[1]
    mlp = {"encoder": 1, "decoder": 2}[stack]
    if weight.endswith("norm"):
        number = {"norm": 0, "xnorm": 1, "mlpnorm": mlp}[weight]
        within = f"layer_{number:03}/{norm}/scale"
    elif weight == "bias":
        within = "layer_000/SelfAttention/relative_attention_bias"
    elif weight.startswith("w"):
        within = f"layer_{mlp:03}/DenseReluDense/{weight}/kernel"
    elif weight.startswith("x"):
        within = f"layer_001/EncDecAttention/{weight[1:]}"
    else:
        within = f"layer_000/SelfAttention/{weight}"
    return f"{stack}/block_{layer:03}/{within}"


def write_mesh_tf(folder: pathlib.Path, variables: dict[str, np.ndarray], step: int) -> str:
    """Returns the prefix of the checkpoint's files."""
    from t5jax.data.tensorflow_import import import_tensorflow

    tensorflow = import_tensorflow()
    folder.mkdir(parents=True)
    prefix, names = str(folder / f"model.ckpt-{step}"), list(variables)
    tensorflow.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tensorflow.constant(variables[name]) for name in names],
    )
    return prefix


# ---- what our parameters must be


def our_params(weights: Weights, model: T5Config) -> dict[str, np.ndarray]:
    """By our paths, layers stacked."""
    modules = {"": "self_attention", "x": "cross_attention"}
    long = {"q": "query", "k": "key", "v": "value", "o": "out"}
    params = {"token_embedder": weights["table"]}
    if "head" in weights:
        params["logits_dense"] = weights["head"]
    for stack in ("encoder", "decoder"):
        params[f"{stack}/final_norm/scale"] = weights[f"{stack} final"]
        layers = getattr(model, f"num_{stack}_layers")
        kinds = {name.split()[2] for name in weights if name.startswith(f"{stack} 0 ")}
        for kind in kinds:
            if kind == "bias" and not model.per_layer_relative_bias:
                params[f"{stack}/relpos_bias/embedding"] = weights[f"{stack} 0 bias"]
                continue
            stacked = np.stack([weights[f"{stack} {i} {kind}"] for i in range(layers)])
            if kind == "bias":
                path = "relpos_bias/embedding"
            elif kind.endswith("norm"):
                path = f"{ {'mlpnorm': 'mlp'}.get(kind) or modules[kind[:-4]] }_norm/scale"
            elif kind.startswith("w"):
                path = f"mlp/{kind}"
            else:
                path = f"{modules[kind[:-1]]}/{long[kind[-1]]}"
            params[f"{stack}/layers/{path}"] = stacked
    return params
