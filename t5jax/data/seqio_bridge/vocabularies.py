"""Vocabularies of t5jax as seqio vocabularies, and seqio's as t5jax's."""

from typing import Any

import numpy as np

from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, Vocabulary
from t5jax.errors import ConfigError

seqio = import_seqio()
tf = import_tensorflow()


class TextVocabulary(seqio.Vocabulary):
    """A vocabulary of ours for seqio: `encode_tf` calls the same tokeniser as the token cache.

    tf_text's tokeniser differs from the sentencepiece library's on 0.6 % of documents. Documents
    are plain text: a literal `<extra_id_0>` in one is not a sentinel (it is in `encode`, for text
    that a user writes).
    """

    sentinels = False  # whether a literal `<extra_id_0>` of a data set's text is the sentinel

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(extra_ids=vocabulary.extra_ids or 0)
        self.vocabulary = vocabulary

    bos_id = None

    @property
    def pad_id(self) -> int:
        return self.vocabulary.pad_id

    @property
    def eos_id(self) -> int:
        return self.vocabulary.eos_id

    @property
    def unk_id(self) -> int:
        return self.vocabulary.unk_id

    @property
    def _base_vocab_size(self) -> int:
        # seqio's base class turns ids beyond this into the unknown piece before it decodes.
        return self.vocabulary.vocab_size

    @property
    def vocab_size(self) -> int:
        return self.vocabulary.vocab_size

    def _encode(self, s):
        return self.vocabulary.encode(s).tolist()

    def _decode(self, ids):
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s):
        def encode(text: Any) -> np.ndarray:
            text = text if isinstance(text, bytes) else text.item()  # eager calls give an array
            ids = self.vocabulary.encode(text.decode(), sentinels=self.sentinels)
            return ids.astype(np.int32)

        ids = tf.numpy_function(encode, [tf.convert_to_tensor(s)], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids):
        def decode(rows: np.ndarray) -> np.ndarray:
            texts = [
                self.vocabulary.decode(row).encode() for row in rows.reshape(-1, rows.shape[-1])
            ]
            return np.array(texts, object).reshape(rows.shape[:-1])

        texts = tf.numpy_function(decode, [tf.convert_to_tensor(ids)], tf.string)
        texts.set_shape(ids.shape[:-1])
        return texts

    def __eq__(self, other) -> bool:
        return (
            isinstance(other, TextVocabulary)
            and other.vocabulary.fingerprint == self.vocabulary.fingerprint
        )

    def __str__(self) -> str:
        return str(self.vocabulary)


def our_vocabulary(vocabulary) -> Vocabulary:
    """The vocabulary of ours that a seqio vocabulary stands for. Raises ConfigError where there is
    none."""
    if isinstance(vocabulary, TextVocabulary):
        return vocabulary.vocabulary
    if type(vocabulary) is seqio.ByteVocabulary:
        return ByteVocabulary(extra_ids=vocabulary.extra_ids)
    if type(vocabulary) is seqio.SentencePieceVocabulary:
        ours = SentencePieceVocabulary(
            path=vocabulary.sentencepiece_model_file, extra_ids=vocabulary.extra_ids
        )
        plain = seqio.SentencePieceVocabulary(ours.path, extra_ids=ours.extra_ids)
        if (
            vocabulary == plain
        ):  # not so when the normalizer or the order of the extra ids was changed
            return ours
    raise ConfigError(
        f"the vocabulary {vocabulary} cannot be cached: take seqio.SentencePieceVocabulary (with "
        "its normalizer and "
        "reverse_extra_ids as they are) or seqio.ByteVocabulary"
    )
