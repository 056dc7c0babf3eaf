"""Tokenizer files of Hugging Face's directories and our vocabularies, both ways."""

import json
import pathlib

import numpy as np
import pytest

from t5jax.convert.tokenizers import (
    read_vocabulary,
    user_defined_pieces,
    vocabulary_by_name,
    write_tokenizer,
)
from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
    extend_vocabulary,
    train_sentencepiece,
)
from t5jax.data.vocabularies.model_file import Piece, PieceType, with_more_pieces
from t5jax.errors import ConfigError, DataError
from tests.data.vocabularies.prose import SENTENCES

TEXTS = [
    "translate English to German: That is good.",
    "  two  spaces\tand\nnewline ",
    "ünïcödé 世界 ½ ﬁ",
    "The <extra_id_0> of the <extra_id_1> village",
    "<extra_id_0> first and <extra_id_7> last",
    "translate {the map}<sep>back",
]


@pytest.fixture(scope="module")
def piece_file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    train_sentencepiece(SENTENCES * 3, str(path), vocab_size=70)
    return str(path)


@pytest.fixture(scope="module")
def extended(piece_file) -> SentencePieceVocabulary:
    """With learned pieces behind the trained ones, below the sentinels."""
    old = SentencePieceVocabulary(path=piece_file, extra_ids=100)
    pieces = [Piece(text, -3.0) for text in ("▁translate", "▁village", "▁good.", "map")]
    path = pathlib.Path(piece_file).with_name("extended.model")
    new, _ = extend_vocabulary(old, pieces, str(path))
    return new


@pytest.fixture(scope="module")
def with_sentinels(piece_file) -> str:
    """A model file that holds its sentinels, as mT5's does."""
    path = pathlib.Path(piece_file)
    pieces = [Piece(f"▁<extra_id_{i}>", 0.0, PieceType.USER_DEFINED) for i in range(9, -1, -1)]
    new = path.with_name("like_mt5.model")
    new.write_bytes(with_more_pieces(path.read_bytes(), pieces))
    return str(new)


def assert_same(found, want):
    assert type(found) is type(want)
    assert found.fingerprint == want.fingerprint
    for text in TEXTS:
        np.testing.assert_array_equal(found.encode(text), want.encode(text))


@pytest.mark.parametrize("extra_ids", [100, 300, 8])
def test_sentence_piece_there_and_back(tmp_path, piece_file, extra_ids):
    vocabulary = SentencePieceVocabulary(path=piece_file, extra_ids=extra_ids)
    assert write_tokenizer(vocabulary, tmp_path) == ["tokenizer_config.json", "spiece.model"]
    assert_same(read_vocabulary(tmp_path), vocabulary)


def test_sentinels_in_the_file_there_and_back(tmp_path, with_sentinels):
    vocabulary = SentencePieceVocabulary(path=with_sentinels, extra_ids=0)
    write_tokenizer(vocabulary, tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["extra_ids"] == 0
    assert_same(read_vocabulary(tmp_path), vocabulary)


def test_extended_there_and_back(tmp_path, extended):
    assert extended.vocab_size == 70 + 4 + 100
    write_tokenizer(extended, tmp_path)
    assert_same(read_vocabulary(tmp_path), extended)


def test_pieces_that_transformers_finds_differently(piece_file, extended, with_sentinels, tmp_path):
    """It reads user-defined pieces as trained ones; sentinels are not meant."""
    own = [Piece(text, 0.0, PieceType.USER_DEFINED) for text in ("{", "<sep>")]
    by_hand, _ = extend_vocabulary(extended, own, str(tmp_path / "own.model"))
    assert user_defined_pieces(by_hand) == ["{", "<sep>"]
    in_file = SentencePieceVocabulary(path=with_sentinels, extra_ids=0)
    for other in (extended, in_file, ByteVocabulary()):
        assert user_defined_pieces(other) == []


def test_bytes_there_and_back(tmp_path):
    assert write_tokenizer(ByteVocabulary(), tmp_path) == ["tokenizer_config.json"]
    assert_same(read_vocabulary(tmp_path), ByteVocabulary())


def test_a_directory_without_a_tokenizer(tmp_path):
    assert read_vocabulary(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text("not json")
    with pytest.raises(DataError, match="is not JSON"):
        read_vocabulary(tmp_path)


def test_tokenizer_json(tmp_path, real_data):
    file = str(real_data / "tokenizer/t5/tokenizer.json")
    vocabulary = HuggingFaceVocabulary(path=file)
    write_tokenizer(vocabulary, tmp_path)
    assert_same(read_vocabulary(tmp_path), vocabulary)


def test_published_settings(tmp_path, real_data):
    """T5's own list their sentinels one by one."""
    settings = real_data / "tokenizer/configs/t5-v1_1-base.tokenizer_config.json"
    (tmp_path / "tokenizer_config.json").write_text(settings.read_text())
    source = real_data / "tokenizer/t5/spiece.model"
    (tmp_path / "spiece.model").write_bytes(source.read_bytes())
    assert_same(read_vocabulary(tmp_path), SentencePieceVocabulary(path=str(source)))


@pytest.mark.parametrize("listed", ["additional_special_tokens", "extra_special_tokens"])
def test_the_number_of_sentinels_is_counted(tmp_path, piece_file, listed):
    (tmp_path / "spiece.model").write_bytes(pathlib.Path(piece_file).read_bytes())
    tokens = [f"<extra_id_{i}>" for i in range(300)]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({listed: [*tokens, "<other>"]}))
    assert read_vocabulary(tmp_path).extra_ids == 300


def test_what_the_command_line_names(piece_file, with_sentinels):
    assert vocabulary_by_name(piece_file, None).extra_ids == 100
    assert vocabulary_by_name(piece_file, 8).extra_ids == 8
    assert vocabulary_by_name(with_sentinels, None).extra_ids == 0
    assert vocabulary_by_name("byt5", None) == ByteVocabulary()
    assert vocabulary_by_name("umt5", None).extra_ids == 300
    with pytest.raises(ConfigError, match="no such file"):
        vocabulary_by_name("nowhere.model", None)
    with pytest.raises(ConfigError, match="defines its own"):
        vocabulary_by_name("t5", 50)


@pytest.mark.parity
@pytest.mark.parametrize(
    "kind",
    ["pieces", "extended", "sentinels in the file", "bytes", "bytes and sentinels", "t5", "json"],
)
def test_transformers_gives_the_same_ids(request, tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")
    if kind in ("t5", "json"):
        folder = request.getfixturevalue("real_data") / "tokenizer/t5"
    vocabulary = {
        "pieces": lambda: SentencePieceVocabulary(
            path=request.getfixturevalue("piece_file"), extra_ids=100
        ),
        "extended": lambda: request.getfixturevalue("extended"),
        "sentinels in the file": lambda: SentencePieceVocabulary(
            path=request.getfixturevalue("with_sentinels"), extra_ids=0
        ),
        "bytes": ByteVocabulary,
        "bytes and sentinels": lambda: ByteVocabulary(extra_ids=100),
        "t5": lambda: SentencePieceVocabulary(path=str(folder / "spiece.model")),
        "json": lambda: HuggingFaceVocabulary(path=str(folder / "tokenizer.json")),
    }[kind]()
    write_tokenizer(vocabulary, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    # As ByT5 was released: theirs has ids of their own for what ours writes with the top bytes.
    texts = [t for t in TEXTS if kind != "bytes" or "extra_id" not in t]
    for text in texts:
        ours = [*vocabulary.encode(text).tolist(), vocabulary.eos_id]
        assert tokenizer(text).input_ids == ours, text
    assert len(tokenizer) == (384 if kind == "bytes" else vocabulary.vocab_size)
