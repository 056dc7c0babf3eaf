"""Vocabularies that several tests use: T5's own, and a small trained one."""

import gzip
import json

import pytest
from prose import SENTENCES

from t5jax.data.vocabularies import SentencePieceVocabulary, train_sentencepiece


@pytest.fixture(scope="session")
def t5_model(real_data) -> str:
    return str(real_data / "tokenizer/t5/spiece.model")


@pytest.fixture(scope="session")
def t5(t5_model) -> SentencePieceVocabulary:
    return SentencePieceVocabulary(path=t5_model)


@pytest.fixture(scope="session")
def recorded(real_data) -> list[dict]:
    """Texts with their ids, by the plain library on T5's file."""
    with gzip.open(real_data / "tokenizer/t5/encodings.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="session")
def c4_texts(real_data) -> list[str]:
    texts = []
    for path in sorted((real_data / "text/c4/en").glob("c4-train*.json.gz")):
        with gzip.open(path, "rt") as file:
            texts += [json.loads(line)["text"] for line in file]
    return texts


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> SentencePieceVocabulary:
    path = tmp_path_factory.mktemp("vocabulary") / "small.model"
    return train_sentencepiece(SENTENCES * 3, str(path), vocab_size=80)
