"""Names, URLs and the copies they are read from; fsspec's memory stands for the network."""

import json

import fsspec
import pytest

from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
    named_vocabulary,
    vocabulary_from_dict,
)
from t5jax.data.vocabularies.files import PUBLISHED, VARIABLE
from t5jax.errors import ConfigError, DataError

URL = "memory://vocabularies/small/sentencepiece.model"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "home"


@pytest.fixture
def remote(small):
    """The small vocabulary at URL, and a way to take it away."""
    memory = fsspec.filesystem("memory")
    memory.pipe(URL, small.file_bytes())
    yield memory
    memory.store.clear()


def test_a_url_is_fetched_once(remote, small, home):
    vocabulary = SentencePieceVocabulary(path=URL)
    assert vocabulary.fingerprint == small.fingerprint
    copies = [path for path in home.rglob("*") if path.is_file()]
    assert [path.name for path in copies] == ["sentencepiece.model"]
    assert copies[0].parent.parent == home / ".cache/t5jax/vocabularies"
    assert copies[0].read_bytes() == small.file_bytes()
    remote.rm(URL)
    assert vocabulary.encode("the river").tolist() == small.encode("the river").tolist()


def test_unreachable_urls_are_refused(monkeypatch, home):
    with pytest.raises(DataError, match=r"none\.model cannot be read.*T5JAX_VOCABULARY=memory:"):
        _ = SentencePieceVocabulary(path="memory://vocabularies/none.model").vocab_size
    with pytest.raises(ConfigError, match=r"nowhere://a\.model.*pip install"):
        _ = SentencePieceVocabulary(path="nowhere://a.model").vocab_size
    assert not list(home.rglob("*")), "a failed fetch leaves nothing"

    def missing(url):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(ConfigError, match=r"Install gcsfs.*T5JAX_VOCABULARY=t5=FILE"):
        _ = SentencePieceVocabulary(path="t5").vocab_size


def test_names(monkeypatch, t5, t5_model):
    monkeypatch.setenv(VARIABLE, t5_model)
    published = "gs://t5-data/vocabs/cc_all.32000/sentencepiece.model"
    assert named_vocabulary("t5") == SentencePieceVocabulary(path=published, extra_ids=100)
    for path in ("t5", published):
        vocabulary = SentencePieceVocabulary(path=path)
        assert vocabulary.fingerprint == t5.fingerprint
        assert vocabulary.vocab_size == 32100
    assert named_vocabulary("mt5").extra_ids == 0  # they are in the file
    assert named_vocabulary("umt5").extra_ids == 300
    assert named_vocabulary("byt5") == ByteVocabulary()
    with pytest.raises(ConfigError, match="no vocabulary 't6': choose t5, mt5, umt5 or byt5"):
        named_vocabulary("t6")
    with pytest.raises(ConfigError, match="extra_ids = 100: umt5's models have 300"):
        SentencePieceVocabulary(path="umt5").encode("x")


def test_environment_variable_names_local_files(monkeypatch, small, tmp_path):
    monkeypatch.setenv(VARIABLE, f"umt5={small.path},{URL}={small.path}")
    assert SentencePieceVocabulary(path=URL).fingerprint == small.fingerprint
    assert named_vocabulary("umt5").vocab_size == 80 + 300
    monkeypatch.setenv(VARIABLE, f"mt5={tmp_path}/none.model")
    with pytest.raises(ConfigError, match=r"T5JAX_VOCABULARY names '.*none\.model' for mt5"):
        _ = named_vocabulary("mt5").vocab_size
    assert {name: file.url.count("gs://t5-data/vocabs/") for name, file in PUBLISHED.items()} == {
        "t5": 1, "mt5": 1, "umt5": 1,
    }  # fmt: skip


def test_vocabulary_from_a_stores_record(small, real_data, tmp_path):
    tokenizer = HuggingFaceVocabulary(path=str(real_data / "tokenizer/t5/tokenizer.json"))
    seen = set()
    for number, vocabulary in enumerate(
        (small, SentencePieceVocabulary(path=small.path, extra_ids=7), tokenizer,
         ByteVocabulary(extra_ids=5), ByteVocabulary())
    ):  # fmt: skip
        directory = tmp_path / str(number)
        directory.mkdir()
        if vocabulary.file_name:
            (directory / vocabulary.file_name).write_bytes(vocabulary.file_bytes())
        else:
            assert vocabulary.file_bytes() is None
        record = json.loads(json.dumps(vocabulary.to_dict()))
        again = vocabulary_from_dict(record, directory)
        assert type(again) is type(vocabulary)
        assert again.fingerprint == vocabulary.fingerprint == record["fingerprint"]
        assert again.vocab_size == vocabulary.vocab_size == record["vocab_size"]
        assert again.num_sentinels == vocabulary.num_sentinels
        seen.add((record["kind"], record["fingerprint"]))
    assert len(seen) == 5
    with pytest.raises(DataError, match="no vocabulary of kind 'words'"):
        vocabulary_from_dict({"kind": "words", "extra_ids": 0}, tmp_path)
