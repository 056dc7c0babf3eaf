"""Training: what is read, what is recorded, and that the file is one of T5's kind."""

import pytest
import sentencepiece
from prose import SENTENCES
from sentencepiece import sentencepiece_model_pb2

from t5jax.data.vocabularies import train_sentencepiece
from t5jax.errors import ConfigError, DataError


def test_training_is_deterministic_and_t5_compatible(small, tmp_path):
    path = tmp_path / "again" / "small.model"
    train_sentencepiece(iter(SENTENCES * 3), str(path), vocab_size=80)
    assert path.read_bytes() == small.file_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    special = processor.pad_id(), processor.eos_id(), processor.unk_id(), processor.bos_id()
    assert special == (0, 1, 2, -1)
    assert processor.get_piece_size() == 80
    assert small.vocab_size == 180
    for sentence in SENTENCES:
        assert small.decode(small.encode(sentence)) == sentence
    assert small.encode("the <extra_id_3> mill").tolist().count(small.sentinel_id(3)) == 1


def test_training_limits(tmp_path):
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


def settings_of(model: bytes):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto.trainer_spec


def test_same_ids_in_seqio(small, tmp_path):
    seqio = pytest.importorskip("seqio")
    fallback = train_sentencepiece(
        SENTENCES * 3, str(tmp_path / "bytes.model"), vocab_size=337, byte_fallback=True
    )
    for ours in (small, fallback):
        theirs = seqio.SentencePieceVocabulary(ours.path, extra_ids=100)
        assert theirs.vocab_size == ours.vocab_size
        for text in [*SENTENCES, "an <extra_id_7> unknown: ß 文 😀 <extra_id_41>.", ""]:
            ids = ours.encode(text).tolist()
            assert ids == theirs.encode(text)
            assert ours.decode(ids) == theirs.decode(ids)


def test_byte_fallback_of_unseen_characters(small, tmp_path):
    path = tmp_path / "bytes.model"
    vocabulary = train_sentencepiece(
        SENTENCES * 3, str(path), vocab_size=331, byte_fallback=True, character_coverage=0.985
    )
    strange = "ß 文 😀"
    ids = vocabulary.encode(strange)
    assert vocabulary.decode(ids) == strange
    assert vocabulary.unk_id not in ids
    assert vocabulary.unk_id in small.encode(strange)
    assert vocabulary.is_text(ids).all()
    recorded, without = settings_of(vocabulary.file_bytes()), settings_of(small.file_bytes())
    assert (recorded.byte_fallback, without.byte_fallback) == (True, False)
    assert recorded.character_coverage == pytest.approx(0.985)
    assert without.character_coverage == pytest.approx(0.9995)


def test_settings_out_of_range(tmp_path):
    path = str(tmp_path / "none.model")
    with pytest.raises(ConfigError, match=r"character_coverage = 0\.5: give a share"):
        train_sentencepiece(SENTENCES, path, vocab_size=60, character_coverage=0.5)
    for place in ("t5", "gs://somewhere/a.model"):
        with pytest.raises(ConfigError, match="needs a file here"):
            train_sentencepiece(SENTENCES, place, vocab_size=60)
