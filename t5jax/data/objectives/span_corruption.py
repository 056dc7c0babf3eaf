"""T5's pre-training objective: the denoising of random spans with unique sentinels.

Raffel et al. 2020 (arXiv:1910.10683), section 3.3.4; lengths as `random_spans_helper` of T5's
published preprocessors computes them.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np

from t5jax.data.objectives.base import Coded
from t5jax.data.objectives.denoising import Denoising, SpanLengths
from t5jax.data.objectives.noise_masks import RandomSpans
from t5jax.data.vocabularies import Vocabulary


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SpanCorruption:
    """Replaces random spans by sentinels and predicts them: `noise_density` of the tokens, in
    spans of `mean_noise_span_length` tokens on average.

    inputs = text0 S0 text1 S1 ... EOS and targets = S0 noise0 S1 noise1 ... EOS: a row begins
    with text and ends with noise, and no sentinel closes the targets.
    """

    name: ClassVar[str] = "span_corruption"
    documents_end_with_eos: ClassVar[bool] = False
    packs: ClassVar[bool] = False

    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0

    def __post_init__(self):
        self._mask()  # refuses settings out of range

    def _mask(self) -> RandomSpans:
        return RandomSpans(
            noise_density=self.noise_density, mean_noise_span_length=self.mean_noise_span_length
        )

    def _denoising(self) -> Denoising:
        return Denoising(
            mask=self._mask(), inputs_code="unique_sentinels", targets_code="unique_sentinels"
        )

    def to_dict(self) -> dict[str, Any]:
        return {"objective": self.name, **dataclasses.asdict(self)}

    def counts(self, length: int) -> tuple[int, int]:
        """(noise tokens, noise spans) of a row of `length` >= 2 tokens; see `RandomSpans`."""
        return self._mask().counts(length)

    def lengths(self, inputs_length: int, targets_length: int | None = None) -> SpanLengths:
        """The most raw tokens whose corrupted inputs, EOS included, fit `inputs_length`."""
        return self._denoising().lengths(inputs_length, targets_length)

    def check(self, *, inputs_length: int, targets_length: int, num_sentinels: int) -> None:
        """Raises ConfigError when the lengths or the number of sentinels cannot hold a row."""
        self._denoising().check(
            inputs_length=inputs_length, targets_length=targets_length, num_sentinels=num_sentinels
        )

    def noise_mask(
        self, row_ids_B: np.ndarray, seed: int, length: int, lengths_B: np.ndarray | None = None
    ) -> np.ndarray:
        """bool [B, length], True for noise tokens; False beyond a short row's end.

        Row b is a function of (seed, row_ids_B[b], lengths_B[b]) alone.
        """
        return self._denoising().noise_mask(row_ids_B, seed, length, lengths_B)

    def apply(
        self,
        tokens_BL: np.ndarray,
        row_ids_B: np.ndarray,
        seed: int,
        vocabulary: Vocabulary,
        lengths_B: np.ndarray | None = None,
    ) -> Coded:
        """inputs [B, K] and targets [B, K'], int32 with EOS, zero after it; see `Denoising`."""
        return self._denoising().apply(tokens_BL, row_ids_B, seed, vocabulary, lengths_B)
