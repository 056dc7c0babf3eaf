"""Conversion between Hugging Face's config.json and T5Config."""

from collections.abc import Mapping
from typing import Any

from t5jax.convert import generation_config
from t5jax.convert.huggingface_keys import check_keys
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config

MODEL_TYPES = {
    "t5": "T5ForConditionalGeneration",
    "mt5": "MT5ForConditionalGeneration",
    "umt5": "UMT5ForConditionalGeneration",
}
# transformers' name of an activation -> ours. `gelu_new` is the tanh approximation, `gelu` exact.
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu_exact",
    "gelu_python": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "linear": "linear",
}
_FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "emb_dim",
    "num_heads": "num_heads",
    "d_kv": "head_dim",
    "d_ff": "mlp_dim",
    "num_layers": "num_encoder_layers",
    "num_decoder_layers": "num_decoder_layers",
    "relative_attention_num_buckets": "relpos_num_buckets",
    "relative_attention_max_distance": "relpos_max_distance",
    "dropout_rate": "dropout_rate",
}
# Other names of the same settings, which transformers takes too.
_SYNONYMS = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
# Read here or, tying and scaling, in `scales_logits`.
_READ = (
    *("model_type", "feed_forward_proj", "dense_act_fn", "is_gated_act", "layer_norm_epsilon"),
    *("is_encoder_decoder", "tie_word_embeddings", "scale_decoder_outputs"),
)
KEYS = generation_config.KEYS.union(_FIELDS, _SYNONYMS, _READ)
_EPSILON = 1e-6


def parse_config(
    config: dict[str, Any], where: str, ignored: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The fields of T5Config in a config.json, but for `tied_embeddings`, which depends on the
    weights too, and for special ids, which depend on generation_config.json.

    Raises ConfigError for a model of another family, or one that t5jax does not have, and for a key
    that is neither used nor known to change nothing nor `ignored`.
    """
    model_type = config.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ConfigError(
            f"{where}: model_type is {model_type!r}; {', '.join(MODEL_TYPES)} can be converted "
            "(T5, T5 1.1, FLAN-T5 and ByT5 are t5)"
        )
    check_keys(config, KEYS, where, ignored)
    config = _without_synonyms(config, where)
    _check_types(config, where)
    fields = {ours: config[theirs] for theirs, ours in _FIELDS.items() if theirs in config}
    if fields.get("num_decoder_layers") is None and "num_layers" in config:
        fields["num_decoder_layers"] = config["num_layers"]
    fields.setdefault("relpos_max_distance", 128)
    fields.setdefault("dropout_rate", 0.1)
    fields["dropout_rate"] = float(fields["dropout_rate"])
    if model_type == "umt5":
        fields["per_layer_relative_bias"] = True
    default = "relu" if model_type == "t5" else "gated-gelu"
    fields["mlp_activations"] = _activations(config, default, where)
    epsilon = config.get("layer_norm_epsilon", _EPSILON)
    if abs(epsilon - _EPSILON) > 1e-9:
        raise ConfigError(
            f"{where}: layer_norm_epsilon is {epsilon}; t5jax's norms have {_EPSILON} and would "
            "give other numbers"
        )
    if config.get("is_encoder_decoder") is False:
        raise ConfigError(f"{where}: is_encoder_decoder is false; t5jax converts encoder-decoders")
    return fields


def scales_logits(config: dict[str, Any]) -> bool:
    """Whether the decoder's output is multiplied by d_model**-0.5 before the output projection.

    transformers 4 derives it from tie_word_embeddings; transformers 5 always saves that as true,
    and the original value in scale_decoder_outputs. Its umT5 always scales; umT5 was trained
    without.
    """
    if config["model_type"] == "mt5":
        return False
    if "scale_decoder_outputs" in config:
        return bool(config["scale_decoder_outputs"])
    return config.get("tie_word_embeddings") is not False


def _check_types(config: Mapping[str, Any], where: str) -> None:
    """ConfigError for a setting whose value is of another type than the model's classes take."""
    wanted = dict.fromkeys(_FIELDS, (int, "a whole number"))
    wanted |= dict.fromkeys(("dropout_rate", "layer_norm_epsilon"), ((int, float), "a number"))
    wanted |= dict.fromkeys(("feed_forward_proj", "dense_act_fn"), (str, "a name"))
    flags = ("is_gated_act", "is_encoder_decoder", "tie_word_embeddings", "scale_decoder_outputs")
    wanted |= dict.fromkeys(flags, (int, "true or false"))
    for key, (kind, name) in wanted.items():
        value = config.get(key)
        wrong_bool = isinstance(value, bool) and key not in flags
        if value is not None and (not isinstance(value, kind) or wrong_bool):
            raise ConfigError(f"{where}: {key} is {value!r}, which is not {name}; mend it there")


def _without_synonyms(config: dict[str, Any], where: str) -> dict[str, Any]:
    """A key with null as its value is not set, so that the model's default counts; but for
    `tie_word_embeddings` and `scale_decoder_outputs`, of which null is a value."""
    kept = ("tie_word_embeddings", "scale_decoder_outputs")
    found = {
        key: value
        for key, value in config.items()
        if key not in _SYNONYMS and (value is not None or key in kept)
    }
    for name, key in _SYNONYMS.items():
        if config.get(name) is None:
            continue
        if found.setdefault(key, config[name]) != config[name]:
            raise ConfigError(
                f"{where}: {name} is {config[name]} and {key} is {found[key]}, which are two names "
                "of one setting; leave the wrong one out"
            )
    return found


def _activations(config: Mapping[str, Any], default: str, where: str) -> tuple[str, ...]:
    """ "relu" is a plain MLP; "gated-gelu" a gated one with the tanh approximation of GELU.

    `dense_act_fn` and `is_gated_act`, which transformers derives from `feed_forward_proj`, count
    before it where they are in the file.
    """
    name = config.get("feed_forward_proj", default)
    gated, _, activation = name.rpartition("-")
    known = ", ".join(_ACTIVATIONS)
    if gated not in ("", "gated"):
        raise ConfigError(
            f"{where}: feed_forward_proj is {name!r}; known are {known}, each also as gated-…"
        )
    if name == "gated-gelu":
        activation = "gelu_new"
    own = config.get("dense_act_fn")
    if (own or activation) not in _ACTIVATIONS:
        key, value = ("dense_act_fn", own) if own else ("feed_forward_proj", name)
        raise ConfigError(f"{where}: {key} is {value!r}; known are {known}, each also as gated-…")
    is_gated = config.get("is_gated_act")
    is_gated = bool(gated) if is_gated is None else is_gated
    return (_ACTIVATIONS[own or activation], *(["linear"] if is_gated else []))


# ---- writing


def model_type_for(model: T5Config) -> str:
    """The `model_type` whose class in transformers computes the same as ours."""
    if model.per_layer_relative_bias:
        return "umt5"
    # MT5… never scales, so it cannot be tied; otherwise it equals T5….
    return "mt5" if model.vocab_size == 250112 and not model.tied_embeddings else "t5"


def make_config(model: T5Config, dtype: str) -> dict[str, Any]:
    """The config.json of a model of ours.

    Raises ConfigError for a model that transformers does not have.
    """
    _refuse_unsupported(model)
    model_type = model_type_for(model)
    fields = {theirs: getattr(model, ours) for theirs, ours in _FIELDS.items()}
    # transformers 5 ties models with one table, and always scales umT5.
    config = {
        "architectures": [MODEL_TYPES[model_type]],
        "model_type": model_type,
        **fields,
        "feed_forward_proj": _feed_forward_proj(model.mlp_activations),
        "layer_norm_epsilon": _EPSILON,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "use_cache": True,
        "tie_word_embeddings": model.tied_embeddings,
        **generation_config.special_ids(model),
        "dtype": dtype,
    }
    if model_type == "t5":
        config["scale_decoder_outputs"] = model.tied_embeddings
    return config


def _refuse_unsupported(model: T5Config) -> None:
    if model.architecture != "encoder_decoder":
        raise ConfigError(
            f"model.architecture = {model.architecture!r}: transformers has T5 as an "
            "encoder-decoder with two stacks only; this run is for t5jax evaluate and predict"
        )
    for field, what in (("adapter_dim", "adapters"), ("prompt_length", "learned prompt")):
        if getattr(model, field):
            raise ConfigError(
                f"model.{field} = {getattr(model, field)}: transformers' T5 has no {what}, and no "
                "weights compute the same without; convert the run that was fine-tuned (init.path)"
            )


def _feed_forward_proj(activations: tuple[str, ...]) -> str:
    if activations == ("gelu", "linear"):
        return "gated-gelu"
    if len(activations) == 2 and activations[1] != "linear":
        raise ConfigError(
            f"model.mlp_activations = {activations}: transformers gates with a linear second "
            'activation only, such as ("gelu", "linear")'
        )
    theirs = {ours: name for name, ours in reversed(_ACTIVATIONS.items())}
    # Not "gated-gelu", which is the approximation.
    name = "gelu_python" if activations == ("gelu_exact", "linear") else theirs[activations[0]]
    return f"gated-{name}" if len(activations) == 2 else name
