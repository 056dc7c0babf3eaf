"""Settings that cannot be, or have no effect, are refused by name."""

import pytest

from t5jax.decoding import DecodingConfig
from t5jax.errors import ConfigError

REFUSED = [
    ({"max_length": 0}, "decoding.max_length = 0: at least 1"),
    ({"num_beams": 0}, "decoding.num_beams = 0: at least 1"),
    ({"length_penalty": -0.1}, "decoding.length_penalty = -0.1: at least 0"),
    ({"temperature": 1.0, "top_p": 0.0}, "decoding.top_p = 0.0: above 0"),
    ({"top_k": 5}, "decoding.top_k = 5, top_p = 1.0 have no effect without sampling"),
    ({"temperature": 0.5, "num_beams": 2}, "sample or search, not both"),
    ({"num_outputs": 2}, "decoding.num_outputs = 2: 1 beams give no more than 1"),
    ({"min_length": 200}, "decoding.min_length = 200 is more than max_length = 128"),
    ({"repetition_penalty": 0.0}, "decoding.repetition_penalty = 0.0: above 0"),
    ({"beam_rule": "hf"}, "decoding.beam_rule = 'hf': one of t5x, huggingface"),
    ({"stop": ((),)}, "decoding.stop has an empty sequence"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_refused(settings, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        DecodingConfig(**settings)


def test_width_is_the_number_of_beams_or_samples():
    assert DecodingConfig().width == 1
    assert DecodingConfig(num_beams=5, num_outputs=2).width == 5
    assert DecodingConfig(temperature=0.3, num_outputs=4).width == 4
