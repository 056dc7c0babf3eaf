"""Noise masks: which tokens of a row an objective corrupts.

Raffel et al. 2020 (arXiv:1910.10683), sections 3.1.4, 3.3.2 and 3.3.4; the arithmetic is that of
`random_spans_noise_mask`, `iid_noise_mask` and `regular_noise_mask` in T5's published code, the
random numbers are this package's own.

Shapes: B rows, L tokens. Masks are bool [B, L], True for noise tokens, False beyond the end of a
short row.
"""

import dataclasses
import math
from typing import Any, ClassVar, Protocol

import numpy as np

from t5jax.data.objectives.base import Stream
from t5jax.data.rng import random_bits
from t5jax.errors import ConfigError


class NoiseMask(Protocol):
    """A distribution of masks. With `exact`, all masks of a length have as many noise tokens in
    as many spans, and begin with text and end with noise."""

    name: ClassVar[str]
    exact: ClassVar[bool]

    def draw(
        self, keys_B: np.ndarray, length: int, lengths_B: np.ndarray | None = None
    ) -> np.ndarray:
        """bool [B, length]; row b is a function of keys_B[b] and its own length."""
        ...

    def expected(self, length: int) -> tuple[float, float]:
        """Mean numbers of noise tokens and of noise spans in `length` tokens."""
        ...

    def excess(self, length: int, *, spans: bool) -> float:
        """By how much noise tokens (and spans, where `spans`) exceed their mean at most, but for
        one row in a thousand."""
        ...

    def arithmetic(self, length: int) -> str:
        """How the expected numbers come about, for messages."""
        ...


def _check_density(noise_density: float, *, all_tokens: bool = False) -> None:
    if not (0.0 < noise_density < 1.0 or (all_tokens and noise_density == 1.0)):
        raise ConfigError(f"noise_density={noise_density}: give a share between 0 and 1")


def _within(mask_BL: np.ndarray, lengths_B: np.ndarray | None) -> np.ndarray:
    if lengths_B is not None:
        mask_BL &= np.arange(mask_BL.shape[1]) < lengths_B[:, None]
    return mask_BL


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RandomSpans:
    """`noise_density` of the tokens in spans of `mean_noise_span_length` tokens on average.

    The numbers of noise tokens and spans follow from the length; their lengths are drawn.
    """

    name: ClassVar[str] = "random_spans"
    exact: ClassVar[bool] = True

    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0

    def __post_init__(self):
        _check_density(self.noise_density)
        if not self.mean_noise_span_length >= 1.0:
            raise ConfigError(
                f"mean_noise_span_length={self.mean_noise_span_length}: a span has 1 token or more"
            )

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

    def expected(self, length: int) -> tuple[int, int]:
        return self.counts(max(length, 2))

    def excess(self, length: int, *, spans: bool) -> float:
        return 0.0

    def arithmetic(self, length: int) -> str:
        noise, spans = self.expected(length)
        return (
            f"{length} tokens x noise_density {self.noise_density} = {noise} noise tokens, "
            f"/ mean_noise_span_length {self.mean_noise_span_length} = {spans} spans"
        )

    def draw(
        self, keys_B: np.ndarray, length: int, lengths_B: np.ndarray | None = None
    ) -> np.ndarray:
        if lengths_B is None:
            return self._of_length(keys_B, length)
        mask_BL = np.zeros((len(keys_B), length), bool)
        for short in np.unique(lengths_B[lengths_B > 0]):
            rows_B = lengths_B == short
            mask_BL[rows_B, :short] = self._of_length(keys_B[rows_B], int(short))
        return mask_BL

    def _of_length(self, keys_B: np.ndarray, length: int) -> np.ndarray:
        drawn = max(length, 2)  # as published: a single token is the first, i.e. text, of two
        noise, spans = self.counts(drawn)
        return random_spans(keys_B, drawn, noise, spans)[:, :length]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class IidNoise:
    """Every token is noise with probability `noise_density`, independently of the others."""

    name: ClassVar[str] = "iid"
    exact: ClassVar[bool] = False

    noise_density: float = 0.15

    def __post_init__(self):
        _check_density(self.noise_density, all_tokens=True)

    def draw(
        self, keys_B: np.ndarray, length: int, lengths_B: np.ndarray | None = None
    ) -> np.ndarray:
        if self.noise_density == 1.0:
            return _within(np.ones((len(keys_B), length), bool), lengths_B)
        bits_BL = random_bits(keys_B, length, Stream.IID_NOISE)
        return _within(bits_BL < np.uint32(self.noise_density * 2.0**32), lengths_B)

    def expected(self, length: int) -> tuple[float, float]:
        # A span begins at the first token, or at a noise token behind one of text.
        r = self.noise_density
        return length * r, r + (length - 1) * r * (1 - r)

    def excess(self, length: int, *, spans: bool) -> float:
        """3.25 standard deviations: T5's 104 targets for 512 inputs, "the 99.9th percentile".

        Noise tokens X_i are Bernoulli(r); a span that ends at i counts X_i (1 - X_{i+1}), so the
        sum is that of f_i = 2 X_i - X_i X_{i+1}, of which neighbours are correlated.
        """
        r = self.noise_density
        variance = r * (1 - r)
        if spans:
            own = 4 * r - 3 * r**2 - (2 * r - r**2) ** 2
            neighbours = -2 * r**2 * (1 - r) + r**3 * (1 - r)
            variance = own + 2 * neighbours
        return 3.25 * math.sqrt(length * variance)

    def arithmetic(self, length: int) -> str:
        r, (noise, spans) = self.noise_density, self.expected(length)
        return (
            f"{length} tokens x noise_density {r} = {noise:.1f} noise tokens on average, "
            f"x {1 - r:g} = {spans:.1f} spans"
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RegularSpans:
    """Spans of equal length at equal distances; the length (between `min_span_length` and
    `max_span_length`, uniform) and the offset are drawn for each row."""

    name: ClassVar[str] = "regular_spans"
    exact: ClassVar[bool] = False

    noise_density: float = 0.15
    min_span_length: int = 1
    max_span_length: int = 5

    def __post_init__(self):
        _check_density(self.noise_density)
        if not 1 <= self.min_span_length <= self.max_span_length:
            raise ConfigError(
                f"min_span_length={self.min_span_length}, max_span_length={self.max_span_length}: "
                "give 1 <= min <= max"
            )
        span = self.min_span_length
        if np.rint(span / self.noise_density) <= span:
            raise ConfigError(
                f"noise_density={self.noise_density}: spans of {span} tokens would follow each "
                "other without text between them; lower it or raise min_span_length"
            )

    def draw(
        self, keys_B: np.ndarray, length: int, lengths_B: np.ndarray | None = None
    ) -> np.ndarray:
        bits_B2 = random_bits(keys_B, 2, Stream.REGULAR_SPANS).astype(np.int64)
        spans_B = self.min_span_length + bits_B2[:, 0] % self._span_lengths().size
        periods_B = self._periods(spans_B)
        places_BL = np.arange(length) + (bits_B2[:, 1] % periods_B)[:, None]
        return _within(places_BL % periods_B[:, None] < spans_B[:, None], lengths_B)

    def _span_lengths(self) -> np.ndarray:
        return np.arange(self.min_span_length, self.max_span_length + 1)

    def _periods(self, spans: np.ndarray) -> np.ndarray:
        return np.rint(spans / self.noise_density).astype(np.int64)

    def expected(self, length: int) -> tuple[float, float]:
        spans = self._span_lengths()
        periods = self._periods(spans)
        return length * float(np.mean(spans / periods)), float(np.mean(length / periods))

    def excess(self, length: int, *, spans: bool) -> float:
        """At most: as many whole periods as begin in the row, for the most costly span length."""
        lengths = self._span_lengths()
        periods = self._periods(lengths)
        most = np.ceil(length / periods) * lengths + (np.ceil(length / periods) + 1) * spans
        noise, runs = self.expected(length)
        return float(most.max()) - noise - spans * runs

    def arithmetic(self, length: int) -> str:
        noise, spans = self.expected(length)
        return (
            f"{length} tokens x noise_density {self.noise_density} = {noise:.1f} noise tokens on "
            f"average, in spans of {self.min_span_length} to {self.max_span_length} = {spans:.1f} "
            "spans"
        )


MASKS: dict[str, type[RandomSpans] | type[IidNoise] | type[RegularSpans]] = {
    mask.name: mask for mask in (RandomSpans, IidNoise, RegularSpans)
}


def mask_to_dict(mask: NoiseMask) -> dict[str, Any]:
    """{"mask": its name, and its settings}."""
    return {"mask": mask.name, **dataclasses.asdict(mask)}  # type: ignore[call-overload]


def random_spans(keys_B: np.ndarray, length: int, noise: int, spans: int) -> np.ndarray:
    """bool [B, length]: `spans` runs of noise, `noise` tokens in all, text first and noise last.

    The lengths of the noise spans, and those of the text spans between them, are uniformly random
    compositions of `noise` and of `length - noise` into `spans` positive parts.
    """
    text_BS = _composition(keys_B, length - noise, spans, Stream.TEXT_SPANS)
    noise_BS = _composition(keys_B, noise, spans, Stream.NOISE_SPANS)
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
