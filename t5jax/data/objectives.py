"""Objectives: how inputs and targets are made of plain tokens.

An objective is a noise mask (which tokens are hidden), an input code (what stands for the hidden
ones) and a target code (what is to be predicted). Both codes here replace every run of a mask by
one unique sentinel; the targets' mask is the complement of the inputs'. Raffel et al. 2020
(arXiv:1910.10683), sections 3.1.4 and 3.3.4; arithmetic and masks as `random_spans_helper` and
`random_spans_noise_mask` of the published code.

Shapes: B rows, L tokens before corruption, K tokens after a code. Rows shorter than L are padded
with 0 at their end and described by `lengths_B`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from t5jax.data.counter_rng import random_bits, row_keys
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError

_NOISE_STREAM, _TEXT_STREAM = 1, 2  # counters for the lengths of noise spans and of text spans


class SpanLengths(NamedTuple):
    """What one full row becomes; inputs and targets count their EOS."""

    raw: int
    inputs: int
    targets: int
    noise_tokens: int
    noise_spans: int


@dataclasses.dataclass(kw_only=True, slots=True)
class SpanCorruption:
    """T5's pre-training objective: hide `noise_density` of the tokens in spans of
    `mean_noise_span_length` tokens on average; predict the hidden spans.

    inputs = text0 S0 text1 S1 ... EOS and targets = S0 noise0 S1 noise1 ... EOS: a row begins
    with text and ends with noise, and no sentinel closes the targets.
    """

    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0

    def __post_init__(self):
        if not 0.0 < self.noise_density < 1.0:
            raise ConfigError(f"noise_density={self.noise_density}: give a share between 0 and 1")
        if not self.mean_noise_span_length >= 1.0:
            raise ConfigError(
                f"mean_noise_span_length={self.mean_noise_span_length}: a span has 1 token or more"
            )

    def to_dict(self) -> dict:
        return {"objective": "span_corruption", **dataclasses.asdict(self)}

    def counts(self, length: int) -> tuple[int, int]:
        """(noise tokens, noise spans) of a row of `length` >= 2 tokens.

        The product is rounded in float32, half to even, as the published mask does; its helper
        rounds in float64 and is off by one at a few lengths (190, 350, 390, ... at 0.15).
        """
        noise = int(np.rint(np.float32(length) * np.float32(self.noise_density)))
        noise = min(max(noise, 1), length - 1)
        spans = int(np.rint(np.float32(noise) / np.float32(self.mean_noise_span_length)))
        # Each span needs a token of noise and one of text before it.
        return noise, min(max(spans, 1), noise, length - noise)

    def lengths(self, inputs_length: int) -> SpanLengths:
        """The most raw tokens whose corrupted inputs, EOS included, fit `inputs_length`."""
        if inputs_length < 3:
            raise ConfigError(
                f"inputs_length={inputs_length}: text, sentinel and EOS need 3 tokens"
            )
        raw = inputs_length - 1
        while self._lengths_of(raw + 1).inputs <= inputs_length:
            raw += 1
        found = self._lengths_of(raw)
        # The published helper's one special case, so that both sides of an even split are equal.
        if self.noise_density == 0.5 and found.targets > found.inputs:
            found = self._lengths_of(raw - 1)
        return found

    def _lengths_of(self, raw: int) -> SpanLengths:
        noise, spans = self.counts(max(raw, 2))
        return SpanLengths(raw, raw - noise + spans + 1, noise + spans + 1, noise, spans)

    def check(self, *, inputs_length: int, targets_length: int, num_sentinels: int) -> None:
        """Raises ConfigError when the lengths or the number of sentinels cannot hold a row."""
        need = self.lengths(inputs_length)
        arithmetic = (
            f"{need.raw} tokens x noise_density {self.noise_density} = {need.noise_tokens} noise "
            f"tokens, / mean_noise_span_length {self.mean_noise_span_length} = {need.noise_spans} "
            "spans"
        )
        if need.noise_spans > num_sentinels:
            raise ConfigError(
                f"inputs_length={inputs_length} needs {need.noise_spans} sentinels, the vocabulary "
                f"has {num_sentinels} ({arithmetic}); lower inputs_length or noise_density, raise "
                "mean_noise_span_length, or use a vocabulary with more extra_ids"
            )
        if targets_length < need.targets:
            raise ConfigError(
                f"targets_length={targets_length} is too short: {need.noise_tokens} noise tokens + "
                f"{need.noise_spans} sentinels + EOS = {need.targets} ({arithmetic}); set "
                f"targets_length={need.targets} or more"
            )

    def noise_mask(
        self, row_ids_B: np.ndarray, seed: int, length: int, lengths_B: np.ndarray | None = None
    ) -> np.ndarray:
        """bool [B, length], True where a token is hidden; False beyond a short row's end.

        Row b is a function of (seed, row_ids_B[b], lengths_B[b]) alone.
        """
        keys_B = row_keys(seed, row_ids_B)
        if lengths_B is None:
            return self._mask_of_length(keys_B, length)
        mask_BL = np.zeros((len(keys_B), length), bool)
        for short in np.unique(lengths_B[lengths_B > 0]):
            rows_B = lengths_B == short
            mask_BL[rows_B, :short] = self._mask_of_length(keys_B[rows_B], int(short))
        return mask_BL

    def _mask_of_length(self, keys_B: np.ndarray, length: int) -> np.ndarray:
        drawn = max(length, 2)  # as published: a single token is the first, i.e. text, of two
        noise, spans = self.counts(drawn)
        return random_spans(keys_B, drawn, noise, spans)[:, :length]

    def apply(
        self,
        tokens_BL: np.ndarray,
        row_ids_B: np.ndarray,
        seed: int,
        vocabulary: Vocabulary,
        lengths_B: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(inputs [B, K], targets [B, K']), int32 with EOS, zero after it.

        K and K' are what a row of L tokens needs. `lengths_B` is only wanted when some row is
        shorter than L; a row of length 0 stays empty (no EOS).
        """
        mask_BL = self.noise_mask(row_ids_B, seed, tokens_BL.shape[1], lengths_B)
        width = self._lengths_of(tokens_BL.shape[1])
        first = vocabulary.vocab_size - 1
        inputs_BK = unique_sentinels(tokens_BL, mask_BL, first, width.inputs, lengths_B)
        targets_BK = unique_sentinels(tokens_BL, ~mask_BL, first, width.targets, lengths_B)
        return inputs_BK, targets_BK


def from_dict(record: dict) -> SpanCorruption:
    """The objective that `to_dict` recorded."""
    fields = dict(record)
    name = fields.pop("objective", None)
    if name != "span_corruption":
        raise ConfigError(f"objective {name!r} is unknown; known: span_corruption")
    return SpanCorruption(**fields)


def random_spans(keys_B: np.ndarray, length: int, noise: int, spans: int) -> np.ndarray:
    """bool [B, length]: `spans` runs of noise, `noise` tokens in all, text first and noise last.

    The lengths of the noise spans, and those of the text spans between them, are uniformly random
    compositions of `noise` and of `length - noise` into `spans` positive parts.
    """
    text_BS = _composition(keys_B, length - noise, spans, _TEXT_STREAM)
    noise_BS = _composition(keys_B, noise, spans, _NOISE_STREAM)
    lengths = np.stack([text_BS, noise_BS], axis=2).ravel()
    is_noise = np.tile(np.array([False, True]), len(keys_B) * spans)
    return np.repeat(is_noise, lengths).reshape(len(keys_B), length)


def _composition(keys_B: np.ndarray, items: int, parts: int, stream: int) -> np.ndarray:
    """int64 [B, parts], positive, summing to `items`: all such rows are equally likely.

    A composition is a choice of parts-1 cuts among the items-1 gaps: those with the smallest of
    the gaps' random numbers, which are all different.
    """
    if parts == 1:
        return np.full((len(keys_B), 1), items)
    gaps_BG = random_bits(keys_B, items - 1, stream)
    largest_B1 = np.partition(gaps_BG, parts - 2, axis=1)[:, parts - 2 : parts - 1]
    cuts_BC = np.flatnonzero(gaps_BG <= largest_B1).reshape(len(keys_B), parts - 1)
    edges_BE = np.empty((len(keys_B), parts + 1), np.int64)
    edges_BE[:, 0], edges_BE[:, -1] = 0, items
    edges_BE[:, 1:-1] = cuts_BC - (np.arange(len(keys_B))[:, None] * (items - 1) - 1)
    return edges_BE[:, 1:] - edges_BE[:, :-1]


def unique_sentinels(
    tokens_BL: np.ndarray,
    mask_BL: np.ndarray,
    first_sentinel: int,
    width: int,
    lengths_B: np.ndarray | None = None,
    eos_id: int = 1,
) -> np.ndarray:
    """int32 [B, width]: every run of the mask becomes one sentinel, numbered downwards from
    `first_sentinel` (`<extra_id_0>`), then EOS, then zeros. The published
    `noise_span_to_unique_sentinel`; with the mask's complement, `nonnoise_span_to_unique_sentinel`.
    """
    starts_BL = mask_BL.copy()
    starts_BL[:, 1:] &= ~mask_BL[:, :-1]
    keep_BL = starts_BL | ~mask_BL
    if lengths_B is not None:
        keep_BL &= np.arange(mask_BL.shape[1]) < lengths_B[:, None]
    # Runs are numbered by their positions in the flattened batch, and kept tokens counted by
    # bits: NumPy's cumsum and count_nonzero along rows would cost as much as all the rest.
    length = mask_BL.shape[1]
    coded_BL = tokens_BL.astype(np.int32, order="C")
    places = np.flatnonzero(starts_BL)
    first_run_B = np.searchsorted(places, np.arange(len(mask_BL)) * length)
    numbers = np.arange(len(places)) - first_run_B[places // length]
    coded_BL.ravel()[places] = first_sentinel - numbers
    kept = coded_BL[keep_BL]
    counts_B = np.bitwise_count(np.packbits(keep_BL, axis=1)).sum(axis=1, dtype=np.int64)
    out_BK = np.zeros((len(mask_BL), width), np.int32)
    if np.all(counts_B == width - 1):
        out_BK[:, :-1] = kept.reshape(len(mask_BL), width - 1)
        out_BK[:, -1] = eos_id
        return out_BK
    out_BK[np.arange(width) < counts_B[:, None]] = kept
    ends_B = np.flatnonzero(counts_B)
    out_BK[ends_B, counts_B[ends_B]] = eos_id
    return out_BK
