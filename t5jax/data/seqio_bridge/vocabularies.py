"""Vocabularies of t5jax as seqio vocabularies, and seqio's as t5jax's."""

import logging
import os
from typing import Any

import numpy as np

from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, Vocabulary
from t5jax.data.vocabularies.files import how_to_name, is_local, local_file
from t5jax.data.vocabularies.seqio_files import local_copy, read_local_copies, take_for
from t5jax.errors import ConfigError, DataError

_log = logging.getLogger("t5jax")

seqio = import_seqio()
tf = import_tensorflow()
read_local_copies(seqio)


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
        path, extra_ids = vocabulary.sentencepiece_model_file, vocabulary.extra_ids
        # Not equal when the normalizer or the order of the extra ids was changed.
        if vocabulary == seqio.SentencePieceVocabulary(path, extra_ids=extra_ids):
            local = path if is_local(path) else local_copy(path)
            return SentencePieceVocabulary(path=local or path, extra_ids=extra_ids)
    raise ConfigError(
        f"the vocabulary {vocabulary} cannot be cached: take seqio.SentencePieceVocabulary (with "
        "its normalizer and "
        "reverse_extra_ids as they are) or seqio.ByteVocabulary"
    )


def make_readable(vocabulary, own: Vocabulary, task: str) -> None:
    """Sees to it that seqio can read the vocabulary's file, from a local copy if need be.

    `own` is the run's vocabulary: a local file of it is taken for a URL that cannot be read.
    Raises ConfigError naming the task and what to write where nothing can be read.
    """
    path = getattr(vocabulary, "sentencepiece_model_file", None)
    if not path:
        return
    if is_local(path):
        if not tf.io.gfile.exists(path):
            raise ConfigError(
                f"task {task}: its vocabulary {path} cannot be read from {os.getcwd()}"
            )
        return
    if local_copy(path):
        return
    reason = _why_unreadable(path)
    if reason is None:
        return
    file = getattr(own, "path", "")
    if isinstance(own, SentencePieceVocabulary) and is_local(file) and os.path.isfile(file):
        _log.warning(
            "task %s: its vocabulary %s cannot be read (%s): the run's own, %s, is taken for it",
            task,
            path,
            reason,
            file,
        )
        take_for(path, os.path.abspath(file))
        return
    raise ConfigError(
        f"task {task}: its vocabulary {path} cannot be read ({reason}): get the file by other "
        f"means and name it, with the variable {how_to_name(path)} or as "
        "data.vocabulary = SentencePieceVocabulary(path=FILE)"
    )


def _why_unreadable(url: str) -> str | None:
    """The reason in a line; None where TensorFlow can read the URL."""
    try:
        return None if tf.io.gfile.exists(url) else "there is no such file"
    except Exception as error:  # every file system has errors of its own
        if not url.startswith("gs://"):  # TensorFlow has no file system for it: fsspec may
            try:
                local_file(url)
                return None
            except (ConfigError, DataError):
                pass
        reason = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        return " ".join(reason.split())[:200]
