"""Vocabularies of t5jax as seqio's classes of the same kind, with t5jax's token ids.

T5X and seqio's mixtures compare vocabularies: one of these equals seqio's own of the same file. Its
ids are those of `TextVocabulary`, because tf_text's tokeniser gives others for some documents.
"""

import os
from typing import Any

from t5jax.data.seqio_bridge.vocabularies import TextVocabulary
from t5jax.data.tensorflow_import import import_seqio
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, Vocabulary
from t5jax.data.vocabularies.files import PUBLISHED, is_local, local_file

seqio = import_seqio()


class SentencePieceText(TextVocabulary, seqio.SentencePieceVocabulary):
    """`seqio.SentencePieceVocabulary` of the same address. A published file's is its URL; it is
    read from the copy that t5jax has of it, when it is first needed."""

    def __init__(self, vocabulary: SentencePieceVocabulary, *, sentinels: bool):
        path = vocabulary.path
        seqio.SentencePieceVocabulary.__init__(
            self,
            PUBLISHED[path].url if path in PUBLISHED else path,
            extra_ids=vocabulary.extra_ids,
        )
        self.vocabulary, self.sentinels = vocabulary, sentinels

    @property
    def sentencepiece_model_file(self) -> str:
        """A local path."""
        return local_file(self.vocabulary.path)

    def _model_context(self) -> Any:
        if not self._model:
            plain = seqio.SentencePieceVocabulary(
                self.sentencepiece_model_file, extra_ids=self.extra_ids
            )
            self._model = plain._model_context()
        return self._model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, seqio.SentencePieceVocabulary) and _settings(self) == _settings(
            other
        )

    __hash__ = None


def _settings(vocabulary: Any) -> tuple[Any, ...]:
    return (
        vocabulary._sentencepiece_model_file,
        vocabulary.extra_ids,
        vocabulary._normalizer_spec_overrides,
        vocabulary._reverse_extra_ids,
    )


class ByteText(TextVocabulary, seqio.ByteVocabulary):
    """`seqio.ByteVocabulary` of as many extra ids."""

    def __init__(self, vocabulary: ByteVocabulary, *, sentinels: bool):
        seqio.ByteVocabulary.__init__(self, extra_ids=vocabulary.extra_ids)
        self.vocabulary, self.sentinels = vocabulary, sentinels

    __eq__ = seqio.ByteVocabulary.__eq__
    __hash__ = None


def seqio_vocabulary(vocabulary: Vocabulary, *, sentinels: bool) -> TextVocabulary:
    """A vocabulary for the features of a task: of seqio's class where it has one. No file is
    opened.

    `sentinels`: a literal `<extra_id_0>` in a text is the sentinel (examples; in documents of
    plain text it is text).
    """
    # A folder may add tokens to its model, and seqio's class knows the model alone.
    if isinstance(vocabulary, SentencePieceVocabulary) and not _is_folder(vocabulary.path):
        return SentencePieceText(vocabulary, sentinels=sentinels)
    if isinstance(vocabulary, ByteVocabulary):
        return ByteText(vocabulary, sentinels=sentinels)
    found = TextVocabulary(vocabulary)
    found.sentinels = sentinels
    return found


def _is_folder(path: str) -> bool:
    return is_local(path) and os.path.isdir(path)
