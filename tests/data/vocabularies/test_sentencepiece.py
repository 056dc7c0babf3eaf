"""SentencePiece vocabularies against T5's recorded encodings and against seqio's own class."""

import hashlib
import io
import pickle

import numpy as np
import pytest
import sentencepiece
from prose import SENTENCES

from t5jax.data.vocabularies import (
    ByteVocabulary,
    SentencePieceVocabulary,
    train_sentencepiece,
)
from t5jax.data.vocabularies.model_file import Piece, PieceType, with_more_pieces
from t5jax.errors import DataError


def test_t5_golden_ids(t5):
    ids = t5.encode("translate English to German: That is good.")
    assert ids.tolist() == [13959, 1566, 12, 2968, 10, 466, 19, 207, 5]
    assert ids.dtype == np.int32
    assert t5.vocab_size == 32100
    assert (t5.sentinel_id(0), t5.sentinel_id(99), t5.first_sentinel_id) == (32099, 32000, 32000)


def test_t5_recorded_encodings(t5, recorded):
    assert len(recorded) == 36
    for record in recorded:
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
    for text in with_sentinels + c4_texts[:60]:
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
    copy.write_bytes(t5.file_bytes())
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


def sentinels(indices, mark="▁") -> list[Piece]:
    return [Piece(f"{mark}<extra_id_{i}>", 0.0, PieceType.USER_DEFINED) for i in indices]


@pytest.fixture(scope="module")
def baked(small, tmp_path_factory):
    """The small vocabulary's file with 13 sentinels in it, as mT5's file has 100."""
    path = tmp_path_factory.mktemp("baked") / "baked.model"
    path.write_bytes(with_more_pieces(small.file_bytes(), sentinels(range(12, -1, -1))))
    return SentencePieceVocabulary(path=str(path), extra_ids=0)


def test_sentinels_in_the_file(baked, small):
    seqio = pytest.importorskip("seqio")
    on_top = SentencePieceVocabulary(path=small.path, extra_ids=13)
    assert (baked.vocab_size, baked.num_sentinels, baked.first_sentinel_id) == (93, 13, 80)
    theirs = seqio.SentencePieceVocabulary(baked.path, extra_ids=0)
    for text in [*SENTENCES, "the <extra_id_0> mill <extra_id_12>.", "a<extra_id_5>ly"]:
        ids = baked.encode(text)
        assert ids.tolist() == on_top.encode(text).tolist()
        assert baked.decode(ids) == on_top.decode(ids)
        if "a<" not in text:
            assert ids.tolist() == theirs.encode(text)
    # In documents they are text, though they are pieces of the file.
    text = "the <extra_id_0> mill"
    assert (
        baked.encode(text, sentinels=False).tolist() == small.encode(text, sentinels=False).tolist()
    )
    assert baked.is_text(baked.encode(text, sentinels=False)).all()


def test_sentinels_cannot_be_both_in_the_file_and_on_top(baked):
    with pytest.raises(DataError, match=r"refuses 100 sentinels.*13 are in the.*set extra_ids=0"):
        SentencePieceVocabulary(path=baked.path).encode("x")


@pytest.mark.parametrize(
    ("pieces", "ids"),
    [
        (sentinels(range(5)), (80, 81, 82, 83, 84)),
        ([*sentinels([1, 0], mark=""), Piece("zz")], (81, 80)),
        ([Piece("zz"), *sentinels([2, 0, 1]), Piece("yy")], (82, 83, 81)),
    ],
)
def test_sentinels_anywhere_in_the_file(small, tmp_path, pieces, ids):
    path = tmp_path / "anywhere.model"
    path.write_bytes(with_more_pieces(small.file_bytes(), pieces))
    vocabulary = SentencePieceVocabulary(path=str(path), extra_ids=0)
    assert vocabulary.sentinel_ids == ids
    assert vocabulary.num_sentinels == len(ids)
    for index, number in enumerate(ids):
        assert vocabulary.sentinel_id(index) == number
        assert number in vocabulary.encode(f"the <extra_id_{index}> mill")
        assert vocabulary.decode([number]).strip() == f"<extra_id_{index}>"
    own = [80 + n for n, piece in enumerate(pieces) if "extra" not in piece.text]
    assert vocabulary.is_text(np.array(own)).all()
    assert not vocabulary.is_text(np.array(ids)).any()


@pytest.mark.parametrize("kind", [PieceType.CONTROL, PieceType.UNUSED, PieceType.NORMAL])
def test_sentinels_that_the_model_itself_never_finds(kind, small, tmp_path):
    """Control symbols, unused pieces, pieces that others spell cheaper."""
    path = tmp_path / "other.model"
    pieces = [Piece(f"▁<extra_id_{i}>", -90.0, kind) for i in (2, 1, 0)]
    path.write_bytes(with_more_pieces(small.file_bytes(), pieces))
    vocabulary = SentencePieceVocabulary(path=str(path), extra_ids=0)
    expected = [*small.encode("the").tolist(), 82, *small.encode("mill").tolist()]
    assert vocabulary.encode("the <extra_id_0> mill").tolist() == expected
    assert vocabulary.decode(expected) == "the <extra_id_0> mill"
    text = "the <extra_id_0> mill"
    assert (
        vocabulary.encode(text, sentinels=False).tolist()
        == small.encode(text, sentinels=False).tolist()
    )


def test_a_model_that_ends_words_with_the_word_mark(tmp_path):
    """A sentinel at the beginning of a text would be spelled out."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=writer, vocab_size=70, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, treat_whitespace_as_suffix=True,
    )  # fmt: skip
    path = tmp_path / "suffix.model"
    path.write_bytes(writer.getvalue())
    with pytest.raises(DataError, match="the token '<extra_id_0>' with id 72 encodes to"):
        SentencePieceVocabulary(path=str(path), extra_ids=3).encode("x")
    plain = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    vocabulary = SentencePieceVocabulary(path=str(path), extra_ids=0)
    assert vocabulary.encode("the mill").tolist() == plain.encode("the mill")


def test_a_sentinel_that_is_missing(small, tmp_path):
    path = tmp_path / "gap.model"
    path.write_bytes(with_more_pieces(small.file_bytes(), sentinels([3, 1, 0])))
    with pytest.raises(DataError, match="of 3 sentinels <extra_id_2> is missing"):
        SentencePieceVocabulary(path=str(path), extra_ids=0).encode("x")


@pytest.mark.parametrize("strip", [True, False])
def test_a_text_begins_with_a_sentinel_without_dummy_prefix(tmp_path, strip):
    """seqio spells it out; it is one id, and nothing stands before it."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=writer, vocab_size=70, minloglevel=2,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, add_dummy_prefix=False,
        remove_extra_whitespaces=strip,
    )  # fmt: skip
    path = tmp_path / "no_prefix.model"
    path.write_bytes(writer.getvalue())
    vocabulary = SentencePieceVocabulary(path=str(path), extra_ids=7)
    plain = sentencepiece.SentencePieceProcessor(model_proto=writer.getvalue())
    # Behind a sentinel a space is a space, as between words.
    river = plain.encode("a the")[len(plain.encode("a")) :]
    assert vocabulary.encode("<extra_id_0> the").tolist() == [76, *river]
    assert vocabulary.encode("<extra_id_1>").tolist() == [75]
    for spaces in (" ", "  ", "\n"):  # those of the beginning are dropped where the model drops any
        ids = vocabulary.encode(f"{spaces}<extra_id_0> the").tolist()
        assert ids[-len(river) - 1 :] == [76, *river]
        assert not strip or len(ids) == 1 + len(river)
    assert vocabulary.encode("the <extra_id_2>").tolist() == [*plain.encode("the"), 74]
    assert 76 not in vocabulary.encode("<extra_id_0> the", sentinels=False)
