"""Vocabularies (tokenisers): SentencePiece models, Hugging Face's tokenizer.json, bytes.

A vocabulary has the special ids, sentinels and added tokens of its source, wherever they stand.
In T5's own 0 is padding, 1 the end of a sequence and 2 the unknown piece, and sentinel i
(`<extra_id_i>`) is the i-th id from the top: `vocab_size - 1 - i` (facts of T5's preprocessor,
`noise_span_to_unique_sentinel`).
"""

from t5jax.data.vocabularies.base import DEFAULT_SENTINELS, UNK_ID, Vocabulary
from t5jax.data.vocabularies.byte import ByteVocabulary
from t5jax.data.vocabularies.extend import Extension, extend_vocabulary, learn_pieces
from t5jax.data.vocabularies.huggingface import HuggingFaceVocabulary
from t5jax.data.vocabularies.kinds import named_vocabulary, vocabulary_from_dict
from t5jax.data.vocabularies.run_copy import save_vocabulary, saved_vocabulary
from t5jax.data.vocabularies.sentencepiece import SentencePieceVocabulary
from t5jax.data.vocabularies.train import train_sentencepiece

__all__ = [
    "DEFAULT_SENTINELS",
    "UNK_ID",
    "ByteVocabulary",
    "Extension",
    "HuggingFaceVocabulary",
    "SentencePieceVocabulary",
    "Vocabulary",
    "extend_vocabulary",
    "learn_pieces",
    "named_vocabulary",
    "save_vocabulary",
    "saved_vocabulary",
    "train_sentencepiece",
    "vocabulary_from_dict",
]
