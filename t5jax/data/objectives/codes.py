"""Codes: what replaces noise tokens in the inputs, or the other tokens in the targets.

The letters are those of the names of T5's published objectives (`iid_15_u_u`). A target code is an
input code of the mask's complement. Docstrings name the function of T5's preprocessors.

Shapes: B rows, L tokens before a code, K tokens after it. Rows end with EOS, then padding; a row
of length 0 stays empty.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from t5jax.data.objectives.base import Stream, end_with_eos, lengths_or_full
from t5jax.data.rng import random_bits
from t5jax.data.vocabularies import Vocabulary
from t5jax.types import EOS_ID, PAD_ID

RANDOM_SHARE = 0.1  # of the noise tokens of BERT's code


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CodeRow:
    """Arguments of a code beside tokens and mask: `width` is K; a row that needs more is cut, and
    ends with EOS all the same."""

    width: int
    keys_B: np.ndarray
    vocabulary: Vocabulary
    lengths_B: np.ndarray | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """(pad, eos) of the vocabulary."""
        return self.vocabulary.pad_id, self.vocabulary.eos_id


Code = Callable[[np.ndarray, np.ndarray, CodeRow], np.ndarray]


def full_text(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """Every token, noise or not."""
    return _whole(tokens_BL.astype(np.int32), row)


def mask(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """Every noise token becomes the first sentinel (`noise_token_to_sentinel`)."""
    return _whole(np.where(mask_BL, row.vocabulary.sentinel_id(0), tokens_BL), row)


def random(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """Every noise token becomes a random text id (`noise_token_to_random_token`, which could also
    draw a sentinel)."""
    return _whole(np.where(mask_BL, _random_ids(tokens_BL, row), tokens_BL), row)


def random_or_mask(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """Every noise token becomes a random text id with probability 0.1, else the first sentinel
    (`noise_token_to_random_token_or_sentinel`)."""
    bits_BL = random_bits(row.keys_B, tokens_BL.shape[1], Stream.RANDOM_OR_MASK)
    chosen_BL = bits_BL < np.uint32(RANDOM_SHARE * 2.0**32)
    noise_BL = np.where(chosen_BL, _random_ids(tokens_BL, row), row.vocabulary.sentinel_id(0))
    return _whole(np.where(mask_BL, noise_BL, tokens_BL), row)


def gather(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """Every noise token becomes a random one of the row's (`noise_token_to_gathered_token`)."""
    counts_B = np.maximum(lengths_or_full(tokens_BL, row.lengths_B), 1)
    bits_BL = random_bits(row.keys_B, tokens_BL.shape[1], Stream.GATHERED_PLACES)
    places_BL = bits_BL.astype(np.int64) % counts_B[:, None]
    gathered_BL = np.take_along_axis(tokens_BL, places_BL, axis=1)
    return _whole(np.where(mask_BL, gathered_BL, tokens_BL), row)


def permute(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """The noise tokens are permuted uniformly among their places (`permute_noise_tokens`)."""
    bits_BL = random_bits(row.keys_B, tokens_BL.shape[1], Stream.PERMUTATION).astype(np.uint64)
    bits_BL[~mask_BL] = 1 << 32  # behind the noise tokens
    order_BL = np.argsort(bits_BL, axis=1, kind="stable")
    noise_BL = np.arange(tokens_BL.shape[1]) < mask_BL.sum(axis=1)[:, None]
    coded_BL = tokens_BL.astype(np.int32)
    coded_BL[mask_BL] = np.take_along_axis(coded_BL, order_BL, axis=1)[noise_BL]
    return _whole(coded_BL, row)


def drop(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """Noise tokens are left out, without a mark (`drop_noise_tokens`)."""
    keep_BL = ~mask_BL
    if row.lengths_B is not None:
        keep_BL &= np.arange(mask_BL.shape[1]) < row.lengths_B[:, None]
    exists_B = lengths_or_full(tokens_BL, row.lengths_B) > 0
    return _kept(tokens_BL.astype(np.int32), keep_BL, row.width, row.ends, exists_B)


def shared_sentinel(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """Every noise span becomes the first sentinel (`noise_span_to_sentinel`)."""
    starts_BL = run_starts(mask_BL)
    keep_BL = starts_BL | ~mask_BL
    if row.lengths_B is not None:
        keep_BL &= np.arange(mask_BL.shape[1]) < row.lengths_B[:, None]
    coded_BL = np.where(starts_BL, row.vocabulary.sentinel_id(0), tokens_BL).astype(np.int32)
    return _kept(coded_BL, keep_BL, row.width, row.ends)


def _unique_sentinels(tokens_BL: np.ndarray, mask_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    sentinels = np.array(row.vocabulary.sentinel_ids, np.int32)
    return unique_sentinels(tokens_BL, mask_BL, sentinels, row.width, row.lengths_B, row.ends)


def unique_sentinels(
    tokens_BL: np.ndarray,
    mask_BL: np.ndarray,
    sentinels: np.ndarray | int,
    width: int,
    lengths_B: np.ndarray | None = None,
    ends: tuple[int, int] = (PAD_ID, EOS_ID),
) -> np.ndarray:
    """int32 [B, width]: every run of the mask becomes a sentinel, then EOS, then padding.

    `ends` are (pad, eos). `sentinels` are ids, `<extra_id_0>` first; one id means the ids downwards
    from it. The published `noise_span_to_unique_sentinel`; with the mask's complement,
    `nonnoise_span_to_unique_sentinel`.
    """
    starts_BL = run_starts(mask_BL)
    keep_BL = starts_BL | ~mask_BL
    if lengths_B is not None:
        keep_BL &= np.arange(mask_BL.shape[1]) < lengths_B[:, None]
    # Runs are numbered by their positions in the flattened batch: NumPy's cumsum along rows would
    # cost as much as all the rest.
    length = mask_BL.shape[1]
    coded_BL = tokens_BL.astype(np.int32, order="C")
    places = np.flatnonzero(starts_BL)
    first_run_B = np.searchsorted(places, np.arange(len(mask_BL)) * length)
    numbers = np.arange(len(places)) - first_run_B[places // length]
    numbered = sentinels - numbers if isinstance(sentinels, int) else sentinels[numbers]
    coded_BL.ravel()[places] = numbered
    return _kept(coded_BL, keep_BL, width, ends)


INPUT_CODES: dict[str, Code] = {
    "mask": mask,
    "random": random,
    "random_or_mask": random_or_mask,
    "gather": gather,
    "permute": permute,
    "drop": drop,
    "shared_sentinel": shared_sentinel,
    "unique_sentinels": _unique_sentinels,
}
# For targets: the whole text, or codes of the mask's complement.
TARGET_CODES: dict[str, Code] = {
    "full_text": full_text,
    "drop": drop,
    "shared_sentinel": shared_sentinel,
    "unique_sentinels": _unique_sentinels,
}
INPUT_LETTERS = {
    "m": "mask",
    "r": "random",
    "r10s90": "random_or_mask",
    "g": "gather",
    "p": "permute",
    "d": "drop",
    "s": "shared_sentinel",
    "u": "unique_sentinels",
}
TARGET_LETTERS = {
    "f": "full_text",
    "d": "drop",
    "s": "shared_sentinel",
    "u": "unique_sentinels",
}


def run_starts(mask_BL: np.ndarray) -> np.ndarray:
    """bool [B, L]: the first token of every run of the mask."""
    starts_BL = mask_BL.copy()
    starts_BL[:, 1:] &= ~mask_BL[:, :-1]
    return starts_BL


def limit_runs(mask_BL: np.ndarray, limit: int, lengths_B: np.ndarray | None = None) -> np.ndarray:
    """The mask with at most `limit` runs of noise and at most `limit` of text in every row.

    A row that has more keeps its mask up to its `limit`-th run of text; all that follows is text.
    So no row needs a sentinel that does not exist, and a row that has enough of them is unchanged.
    """
    inside_BL = np.arange(mask_BL.shape[1]) < lengths_or_full(mask_BL, lengths_B)[:, None]
    text_starts_BL = run_starts(~mask_BL) & inside_BL
    most_B = np.maximum(_count(text_starts_BL), _count(run_starts(mask_BL)))
    rows_B = np.flatnonzero(most_B > limit)
    if not len(rows_B):
        return mask_BL
    limited_BL = mask_BL.copy()
    limited_BL[rows_B] &= np.cumsum(text_starts_BL[rows_B], axis=1) < limit
    return limited_BL


def _count(flags_BL: np.ndarray) -> np.ndarray:
    """int64 [B]: True values of each row, by bits: faster than NumPy's sums along rows."""
    return np.bitwise_count(np.packbits(flags_BL, axis=1)).sum(axis=1, dtype=np.int64)


def _kept(
    coded_BL: np.ndarray,
    keep_BL: np.ndarray,
    width: int,
    ends: tuple[int, int],
    exists_B: np.ndarray | None = None,
) -> np.ndarray:
    """int32 [B, width]: the kept tokens of each row, EOS, padding; `ends` are (pad, eos).

    Without `exists_B` the rows that exist are those that keep something.
    """
    counts_B = _count(keep_BL)
    pad_id, eos_id = ends
    out_BK = np.full((len(keep_BL), width), pad_id, np.int32)
    if np.all(counts_B == width - 1):
        out_BK[:, :-1] = coded_BL[keep_BL].reshape(len(keep_BL), width - 1)
        out_BK[:, -1] = eos_id
        return out_BK
    long_B = np.flatnonzero(counts_B > width - 1)
    if len(long_B):
        keep_BL = keep_BL.copy()
        keep_BL[long_B] &= np.cumsum(keep_BL[long_B], axis=1) <= width - 1
        counts_B[long_B] = width - 1
    out_BK[np.arange(width) < counts_B[:, None]] = coded_BL[keep_BL]
    exists_B = counts_B > 0 if exists_B is None else exists_B
    return end_with_eos(out_BK, counts_B, exists_B, eos_id)


def _whole(coded_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    counts_B = lengths_or_full(coded_BL, row.lengths_B)
    length = coded_BL.shape[1]
    pad_id, eos_id = row.ends
    out_BK = np.full((len(coded_BL), row.width), pad_id, np.int32)
    out_BK[:, :length] = coded_BL
    if row.lengths_B is not None:
        out_BK[:, :length][np.arange(length) >= counts_B[:, None]] = pad_id
    return end_with_eos(out_BK, counts_B, counts_B > 0, eos_id)


def _random_ids(tokens_BL: np.ndarray, row: CodeRow) -> np.ndarray:
    """int64 [B, L], uniform over the ids that are text."""
    vocabulary = row.vocabulary
    special = (*row.ends, vocabulary.unk_id, *vocabulary.sentinel_ids)
    ids = _without(special, vocabulary.vocab_size)
    bits_BL = random_bits(row.keys_B, tokens_BL.shape[1], Stream.RANDOM_IDS)
    return ids[bits_BL.astype(np.int64) % len(ids)]


@functools.lru_cache(maxsize=4)
def _without(special: tuple[int, ...], vocab_size: int) -> np.ndarray:
    """int64: the ids that are not special, ascending."""
    return np.setdiff1d(np.arange(vocab_size, dtype=np.int64), special)
