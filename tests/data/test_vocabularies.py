"""Vocabularies against the T5 file's recorded encodings and against seqio's own classes."""

import gzip
import hashlib
import json
import pickle

import numpy as np
import pytest
import sentencepiece

from t5jax.data.vocabularies import (
    ByteVocabulary,
    SentencePieceVocabulary,
    train_sentencepiece,
)
from t5jax.errors import DataError

SENTENCES = [
    "A barge carried 37 crates of quinces up the river before the frost came.",
    "Nobody in the village had heard the bell since the old tower fell.",
    "The cook salts the water, waits, and adds one handful of barley at a time.",
    "If the map is right, the ford lies two miles east of the broken mill.",
    "She wrote the numbers 4, 15 and 230 on the wall and left them there.",
]


@pytest.fixture(scope="module")
def t5_model(real_data):
    return str(real_data / "tokenizer/t5/spiece.model")


@pytest.fixture(scope="module")
def t5(t5_model):
    return SentencePieceVocabulary(path=t5_model)


@pytest.fixture(scope="module")
def c4_texts(real_data):
    with gzip.open(real_data / "text/c4/en/c4-train.00001-of-00004.json.gz", "rt") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(60), strict=False)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    return train_sentencepiece(SENTENCES * 3, str(path), vocab_size=80)


def test_t5_golden_ids(t5):
    ids = t5.encode("translate English to German: That is good.")
    assert ids.tolist() == [13959, 1566, 12, 2968, 10, 466, 19, 207, 5]
    assert ids.dtype == np.int32
    assert t5.vocab_size == 32100
    assert (t5.sentinel_id(0), t5.sentinel_id(99), t5.first_sentinel_id) == (32099, 32000, 32000)


def test_t5_recorded_encodings(t5, real_data):
    with gzip.open(real_data / "tokenizer/t5/encodings.jsonl.gz", "rt") as file:
        records = [json.loads(line) for line in file]
    assert len(records) == 36
    for record in records:
        # Recorded with the plain library, to which a sentinel in the text is text.
        assert t5.encode(record["text"], sentinels=False).tolist() == record["ids"]
        assert t5.decode(record["ids"]) == record["decoded"]


def test_same_ids_as_seqio(t5, t5_model, c4_texts):
    seqio = pytest.importorskip("seqio")
    theirs = seqio.SentencePieceVocabulary(t5_model, extra_ids=100)
    with_sentinels = [
        "<extra_id_0>",
        "a <extra_id_0> b <extra_id_99>.",
        "x <extra_id_1>ly and\n<extra_id_2>\nend",
        "<extra_id_0> <extra_id_1> c <extra_id_100>",
        "a <pad> b </s> c <unk>",
        "Ａ ﬁ ½ “quoted”\u00a0é",
        "",
    ]
    for text in with_sentinels + c4_texts:
        ids = t5.encode(text)
        assert ids.tolist() == theirs.encode(text)
        assert t5.decode(ids) == theirs.decode(ids.tolist())
        if "<extra_id" not in text:
            assert t5.encode(text, sentinels=False).tolist() == ids.tolist()


def test_sentinel_glued_to_a_word(t5):
    """seqio leaves garbage here; a prompt typed by hand should simply work."""
    assert t5.encode("jel<extra_id_0>").tolist() == [*t5.encode("jel").tolist(), 32099]
    assert t5.encode("<extra_id_0><extra_id_1>").tolist() == [32099, 32098]


def test_sentinels_can_be_plain_text(t5):
    ids = t5.encode("a <extra_id_0> b", sentinels=False)
    assert t5.is_text(ids).all()
    assert ids.max() < t5.first_sentinel_id


def test_pad_literal_is_text(t5, small):
    for vocabulary in (t5, small, ByteVocabulary()):
        for text in ("<pad>", "one <pad> two", "</s>", "<pad></s>"):
            ids = vocabulary.encode(text)
            assert ids.min() > vocabulary.eos_id, (vocabulary, text, ids)


def test_decode_marks(t5):
    the, course = t5.encode("The course")
    ids = [the, 32099, course, 0, 0, 32098, 1, 0]
    assert t5.decode(ids) == "The <extra_id_0> course <extra_id_1>"
    assert t5.decode(np.array([the, 32127, -1])) == t5.decode([the, 2, 2])  # spare embedding rows


def test_is_text(t5):
    ids = np.array([[0, 1, 2, 3], [31999, 32000, 32099, 32100]])
    assert t5.is_text(ids).tolist() == [[False, False, True, True], [True, False, False, False]]


def test_lone_surrogate_becomes_replacement(t5):
    assert t5.encode("x \ud800 y").tolist() == t5.encode("x \ufffd y").tolist()
    assert ByteVocabulary().encode("\ud83d\ude00").tolist() == [243, 162, 155, 131]


def test_fingerprint_is_of_content(t5, t5_model, tmp_path):
    copy = tmp_path / "copy.model"
    copy.write_bytes(t5.model_bytes())
    assert SentencePieceVocabulary(path=str(copy)).fingerprint == t5.fingerprint
    assert SentencePieceVocabulary(path=t5_model, extra_ids=0).fingerprint != t5.fingerprint
    assert ByteVocabulary(extra_ids=7).fingerprint != ByteVocabulary().fingerprint
    assert ByteVocabulary().fingerprint == hashlib.sha256(b"bytes:0").hexdigest()


def test_pickle(small):
    clone = pickle.loads(pickle.dumps(small))
    assert clone == small
    assert clone.encode("the river").tolist() == small.encode("the river").tolist()


def test_a_model_trained_again_is_read_again(tmp_path):
    path = str(tmp_path / "again.model")
    first = train_sentencepiece(SENTENCES, path, vocab_size=60).vocab_size
    vocabulary = train_sentencepiece(SENTENCES, path, vocab_size=77)
    assert (first, vocabulary.vocab_size) == (160, 177)


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


def test_training_is_deterministic_and_t5_compatible(small, tmp_path):
    path = tmp_path / "again" / "small.model"
    train_sentencepiece(iter(SENTENCES * 3), str(path), vocab_size=80)
    assert path.read_bytes() == small.model_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    special = processor.pad_id(), processor.eos_id(), processor.unk_id(), processor.bos_id()
    assert special == (0, 1, 2, -1)
    assert processor.get_piece_size() == 80
    assert small.vocab_size == 180
    for sentence in SENTENCES:
        assert small.decode(small.encode(sentence)) == sentence
    assert small.encode("the <extra_id_3> mill").tolist().count(small.sentinel_id(3)) == 1


def test_training_reads_only_what_it_may(tmp_path):
    read = []

    def documents():
        for number in range(10_000):
            read.append(number)
            yield SENTENCES[number % 5]

    train_sentencepiece(documents(), str(tmp_path / "a.model"), vocab_size=60, num_chars=2000)
    assert len(read) < 40
    # A line longer than the trainer accepts is cut, not skipped.
    long_line = " ".join(SENTENCES * 400)
    vocabulary = train_sentencepiece([long_line], str(tmp_path / "b.model"), vocab_size=60)
    assert vocabulary.decode(vocabulary.encode(SENTENCES[0])) == SENTENCES[0]


@pytest.mark.parametrize(
    ("documents", "size", "message"),
    [
        (SENTENCES, 5000, r"5000 pieces is more than the text supports \(\d+ pieces at most"),
        (SENTENCES, 9, "does not even hold the text's characters"),
        ([], 100, "is there text"),
        (["", "\n \n"], 100, "is there text"),
    ],
)
def test_training_errors(documents, size, message, tmp_path):
    path = tmp_path / "none.model"
    with pytest.raises(DataError, match=message):
        train_sentencepiece(documents, str(path), vocab_size=size)
    assert not path.exists()


def test_bad_files(tmp_path, t5_model):
    with pytest.raises(DataError, match=r"nowhere\.model.*t5jax vocab train"):
        _ = SentencePieceVocabulary(path=str(tmp_path / "nowhere.model")).vocab_size
    for content, message in ((b"", "empty"), (b"not a model at all", "not a SentencePiece model")):
        path = tmp_path / "bad.model"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            SentencePieceVocabulary(path=str(path)).encode("x")
    with pytest.raises(DataError, match="not a file"):
        SentencePieceVocabulary(path=str(tmp_path)).encode("x")


def test_wrong_special_ids_are_refused(tmp_path):
    prefix = tmp_path / "default"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(prefix), vocab_size=60, minloglevel=2
    )
    with pytest.raises(DataError, match=r"\(-1, 2, 0\), T5 needs \(0, 1, 2\).*vocab train"):
        SentencePieceVocabulary(path=f"{prefix}.model").encode("x")


def test_sentinels_in_the_file_already(small, tmp_path):
    path = tmp_path / "baked.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_prefix=str(path).removesuffix(".model"),
        vocab_size=70,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        user_defined_symbols=["▁<extra_id_0>"],
        minloglevel=2,
    )
    with pytest.raises(DataError, match="set extra_ids=0"):
        SentencePieceVocabulary(path=str(path)).encode("x")
    assert SentencePieceVocabulary(path=str(path), extra_ids=0).vocab_size == 70
