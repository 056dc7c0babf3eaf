"""Vocabularies from a store's record, or by the name of a model family."""

import os
from typing import Any

from t5jax.data.vocabularies.base import Vocabulary
from t5jax.data.vocabularies.byte import ByteVocabulary
from t5jax.data.vocabularies.files import PUBLISHED
from t5jax.data.vocabularies.huggingface import HuggingFaceVocabulary
from t5jax.data.vocabularies.sentencepiece import SentencePieceVocabulary
from t5jax.errors import ConfigError, DataError


def vocabulary_from_dict(record: dict[str, Any], directory: str | os.PathLike[str]) -> Vocabulary:
    """The vocabulary of `Vocabulary.to_dict()`, whose file lies in `directory` as its `file_name`.

    The file is read at first use; compare `fingerprint` with the record's to know that it is the
    same. Raises DataError for a kind that does not exist.
    """
    kind = record.get("kind")
    if kind == ByteVocabulary.kind:
        return ByteVocabulary(extra_ids=record["extra_ids"])
    for cls in (SentencePieceVocabulary, HuggingFaceVocabulary):
        if kind == cls.kind:
            return cls(path=os.path.join(directory, cls.file_name), extra_ids=record["extra_ids"])
    raise DataError(f"there is no vocabulary of kind {kind!r}; a newer t5jax may have written it")


def named_vocabulary(name: str) -> SentencePieceVocabulary | ByteVocabulary:
    """The vocabulary of a published family, with its sentinels: t5, mt5, umt5 or byt5.

    Raises ConfigError for another name.
    """
    if name == "byt5":
        return ByteVocabulary()
    if name in PUBLISHED:
        file = PUBLISHED[name]
        return SentencePieceVocabulary(path=file.url, extra_ids=file.extra_ids)
    raise ConfigError(
        f"there is no vocabulary {name!r}: choose {', '.join(PUBLISHED)} or byt5, or give a file "
        "with SentencePieceVocabulary(path=...)"
    )
