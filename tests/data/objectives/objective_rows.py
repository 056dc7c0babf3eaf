"""A vocabulary with T5's numbers, and rows of its ids."""

import numpy as np

from t5jax.data.vocabularies import ByteVocabulary


class LargeVocabulary(ByteVocabulary):
    """T5's numbers without its file: 32000 pieces and 100 sentinels."""

    vocab_size = 32100
    num_sentinels = 100


VOCABULARY = LargeVocabulary(extra_ids=100)
# The id of each of T5's in a vocabulary whose special ones stand anywhere; text keeps its order.
_SPECIAL = np.r_[0:3, 32000:32100]
MOVED = np.empty(32100, np.int64)
MOVED[_SPECIAL] = np.random.default_rng(5).permutation(32100)[: len(_SPECIAL)]
MOVED[3:32000] = np.setdiff1d(np.arange(32100), MOVED[_SPECIAL])


class MovedVocabulary(LargeVocabulary):
    """The same with padding, EOS, unknown and sentinels of other ids, among those of text."""

    pad_id, eos_id, unk_id = MOVED[:3].tolist()
    sentinel_ids = tuple(MOVED[32099:31999:-1].tolist())


EOS = 1


def tokens_of(rows, length, seed=0):
    return np.random.default_rng(seed).integers(3, 32000, (rows, length)).astype(np.uint16)
