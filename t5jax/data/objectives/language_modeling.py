"""Language modelling objectives: language model, prefix LM, and its packed form.

Raffel et al. 2020 (arXiv:1910.10683), sections 3.2.1 and 3.3.1, and `lm`, `full_lm`, `prefix_lm`
and `pack_prefix_lm_encoder_decoder` of T5's published preprocessors.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from t5jax.data.objectives.base import (
    Coded,
    ObjectiveLengths,
    Stream,
    end_with_eos,
    lengths_or_full,
    slices,
)
from t5jax.data.rng import keys_of_rows, random_bits
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageModel:
    """The targets are the text and EOS; there are no inputs."""

    name: ClassVar[str] = "language_model"
    documents_end_with_eos: ClassVar[bool] = False
    packs: ClassVar[bool] = False

    def to_dict(self) -> dict[str, Any]:
        return {"objective": self.name}

    def lengths(self, inputs_length: int, targets_length: int | None = None) -> ObjectiveLengths:
        """The text that fills `targets_length`, with EOS where rows end with one; `inputs_length`
        is not used."""
        if targets_length is None:
            raise ConfigError(
                "targets_length is not set: a language model has targets only, so say how long "
                "they are"
            )
        least = 1 + self._added_eos
        if targets_length < least:
            raise ConfigError(f"targets_length={targets_length}: give {least} or more")
        return ObjectiveLengths(
            raw=targets_length - self._added_eos, inputs=0, targets=targets_length
        )

    def check(self, *, inputs_length: int, targets_length: int, num_sentinels: int) -> None:
        """Raises ConfigError when the targets have no room for a token, and EOS if they end so."""
        self.lengths(inputs_length, targets_length)

    def apply(
        self,
        tokens_BL: np.ndarray,
        row_ids_B: np.ndarray,
        seed: int,
        vocabulary: Vocabulary,
        lengths_B: np.ndarray | None = None,
    ) -> Coded:
        """inputs [B, 0], targets [B, L] int32, or [B, L + 1] with EOS; nothing is random."""
        counts_B = lengths_or_full(tokens_BL, lengths_B)
        width = tokens_BL.shape[1] + self._added_eos
        none_B, pad_id = np.zeros_like(counts_B), vocabulary.pad_id
        targets_BK = slices(tokens_BL, none_B, counts_B, width, pad_id)
        if self._added_eos:
            targets_BK = end_with_eos(targets_BK, counts_B, counts_B > 0, vocabulary.eos_id)
        return Coded(np.zeros((len(tokens_BL), 0), np.int32), targets_BK)

    @property
    def _added_eos(self) -> int:
        """EOS tokens that a row gets: 1, or 0 where the documents in the text end with theirs."""
        return 0 if self.documents_end_with_eos else 1


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FullLanguageModel(LanguageModel):
    """As `LanguageModel`, but EOS stands where documents end and nowhere else."""

    name: ClassVar[str] = "full_language_model"
    documents_end_with_eos: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PrefixLM:
    """The inputs are the beginning of the text, the targets all that follows, each with EOS.

    The targets' length is uniformly random, `suffix_fraction` of the row on average: 0.5 is T5's
    prefix LM (uniform in [1, L - 1]), 0.25 UL2's S-denoiser (Tay et al. 2022, arXiv:2205.05131,
    section 3.1.2). A row of one token has no inputs.
    """

    name: ClassVar[str] = "prefix_lm"
    documents_end_with_eos: ClassVar[bool] = False
    packs: ClassVar[bool] = False

    suffix_fraction: float = 0.5

    def __post_init__(self):
        if not 0.0 < self.suffix_fraction <= 0.5:
            raise ConfigError(
                f"suffix_fraction={self.suffix_fraction}: a uniform length has a mean of more than "
                "0 and of at most 0.5"
            )

    def to_dict(self) -> dict[str, Any]:
        return {"objective": self.name, **dataclasses.asdict(self)}

    def lengths(self, inputs_length: int, targets_length: int | None = None) -> ObjectiveLengths:
        """As T5 cuts rows: one token shorter than `inputs_length`."""
        if inputs_length < 3:
            raise ConfigError(f"inputs_length={inputs_length}: prefix, rest and EOS need 3 tokens")
        targets = int(self._longest_suffix(inputs_length - 1)) + 1
        # Where the suffix may be all but the first token, T5 runs with equal lengths.
        targets = inputs_length if targets == inputs_length - 1 else targets
        raw = inputs_length - 1
        return ObjectiveLengths(raw=raw, inputs=inputs_length, targets=targets, joined=raw + 2)

    def _longest_suffix(self, length: int | np.ndarray) -> Any:
        longest = np.rint(2 * self.suffix_fraction * (np.asarray(length) + 1)).astype(np.int64) - 1
        return np.maximum(np.minimum(longest, np.asarray(length) - 1), 1)

    def check(self, *, inputs_length: int, targets_length: int, num_sentinels: int) -> None:
        """Raises ConfigError when the longest suffix does not fit `targets_length`."""
        raw = self.lengths(inputs_length).raw
        longest = int(self._longest_suffix(raw))
        if targets_length < longest + 1:
            raise ConfigError(
                f"targets_length={targets_length} is too short: of {raw} tokens up to {longest} "
                f"are the targets (suffix_fraction {self.suffix_fraction} on average) + EOS = "
                f"{longest + 1}; set targets_length={longest + 1} or more, or lower suffix_fraction"
            )

    def apply(
        self,
        tokens_BL: np.ndarray,
        row_ids_B: np.ndarray,
        seed: int,
        vocabulary: Vocabulary,
        lengths_B: np.ndarray | None = None,
    ) -> Coded:
        """inputs [B, L], targets [B, K] int32; K is the longest suffix and EOS."""
        counts_B = lengths_or_full(tokens_BL, lengths_B)
        bits_B = random_bits(keys_of_rows(seed, row_ids_B), 1, Stream.SPLIT)[:, 0].astype(np.int64)
        suffix_B = np.minimum(1 + bits_B % self._longest_suffix(counts_B), counts_B)
        prefix_B = counts_B - suffix_B
        length = tokens_BL.shape[1]
        width = int(self._longest_suffix(length)) + 1
        pad_id, eos_id = vocabulary.pad_id, vocabulary.eos_id
        inputs_BL = slices(tokens_BL, np.zeros_like(prefix_B), prefix_B, length, pad_id)
        targets_BK = slices(tokens_BL, prefix_B, suffix_B, width, pad_id)
        return Coded(
            end_with_eos(inputs_BL, prefix_B, counts_B > 0, eos_id),
            end_with_eos(targets_BK, suffix_B, counts_B > 0, eos_id),
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PackedPrefixLM:
    """Two halves of a row, each cut into prefix and rest so that both sides are exactly full.

    Of halves of P tokens the first shows s (uniform in [1, P - 1]) and the second P - s, so inputs
    and targets have P tokens each. EOS stands where documents end. A row of fewer than 4 tokens is
    one example, whose first token is the input (if there are two).
    """

    name: ClassVar[str] = "packed_prefix_lm"
    documents_end_with_eos: ClassVar[bool] = True
    packs: ClassVar[bool] = True

    def to_dict(self) -> dict[str, Any]:
        return {"objective": self.name}

    def lengths(self, inputs_length: int, targets_length: int | None = None) -> ObjectiveLengths:
        """Twice `inputs_length` tokens; raises ConfigError unless `targets_length` is the same."""
        if inputs_length < 2:
            raise ConfigError(f"inputs_length={inputs_length}: two prefixes need 2 tokens")
        if targets_length not in (None, inputs_length):
            raise ConfigError(
                f"targets_length={targets_length}, inputs_length={inputs_length}: the packed "
                "prefix LM fills both sides, so set the same length"
            )
        return ObjectiveLengths(raw=2 * inputs_length, inputs=inputs_length, targets=inputs_length)

    def check(self, *, inputs_length: int, targets_length: int, num_sentinels: int) -> None:
        """Raises ConfigError unless the two lengths are equal."""
        self.lengths(inputs_length, targets_length)

    def apply(
        self,
        tokens_BL: np.ndarray,
        row_ids_B: np.ndarray,
        seed: int,
        vocabulary: Vocabulary,
        lengths_B: np.ndarray | None = None,
    ) -> Coded:
        """All [B, P] int32, P half of L (the larger half)."""
        counts_B = lengths_or_full(tokens_BL, lengths_B)
        second_B = np.where(counts_B < 4, 0, counts_B // 2)
        first_B = counts_B - second_B
        bits_B = random_bits(keys_of_rows(seed, row_ids_B), 1, Stream.SPLIT)[:, 0].astype(np.int64)
        shown_first_B = 1 + bits_B % np.maximum(second_B - 1, 1)
        shown_first_B = np.minimum(shown_first_B, np.maximum(first_B - 1, 0))
        shown_second_B = np.maximum(second_B - shown_first_B, 0)
        width = tokens_BL.shape[1] - tokens_BL.shape[1] // 2
        none_B, pad_id = np.zeros_like(counts_B), vocabulary.pad_id
        inputs = _two_pieces(
            tokens_BL, (none_B, first_B), (shown_first_B, shown_second_B), width, pad_id
        )
        targets = _two_pieces(
            tokens_BL,
            (shown_first_B, first_B + shown_second_B),
            (first_B - shown_first_B, second_B - shown_second_B),
            width,
            pad_id,
        )
        return Coded(inputs[0], targets[0], inputs[1], targets[1], inputs[2], targets[2])


def _two_pieces(
    tokens_BL: np.ndarray,
    starts: tuple[np.ndarray, np.ndarray],
    counts: tuple[np.ndarray, np.ndarray],
    width: int,
    pad_id: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens, segments, positions), int32 [B, width], of two pieces of each row."""
    columns_K = np.arange(width)
    in_first_BK = columns_K < counts[0][:, None]
    inside_BK = columns_K < (counts[0] + counts[1])[:, None]
    positions_BK = np.where(in_first_BK, columns_K, columns_K - counts[0][:, None])
    places_BK = positions_BK + np.where(in_first_BK, starts[0][:, None], starts[1][:, None])
    places_BK = np.clip(places_BK, 0, tokens_BL.shape[1] - 1)
    tokens_BK = np.take_along_axis(tokens_BL, places_BK, axis=1)
    segments_BK = np.where(in_first_BK, 1, 2)
    outside = (pad_id, 0, 0)
    kinds = zip((tokens_BK, segments_BK, positions_BK), outside, strict=True)
    found = [np.where(inside_BK, x, padding) for x, padding in kinds]
    tokens_BK, segments_BK, positions_BK = (x.astype(np.int32) for x in found)
    return tokens_BK, segments_BK, positions_BK
