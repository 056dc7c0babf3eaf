"""A vocabulary with T5's numbers, and rows of its ids."""

import numpy as np

from t5jax.data.vocabularies import ByteVocabulary


class LargeVocabulary(ByteVocabulary):
    """T5's numbers without its file: 32000 pieces and 100 sentinels."""

    vocab_size = 32100
    num_sentinels = 100


VOCABULARY = LargeVocabulary(extra_ids=100)
EOS = 1


def tokens_of(rows, length, seed=0):
    return np.random.default_rng(seed).integers(3, 32000, (rows, length)).astype(np.uint16)
