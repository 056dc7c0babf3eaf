"""Every published shape has exactly its number of parameters; wrong settings are refused."""

import jax
import pytest

from t5jax.errors import ConfigError
from t5jax.model import layers
from t5jax.model.config import ACTIVATION_NAMES, SIZES, T5Config, t5_1_1_small, t5_small
from t5jax.model.registry import abstract_model

# Counted from the released configurations (embeddings, bias tables and norms included).
T5_1_1 = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}
PUBLISHED = {
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    # The paper's architectures at base's shape, counted by hand: 24,674,304 in the token table,
    # 2,359,296 in an attention, 4,718,592 in an MLP, 768 in a norm, 384 in a bias table.
    "t5_base_shared": 137_949_312,
    "t5_base_6_layers": 123_790_080,
    "t5_base_decoder_only": 109_628_544,
    "t5_base_prefix_lm": 109_628_544,
    "t5_base_encoder_only": 109_628_544,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_11b": 11_307_321_344,
    **{f"{family}_{size}": n for family in ("t5_1_1", "t5_lm_adapt", "flan_t5")
       for size, n in T5_1_1.items()},
    "mt5_small": 300_176_768,
    "mt5_base": 582_401_280,
    "mt5_large": 1_229_581_312,
    "mt5_xl": 3_742_619_648,
    "mt5_xxl": 12_921_057_280,
    "umt5_small": 306_601_984,
    "umt5_base": 592_043_520,
    "umt5_xl": 3_768_356_864,
    "umt5_xxl": 12_972_531_712,
    "byt5_small": 299_637_760,
    "byt5_base": 581_653_248,
    "byt5_large": 1_228_183_552,
    "byt5_xl": 3_737_801_728,
    "byt5_xxl": 12_906_899_328,
}  # fmt: skip


def num_parameters(cfg: T5Config) -> int:
    """On shapes alone: nothing is allocated."""
    return sum(x.size for x in jax.tree.leaves(abstract_model(cfg)))


def test_every_published_size_is_there():
    assert set(SIZES) == set(PUBLISHED)


# LM-adapted and FLAN models are T5 1.1 by another name: the same functions.
@pytest.mark.parametrize("name", [n for n in PUBLISHED if not n.startswith(("t5_lm", "flan"))])
def test_parameter_counts(name):
    assert num_parameters(SIZES[name]()) == PUBLISHED[name]


@pytest.mark.parametrize("size", T5_1_1)
def test_other_names_of_t5_1_1(size):
    assert SIZES[f"t5_lm_adapt_{size}"]() == SIZES[f"flan_t5_{size}"]() == SIZES[f"t5_1_1_{size}"]()


def test_docstrings_say_the_counts():
    for name, function in SIZES.items():
        assert f"{PUBLISHED[name]:,} parameters" in (function.__doc__ or ""), name


def test_families_differ_where_published():
    old, new = t5_small(), t5_1_1_small()
    assert (old.mlp_activations, old.tied_embeddings, old.dropout_rate) == (("relu",), True, 0.1)
    assert (new.mlp_activations, new.tied_embeddings, new.dropout_rate) == (
        ("gelu", "linear"),
        False,
        0.0,
    )
    per_layer = {name for name, f in SIZES.items() if f().per_layer_relative_bias}
    assert per_layer == {name for name in SIZES if name.startswith("umt5")}
    for name, function in SIZES.items():
        cfg = function()
        assert (cfg.relpos_num_buckets, cfg.relpos_max_distance) == (32, 128), name


def test_sizes_take_changes():
    cfg = SIZES["byt5_small"](dropout_rate=0.25, num_decoder_layers=7)
    assert (cfg.dropout_rate, cfg.num_decoder_layers, cfg.emb_dim) == (0.25, 7, 1472)


def test_stacks_lie_along_a_leading_axis():
    model = abstract_model(T5Config(num_encoder_layers=5, num_decoder_layers=3, emb_dim=24))
    assert model.encoder.layers.mlp.wi_0.shape == (5, 24, 1024)
    assert model.decoder.layers.cross_attention.out.shape == (3, 384, 24)
    assert model.encoder.relpos_bias.embedding.shape == (6, 32)


def test_every_activation_of_the_config_exists():
    assert set(ACTIVATION_NAMES) == set(layers.ACTIVATIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "model.vocab_size = 0"),
        ({"num_encoder_layers": -1}, "model.num_encoder_layers = -1"),
        ({"dropout_rate": 1.0}, "model.dropout_rate = 1.0"),
        ({"dropout_rate": -0.1}, "model.dropout_rate = -0.1"),
        ({"mlp_activations": ()}, "model.mlp_activations"),
        ({"mlp_activations": ("relu", "linear", "gelu")}, "model.mlp_activations"),
        ({"mlp_activations": ("geglu",)}, "'geglu' is not one of linear, relu"),
        ({"relpos_num_buckets": 30}, "model.relpos_num_buckets = 30"),
        ({"relpos_max_distance": 16}, "model.relpos_max_distance = 16"),
        ({"unroll_layers": 0}, "model.unroll_layers = 0"),
        ({"unroll_layers": "every"}, "model.unroll_layers = 'every'"),
        ({"attention": "flash"}, "model.attention = 'flash'"),
        ({"remat": "minimal"}, "model.remat = 'minimal'"),
        ({"dtype": "float16"}, "overflow in float16"),
        ({"architecture": "gpt"}, "model.architecture = 'gpt': choose one of encoder_decoder"),
        ({"num_encoder_layers": 0}, "model.num_encoder_layers = 0: must be at least 1 with"),
        ({"architecture": "decoder_only"}, "has no encoder; set model.num_encoder_layers = 0"),
        ({"architecture": "prefix_lm"}, "'prefix_lm' has no encoder; set"),
        ({"architecture": "encoder_only"}, "has no decoder; set model.num_decoder_layers = 0"),
        (
            {"architecture": "prefix_lm", "num_encoder_layers": 0, "num_decoder_layers": 0},
            "model.num_decoder_layers = 0: must be at least 1 with",
        ),
        (
            {"architecture": "shared_encoder_decoder", "num_encoder_layers": 7},
            "model.num_encoder_layers = 7, model.num_decoder_layers = 8: .* the same number",
        ),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ConfigError, match=message):
        T5Config(**changes)
