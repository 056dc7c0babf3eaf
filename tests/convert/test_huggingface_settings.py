"""config.json and generation_config.json: contradictions, values of other types, and settings whose
meaning in `generate` depends on others."""

import jax.numpy as jnp
import numpy as np
import pytest

from t5jax.convert.generation_config import (
    read_generation_settings,
    write_generation_settings,
)
from t5jax.convert.huggingface_config import parse_config
from t5jax.decoding.logits_processors import SuppressedTokens
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config

IDS = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
MODEL = {
    "model_type": "t5", "vocab_size": 90, "d_model": 16, "num_heads": 3, "d_kv": 5, "d_ff": 24,
    "num_layers": 2, "feed_forward_proj": "gated-gelu",
}  # fmt: skip


def settings(**generation):
    return read_generation_settings(IDS, generation, "hf")


@pytest.mark.parametrize("ends", [[1, 5], [5, 1], [7, 1, 5]])
def test_the_end_of_a_text_is_config_jsons(ends):
    """Of several ends the model is trained with that of config.json; in any order."""
    found = settings(eos_token_id=ends)
    assert found.special_ids["eos_id"] == 1
    assert found.eos_ids == (1, *(one for one in ends if one != 1))


@pytest.mark.parametrize("pad", [1, 3])
def test_what_generate_fills_up_with_is_not_the_models_padding(pad):
    """transformers writes the EOS there, "for open-end generation"."""
    assert settings(pad_token_id=pad).special_ids["pad_id"] == 0
    only = read_generation_settings({"eos_token_id": 1}, {"pad_token_id": 3}, "hf")
    assert only.special_ids["pad_id"] == 3


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"bos_token_id": 7}, "bos_token_id 7 and no decoder_start_token_id, so that `generate`"),
        ({"decoder_start_token_id": 5}, "is 0 in config.json and 5 in generation_config.json"),
        ({"eos_token_id": []}, r"is 1 in config.json and \[\] in generation_config.json"),
        ({"max_length": "20"}, "max_length is '20'.*--ignore-key max_length"),
        ({"num_beams": 0}, "num_beams is 0"),
        ({"num_beams": True}, "num_beams is True"),
        ({"repetition_penalty": "1.2"}, "repetition_penalty is '1.2'"),
        ({"suppress_tokens": 5}, "suppress_tokens is 5"),
        ({"bad_words_ids": [5]}, r"bad_words_ids is \[5\]"),
        ({"forced_bos_token_id": [3, 4]}, r"forced_bos_token_id is \[3, 4\]"),
        ({"forced_eos_token_id": [1, 2]}, r"forced_eos_token_id is \[1, 2\]"),
    ],
)
def test_what_is_refused_by_name(generation, message):
    with pytest.raises(ConfigError, match=message):
        settings(**generation)


def test_an_ignored_key_has_no_effect():
    found = read_generation_settings(IDS, {"num_beams": "4"}, "hf", ("num_beams",))
    assert found.decoding.num_beams == 1
    with pytest.raises(ConfigError, match=r"eos_token_id is \[\], which is no id"):
        read_generation_settings({**IDS, "eos_token_id": []}, None, "hf")


def test_processors_that_depend_on_other_settings():
    """An end is no bad word; behind a forced first token the begin is the second; every end is kept
    away below the least length."""
    assert not settings(bad_words_ids=[[1]]).decoding.logits_processors
    found = settings(bad_words_ids=[[1], [6]]).decoding.logits_processors
    assert found == (SuppressedTokens(ids=(6,)),)
    found = settings(begin_suppress_tokens=[2], forced_bos_token_id=4).decoding.logits_processors
    assert found[1] == SuppressedTokens(ids=(2,), span=(1, 2))
    several = settings(eos_token_id=[1, 5], min_new_tokens=3, max_new_tokens=9)
    assert several.decoding.logits_processors == (SuppressedTokens(ids=(1, 5), span=(0, 3)),)
    model = T5Config(vocab_size=90)
    written = write_generation_settings(model, several.decoding)
    assert (written["min_new_tokens"], written["max_new_tokens"]) == (3, 9)
    assert "suppress_tokens" not in written
    again = settings(begin_suppress_tokens=[2], forced_bos_token_id=4).decoding
    written = write_generation_settings(model, again)
    assert (written["begin_suppress_tokens"], written["forced_bos_token_id"]) == ([2], 4)


@pytest.mark.parametrize(
    ("fields", "positions"),
    [({}, range(4)), ({"first_only": True}, [0]), ({"span": (1, 3)}, [1, 2])],
)
def test_where_tokens_are_suppressed(fields, positions):
    processor = SuppressedTokens(ids=(2, 5), **fields)
    scores_BKV = jnp.zeros((1, 1, 7))
    for index in range(4):
        out = processor(scores_BKV, jnp.zeros((1, 1, 4), int), jnp.int32(index))
        away = np.flatnonzero(np.isneginf(np.asarray(out)[0, 0])).tolist()
        assert away == ([2, 5] if index in positions else [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feed_forward_proj", 7), ("is_gated_act", "false"), ("layer_norm_epsilon", "1e-6"),
        ("dropout_rate", "0.1"), ("num_decoder_layers", 2.0), ("vocab_size", "100"),
        ("tie_word_embeddings", "true"), ("d_kv", True), ("scale_decoder_outputs", "no"),
    ],
)  # fmt: skip
def test_a_setting_of_another_type_is_named(key, value):
    with pytest.raises(ConfigError, match=f"hf: {key} is {value!r}, which is not"):
        parse_config({**MODEL, key: value}, "hf")


@pytest.mark.parametrize("key", ["feed_forward_proj", "dropout_rate", "d_kv", "num_layers"])
def test_null_is_not_set(key):
    without = {name: value for name, value in MODEL.items() if name != key}
    assert parse_config({**MODEL, key: None}, "hf") == parse_config(without, "hf")
