"""Bytes against seqio's own class."""

import pytest

from t5jax.data.vocabularies import ByteVocabulary
from t5jax.errors import DataError


@pytest.mark.parametrize("extra_ids", [0, 7, 100])
def test_bytes_same_as_seqio(extra_ids):
    seqio = pytest.importorskip("seqio")
    ours, theirs = ByteVocabulary(extra_ids=extra_ids), seqio.ByteVocabulary(extra_ids=extra_ids)
    assert ours.vocab_size == theirs.vocab_size == 259 + extra_ids
    for text in ("plain", "naïve 文字 😀\n", ""):
        assert ours.encode(text).tolist() == theirs.encode(text)
        assert ours.decode(theirs.encode(text)) == text == theirs.decode(theirs.encode(text))


@pytest.mark.parametrize("extra_ids", [0, 11])
def test_byte_sentinels(extra_ids):
    vocabulary = ByteVocabulary(extra_ids=extra_ids)
    top = 258 + extra_ids
    text = "naïve<extra_id_0> 文<extra_id_10>z"
    ids = vocabulary.encode(text)
    assert (ids == top).sum() == 1
    assert (ids == top - 10).sum() == 1
    assert vocabulary.decode([0, *ids, 1]) == text
    assert vocabulary.num_sentinels == (extra_ids or 100)
    assert vocabulary.encode("<extra_id_200>").tolist() == [b + 3 for b in b"<extra_id_200>"]
    with pytest.raises(DataError, match="sentinel 100 does not exist"):
        vocabulary.sentinel_id(100)
