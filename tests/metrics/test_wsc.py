"""The rule by which a phrase names a referent."""

import gzip
import json

import pytest

from t5jax.metrics.wsc import wsc_simple_label, wsc_simple_match


@pytest.mark.parametrize(
    ("prediction", "reference", "same"),
    [
        ("the aldermen", "The Aldermen", True),
        ("aldermen", "the old aldermen", True),
        ("his fuzzy rabbit", "rabbit", True),
        ("fuzzy rabbit", "fuzzy dog", False),
        ("Tom", "Tom's hat", False),
        ("Tom's", "Tom's hat", True),
        ("hat", "Tom's hat", False),
        ("Tom's hat", "hat Tom's old", True),
        ("Tom hat", "hat and Tom", True),
        ("the", "the dog", False),
        ("", "dog", False),
        ("  Dog ", "every dog", True),
        ("her", "her", False),
    ],
)
def test_match(prediction, reference, same):
    assert wsc_simple_match(prediction, reference) is same
    assert wsc_simple_match(prediction, reference + " ") is same


def test_a_prediction_without_words_is_wrong_for_either_label():
    assert wsc_simple_label("", "dog") == -1
    assert wsc_simple_label(" the ", "dog") == -1
    assert wsc_simple_label("cat", "dog") == 0
    assert wsc_simple_label("that dog", "dog") == 1


def test_real_referents_name_themselves_and_not_each_other(real_data):
    with gzip.open(real_data / "superglue/WSC/validation.jsonl.gz", "rt", encoding="utf-8") as file:
        referents = [json.loads(line)["target"]["span1_text"] for line in file]
    assert len(referents) == 102
    assert all(
        wsc_simple_label(r, r) == 1 and wsc_simple_label(r.upper(), r) == 1 for r in referents
    )
    assert all(wsc_simple_label("my zeppelin", r) == 0 for r in referents)
