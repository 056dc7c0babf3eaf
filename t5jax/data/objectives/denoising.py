"""Denoising objectives: a noise mask, a code for the inputs and a code for the targets.

Raffel et al. 2020 (arXiv:1910.10683), section 3.3 and tables 4 to 7; `denoise` of T5's published
preprocessors.
"""

import dataclasses
import difflib
import math
from typing import Any, ClassVar

import numpy as np

from t5jax.data.objectives.base import Coded, ObjectiveLengths
from t5jax.data.objectives.codes import INPUT_CODES, TARGET_CODES, CodeRow, limit_runs
from t5jax.data.objectives.noise_masks import IidNoise, NoiseMask, mask_to_dict
from t5jax.data.rng import keys_of_rows
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError

_ONE_PER_SPAN = ("shared_sentinel", "unique_sentinels")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SpanLengths(ObjectiveLengths):
    """Beside the lengths, the noise that they are computed from (means, where it is random)."""

    noise_tokens: float
    noise_spans: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Denoising:
    """Denoising of the tokens that `mask` draws: `inputs_code` corrupts them in the inputs,
    `targets_code` says what is predicted.

    `INPUT_CODES` and `TARGET_CODES` are the codes. Where the number of noise tokens is random
    (`IidNoise`), the targets of about one row in a thousand are longer than `lengths` says; they
    are cut, as T5 cuts them. A row with more noise spans than the vocabulary has sentinels is
    corrupted up to the last sentinel, and not after it (`limit_runs`); T5's code would go on into
    ordinary ids.
    """

    name: ClassVar[str] = "denoising"
    documents_end_with_eos: ClassVar[bool] = False
    packs: ClassVar[bool] = False

    mask: NoiseMask = dataclasses.field(default_factory=IidNoise)
    inputs_code: str = "unique_sentinels"
    targets_code: str = "unique_sentinels"

    def __post_init__(self):
        _check_code("inputs_code", self.inputs_code, INPUT_CODES)
        _check_code("targets_code", self.targets_code, TARGET_CODES)
        noise, _ = self.mask.expected(1000)
        if self.inputs_code == "drop" and noise == 1000:
            raise ConfigError("inputs_code='drop' with noise_density=1 leaves no inputs")

    def to_dict(self) -> dict[str, Any]:
        return {
            "objective": self.name,
            "mask": mask_to_dict(self.mask),
            "inputs_code": self.inputs_code,
            "targets_code": self.targets_code,
        }

    def lengths(self, inputs_length: int, targets_length: int | None = None) -> SpanLengths:
        """The most raw tokens whose inputs fit `inputs_length`, for any mask that may be drawn."""
        if inputs_length < 3:
            raise ConfigError(
                f"inputs_length={inputs_length}: text, sentinel and EOS need 3 tokens"
            )
        raw = inputs_length - 1
        while self._lengths_of(raw + 1).inputs <= inputs_length:
            raw += 1
        found = self._lengths_of(raw)
        # The published helper's one special case, so that both sides of an even split are equal.
        noise_density = getattr(self.mask, "noise_density", None)
        if self.mask.exact and noise_density == 0.5 and found.targets > found.inputs:
            found = self._lengths_of(raw - 1)
        return found

    def _lengths_of(self, raw: int) -> SpanLengths:
        noise, spans = self.mask.expected(raw)
        inputs = raw
        if self.mask.exact and self.inputs_code in ("drop", *_ONE_PER_SPAN):
            inputs = raw - noise + spans * (self.inputs_code in _ONE_PER_SPAN)
        targets = raw
        if self.targets_code != "full_text":
            targets = math.ceil(
                self._expected_targets(raw)
                + self.mask.excess(raw, spans=self.targets_code in _ONE_PER_SPAN)
            )
        if not self.mask.exact:
            targets = min(targets, raw)  # a token gives one of the targets at most
        return SpanLengths(
            raw=raw,
            inputs=int(inputs) + 1,
            targets=targets + 1,
            noise_tokens=noise,
            noise_spans=spans,
        )

    def _expected_targets(self, raw: int) -> float:
        """Mean length of the targets, without EOS."""
        if self.targets_code == "full_text":
            return raw
        noise, spans = self.mask.expected(raw)
        # Text behind the last span has a closing sentinel; exact masks end with noise.
        return noise + (self.targets_code in _ONE_PER_SPAN) * (spans + (not self.mask.exact))

    def check(self, *, inputs_length: int, targets_length: int, num_sentinels: int) -> None:
        """Raises ConfigError when the lengths or the number of sentinels cannot hold a row (a row
        of average noise, where the noise is random)."""
        need = self.lengths(inputs_length)
        arithmetic = self.mask.arithmetic(need.raw)
        runs = need.noise_spans
        if "unique_sentinels" in (self.inputs_code, self.targets_code) and runs > num_sentinels:
            raise ConfigError(
                f"inputs_length={inputs_length} needs {math.ceil(runs)} sentinels, the vocabulary "
                f"has {num_sentinels} ({arithmetic}); lower inputs_length or noise_density, raise "
                "mean_noise_span_length, or use a vocabulary with more sentinels "
                "(data.vocabulary.extra_ids; a model trained with fewer has other ids for them)"
            )
        least = math.ceil(self._expected_targets(need.raw)) + 1
        if targets_length < least:
            raise ConfigError(
                f"targets_length={targets_length} is too short: {self._parts_of_targets(need)} = "
                f"{least} ({arithmetic}); set targets_length={need.targets} or more"
            )

    def _parts_of_targets(self, need: SpanLengths) -> str:
        if self.targets_code == "full_text":
            return f"the full text of {need.raw} tokens + EOS"
        parts = f"{need.noise_tokens:.4g} noise tokens"
        if self.targets_code in _ONE_PER_SPAN:
            parts += f" + {need.noise_spans:.4g} sentinels"
            parts += "" if self.mask.exact else " + a closing one"
        return f"{parts} + EOS"

    def noise_mask(
        self,
        row_ids_B: np.ndarray,
        seed: int,
        length: int,
        lengths_B: np.ndarray | None = None,
    ) -> np.ndarray:
        """bool [B, length], True for noise tokens; False beyond a short row's end.

        Row b is a function of (seed, row_ids_B[b], lengths_B[b]) alone.
        """
        return self.mask.draw(keys_of_rows(seed, row_ids_B), length, lengths_B)

    def apply(
        self,
        tokens_BL: np.ndarray,
        row_ids_B: np.ndarray,
        seed: int,
        vocabulary: Vocabulary,
        lengths_B: np.ndarray | None = None,
    ) -> Coded:
        """inputs [B, K] and targets [B, K'], int32 with EOS, zero after it.

        K and K' are what a row of L tokens needs. `lengths_B` is needed only when some row is
        shorter than L; a row of length 0 stays empty (no EOS).
        """
        keys_B = keys_of_rows(seed, row_ids_B)
        mask_BL = self.mask.draw(keys_B, tokens_BL.shape[1], lengths_B)
        unique = "unique_sentinels" in (self.inputs_code, self.targets_code)
        if unique and not self.mask.exact:  # of exact masks `check` knows the number of runs
            mask_BL = limit_runs(mask_BL, vocabulary.num_sentinels, lengths_B)
        need = self._lengths_of(tokens_BL.shape[1])
        row = CodeRow(width=need.inputs, keys_B=keys_B, vocabulary=vocabulary, lengths_B=lengths_B)
        inputs_BK = INPUT_CODES[self.inputs_code](tokens_BL, mask_BL, row)
        row = dataclasses.replace(row, width=need.targets)
        return Coded(inputs_BK, TARGET_CODES[self.targets_code](tokens_BL, ~mask_BL, row))


def _check_code(field: str, value: str, codes: dict) -> None:
    if value not in codes:
        near = difflib.get_close_matches(str(value), codes, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{field}={value!r} is unknown; {hint}known: {', '.join(codes)}")
