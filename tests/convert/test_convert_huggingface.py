"""Hugging Face directories: what model they are, what is wrong with them, and back again."""

import json

import ml_dtypes
import numpy as np
import pytest

from t5jax.convert import huggingface_config
from t5jax.convert.architecture import size_name
from t5jax.convert.huggingface import open_huggingface
from t5jax.convert.parameter_names import parameters
from t5jax.errors import CheckpointError, ConfigError
from t5jax.model.config import (
    T5Config,
    byt5_small,
    mt5_small,
    t5_1_1_base,
    t5_3b,
    t5_small,
    umt5_small,
)
from tests.convert.foreign import (
    TINY,
    VARIANTS,
    huggingface_weights,
    model_of,
    our_params,
    random_weights,
    tiny_huggingface,
    write_huggingface,
)
from tests.convert.foreign import huggingface_config as tiny_config


def weights_of(variant: str):
    return huggingface_weights(random_weights(model_of(variant)))


def assert_params(source, want):
    assert set(source.params) == set(want)
    for path, array in want.items():
        np.testing.assert_array_equal(source.params[path].whole(), array, err_msg=path)


# ---- what is there


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_finds_its_place(tmp_path, variant):
    model = model_of(variant)
    source = open_huggingface(str(tiny_huggingface(tmp_path / "hf", variant)))
    assert source.model == model
    assert set(source.params) == set(parameters(model))
    assert_params(source, our_params(random_weights(model), model))


def test_the_copies_of_old_files(tmp_path):
    """T5 1.0's files hold the table several times, and a bias that nobody reads."""
    arrays = weights_of("t5")
    arrays["encoder.embed_tokens.weight"] = arrays["lm_head.weight"] = arrays["shared.weight"]
    arrays["decoder.embed_tokens.weight"] = arrays["shared.weight"]
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    arrays[unused] = np.zeros((32, 3), np.float32)
    config = tiny_config(model_of("t5"))
    del config["tie_word_embeddings"], config["num_decoder_layers"]
    config["num_layers"] = 2
    arrays = {k: x for k, x in arrays.items() if "encoder.block.2" not in k}
    source = open_huggingface(str(write_huggingface(tmp_path / "hf", arrays, config)))
    assert source.model.tied_embeddings
    assert source.model.num_encoder_layers == source.model.num_decoder_layers == 2
    assert "logits_dense" not in source.params
    assert len([note for note in source.notes if "left out" in note]) == 4


def test_the_table_under_another_name(tmp_path):
    arrays = weights_of("t5")
    arrays["encoder.embed_tokens.weight"] = arrays.pop("shared.weight")
    source = open_huggingface(
        str(write_huggingface(tmp_path / "hf", arrays, tiny_config(model_of("t5"))))
    )
    assert source.origins["token_embedder"] == ["encoder.embed_tokens.weight"]


def test_tied_without_scaling_becomes_a_copy(tmp_path):
    """mT5 never scales: with one table its logits are not those of our tied model."""
    arrays = weights_of("mt5")
    del arrays["lm_head.weight"]
    config = tiny_config(model_of("mt5"), "mt5")
    source = open_huggingface(str(write_huggingface(tmp_path / "hf", arrays, config)))
    assert not source.model.tied_embeddings
    np.testing.assert_array_equal(source.params["logits_dense"].whole(), arrays["shared.weight"].T)


@pytest.mark.parametrize(
    ("config", "scaled"),
    [
        ({"model_type": "t5"}, True),
        ({"model_type": "t5", "tie_word_embeddings": True}, True),
        ({"model_type": "t5", "tie_word_embeddings": False}, False),
        # As transformers 5 saves a T5 1.1.
        ({"model_type": "t5", "tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
        ({"model_type": "mt5", "tie_word_embeddings": True}, False),
        ({"model_type": "umt5", "tie_word_embeddings": False}, False),
    ],
)
def test_whether_logits_are_scaled(config, scaled):
    assert huggingface_config.scales_logits(config) is scaled


def test_saved_by_transformers_5(tmp_path):
    """It says of every model that its embeddings are tied."""
    for variant, model_type in (("t5_1_1", "t5"), ("umt5", "umt5"), ("mt5", "mt5")):
        config = tiny_config(model_of(variant), model_type, tie_word_embeddings=True)
        if model_type == "t5":
            config["scale_decoder_outputs"] = False
        folder = write_huggingface(tmp_path / variant, weights_of(variant), config)
        assert not open_huggingface(str(folder)).model.tied_embeddings


@pytest.mark.parametrize(
    ("proj", "activations"),
    [
        ("relu", ("relu",)),
        ("gelu", ("gelu_exact",)),
        ("gelu_new", ("gelu",)),
        ("gated-gelu", ("gelu", "linear")),
        ("gated-silu", ("silu", "linear")),
        ("gated-relu", ("relu", "linear")),
        ("gated-gelu_python", ("gelu_exact", "linear")),
    ],
)
def test_activations_both_ways(proj, activations):
    found = huggingface_config.parse_config({"model_type": "t5", "feed_forward_proj": proj}, "here")
    assert found["mlp_activations"] == activations
    model = T5Config(mlp_activations=activations)
    assert huggingface_config.make_config(model, "float32")["feed_forward_proj"] == proj


@pytest.mark.parametrize(
    "model", [t5_small(), t5_1_1_base(), t5_3b(), mt5_small(), umt5_small(), byt5_small()]
)
def test_configs_both_ways(model):
    """Published sizes; whether embeddings are tied is said by scaling and weights together."""
    config = huggingface_config.make_config(model, "float32")
    found = huggingface_config.parse_config(config, "here")
    assert T5Config(**found, tied_embeddings=model.tied_embeddings) == model
    assert huggingface_config.scales_logits(config) is model.tied_embeddings
    assert config["model_type"] == {250112: "mt5", 256384: "umt5"}.get(model.vocab_size, "t5")
    assert size_name(model) is not None


@pytest.mark.parametrize("changes", [{}, {"num_encoder_layers": 1, "num_decoder_layers": 1}])
def test_a_bias_in_every_layer_even_if_there_is_one(tmp_path, changes):
    model = T5Config(**{**TINY, **VARIANTS["umt5"][0], **changes})
    arrays = huggingface_weights(random_weights(model))
    folder = write_huggingface(tmp_path / "hf", arrays, tiny_config(model, "umt5"))
    assert open_huggingface(str(folder)).model.per_layer_relative_bias


def test_half_precision_is_read_as_it_is(tmp_path):
    arrays = {k: x.astype(ml_dtypes.bfloat16) for k, x in weights_of("t5_1_1").items()}
    folder = write_huggingface(tmp_path / "hf", arrays, tiny_config(model_of("t5_1_1")))
    source = open_huggingface(str(folder))
    assert source.params["token_embedder"].dtype == ml_dtypes.bfloat16


# ---- what is wrong


def changed(tmp_path, arrays=None, **config):
    folder = tmp_path / "hf"
    arrays = weights_of("t5_1_1") if arrays is None else arrays
    write_huggingface(folder, arrays, tiny_config(model_of("t5_1_1")) | config)
    return str(folder)


QUERY = "encoder.block.1.layer.0.SelfAttention.q.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop(QUERY), f"{QUERY} is missing|num_encoder_layers"),
        (lambda arrays: arrays.pop("shared.weight"), "shared.weight is missing"),
        (lambda arrays: arrays.pop("decoder.final_layer_norm.weight"), "is missing"),
        (
            lambda arrays: arrays.update({QUERY.replace(".q.", ".k."): np.ones((15, 4), "f4")}),
            r"k.weight has shape \[15, 4\], not \[15, 18\]",
        ),
        (
            lambda arrays: arrays.update({"encoder.gate.weight": np.ones(3, "f4")}),
            "encoder.gate.weight has no place",
        ),
        (lambda arrays: arrays.update({"shared.weight": np.ones(7, "f4")}), "not two axes"),
        (
            lambda arrays: arrays.update({"encoder.embed_tokens.weight": np.ones((389, 18), "f4")}),
            "encoder.embed_tokens.weight differs",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, message):
    arrays = weights_of("t5_1_1")
    change(arrays)
    with pytest.raises(CheckpointError, match=message):
        open_huggingface(changed(tmp_path, arrays))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bart"}, "model_type is 'bart'"),
        ({"model_type": None}, "model_type"),
        ({"feed_forward_proj": "gated-mish"}, "gated-mish"),
        ({"feed_forward_proj": "relu"}, "gated MLP"),
        ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon"),
        ({"d_model": 20}, "emb_dim: 20 by the config, 18 by the weights"),
        ({"num_heads": 5}, "num_heads: 5 by the config, 3"),
        ({"num_decoder_layers": 3}, "num_decoder_layers: 3 by the config, 2"),
        ({"is_encoder_decoder": False}, "is_encoder_decoder"),
        ({"tie_word_embeddings": True}, "lm_head.weight is not shared.weight"),
    ],
)
def test_configs_that_do_not_fit(tmp_path, config, message):
    with pytest.raises((CheckpointError, ConfigError), match=message):
        open_huggingface(changed(tmp_path, **config))


def test_an_encoder_alone(tmp_path):
    arrays = {k: x for k, x in weights_of("t5_1_1").items() if not k.startswith("decoder")}
    with pytest.raises(CheckpointError, match="no decoder layers"):
        open_huggingface(changed(tmp_path, arrays))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", "is a pickle, which can run any code.*save_pretrained"),
        ("pytorch_model.bin.index.json", "are pickles|pickles, which"),
        ("flax_model.msgpack", "safetensors only"),
        ("tf_model.h5", "safetensors only"),
    ],
)
def test_other_formats_are_refused(tmp_path, name, message):
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_config(model_of("t5"))))
    (folder / name).write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match=message):
        open_huggingface(str(folder))


def test_a_directory_without_weights_or_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        open_huggingface(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(tiny_config(model_of("t5"))))
    with pytest.raises(CheckpointError, match="neither"):
        open_huggingface(str(tmp_path))
    (tmp_path / "config.json").write_text("{,}")
    with pytest.raises(CheckpointError, match="not JSON"):
        open_huggingface(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "decoder_only", "num_encoder_layers": 0}, "as an encoder-decoder"),
        ({"architecture": "encoder_only", "num_decoder_layers": 0}, "as an encoder-decoder"),
        ({"architecture": "shared_encoder_decoder"}, "with two stacks only"),
        ({"adapter_dim": 8}, "model.adapter_dim = 8: .* no adapters"),
        ({"prompt_length": 5}, "model.prompt_length = 5: .* no learned prompt"),
    ],
)
def test_what_transformers_t5_is_not(changes, message):
    with pytest.raises(ConfigError, match=message):
        huggingface_config.make_config(T5Config(**changes), "float32")


def test_models_that_transformers_does_not_have():
    with pytest.raises(ConfigError, match="linear second"):
        huggingface_config.make_config(T5Config(mlp_activations=("gelu", "sigmoid")), "float32")
