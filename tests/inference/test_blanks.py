"""Blanks of a text, filled with the spans of an output."""

import pytest

from t5jax.inference import fill_blanks
from t5jax.inference.blanks import has_blanks


@pytest.mark.parametrize(
    ("text", "output", "filled"),
    [
        ("A <extra_id_0> b <extra_id_1>.", "<extra_id_0> x <extra_id_1> y", "A x b y."),
        ("A <extra_id_0> b <extra_id_1>.", "<extra_id_1> y", "A <extra_id_0> b y."),
        ("Yes <extra_id_0> no", "<extra_id_0>, but", "Yes, but no"),
        ("A <extra_id_0>", "no sentinel", "A <extra_id_0>"),
        ("no blank", "<extra_id_0> x", "no blank"),
    ],
)
def test_fill_blanks(text, output, filled):
    assert fill_blanks(text, output) == filled
    assert has_blanks(text) == ("<extra" in text)
