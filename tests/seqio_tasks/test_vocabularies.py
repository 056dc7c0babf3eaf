"""Vocabularies: seqio's classes, equal to seqio's own of the same file, with t5jax's ids."""

import pickle

import pytest

from t5jax.data.seqio_bridge.vocabularies import our_vocabulary
from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
    train_sentencepiece,
)
from t5jax.data.vocabularies.files import PUBLISHED, VARIABLE
from t5jax.seqio_tasks.vocabularies import seqio_vocabulary


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("vocabulary") / "words.model"
    lines = [f"the {word} of a row {n}" for n in range(90) for word in ("table", "order", "word")]
    train_sentencepiece(iter(lines), str(path), vocab_size=35)
    return str(path)


def test_a_sentencepiece_vocabulary_is_seqios(seqio, model):
    ours = SentencePieceVocabulary(path=model, extra_ids=20)
    found = seqio_vocabulary(ours, sentinels=True)
    plain = seqio.SentencePieceVocabulary(model, extra_ids=20)
    assert isinstance(found, seqio.SentencePieceVocabulary)
    assert found == plain
    assert plain == found
    assert found != seqio.SentencePieceVocabulary(model, extra_ids=19)
    assert found != seqio.SentencePieceVocabulary("other.model", extra_ids=20)
    assert found != seqio.SentencePieceVocabulary(model, extra_ids=20, reverse_extra_ids=False)
    assert (found.vocab_size, found.eos_id, found.pad_id, found.unk_id) == (55, 1, 0, 2)
    assert found.vocab_size == plain.vocab_size
    assert found.sp_model == plain.sp_model
    text = "the order <extra_id_3> of a table"
    assert found.encode(text) == plain.encode(text) == ours.encode(text).tolist()
    assert found.encode_tf(text).numpy().tolist() == ours.encode(text).tolist()
    assert found.decode(ours.encode(text)) == text == ours.decode(ours.encode(text))
    assert our_vocabulary(found) == ours


def test_sentinels_of_documents_are_text(model):
    ours = SentencePieceVocabulary(path=model, extra_ids=20)
    documents = seqio_vocabulary(ours, sentinels=False)
    text = "a <extra_id_3> table"
    expected = ours.encode(text, sentinels=False).tolist()
    assert documents.encode_tf(text).numpy().tolist() == expected != ours.encode(text).tolist()
    assert documents == seqio_vocabulary(ours, sentinels=True), "they stand in one mixture"


def test_the_published_vocabulary_is_that_of_its_url(seqio, model, monkeypatch):
    monkeypatch.setenv(VARIABLE, model)
    found = seqio_vocabulary(SentencePieceVocabulary(path="t5"), sentinels=True)
    assert found == seqio.SentencePieceVocabulary(PUBLISHED["t5"].url, extra_ids=100)
    assert found.sentencepiece_model_file == model, "read from the copy at hand"
    assert found.vocab_size == 135
    assert found.tokenizer.GetPieceSize() == 135
    assert pickle.loads(pickle.dumps(found)) == found


def test_bytes(seqio):
    ours = ByteVocabulary(extra_ids=7)
    found = seqio_vocabulary(ours, sentinels=True)
    assert found == seqio.ByteVocabulary(extra_ids=7)
    assert seqio.ByteVocabulary(extra_ids=7) == found
    assert found != seqio.ByteVocabulary(extra_ids=8)
    assert (found.vocab_size, found.extra_ids) == (266, 7)
    assert found.encode_tf("é <extra_id_0>").numpy().tolist() == [198, 172, 35, 265]


def test_a_vocabulary_that_seqio_does_not_have(tmp_path):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁a", -1.0), ("▁row", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("<extra_id_0>")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = HuggingFaceVocabulary(path=str(tmp_path / "tokenizer.json"))
    found = seqio_vocabulary(ours, sentinels=True)
    assert found.encode_tf("a row").numpy().tolist() == [3, 4]
    assert (
        found.encode_tf("a <extra_id_0>").numpy().tolist() == ours.encode("a <extra_id_0>").tolist()
    )
    assert found == seqio_vocabulary(ours, sentinels=False)
