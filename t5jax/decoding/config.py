"""DecodingConfig: greedy decoding, sampling or beam search, and their logits processors."""

import dataclasses
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import jax

from t5jax.errors import ConfigError

BeamRule = Literal["t5x", "huggingface"]


@runtime_checkable
class LogitsProcessor(Protocol):
    """A constraint on what is decoded: a function of a user's module, or a frozen dataclass that is
    called (docs/extending.md). It is traced into the decoding loop."""

    def __call__(
        self, scores_BKV: jax.Array, tokens_BKT: jax.Array, index: jax.Array, /
    ) -> jax.Array:
        """The scores of the token at `index` (logits, or log-probabilities of a beam search), given
        the tokens before it; those from `index` on are padding."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DecodingConfig:
    """Greedy by default; beam search with `num_beams`, sampling with `temperature`.

    Lengths are in tokens of the output and count EOS.
    """

    max_length: int = 128
    num_beams: int = 1
    # A finished beam's log-likelihood is divided by ((5 + length) / 6) ** alpha (T5X, Mesh
    # TensorFlow; Wu et al. 2016, eq. 14) or by length ** alpha (Hugging Face).
    length_penalty: float = 0.6
    # Which candidates may finish and when a row is done: T5X's beam search, or what
    # `transformers` does by default (early_stopping=False).
    beam_rule: BeamRule = "t5x"
    temperature: float = 0.0  # 0: no sampling
    top_k: int = 0  # samples come from the likeliest k tokens; 0: from all
    top_p: float = 1.0  # … from the fewest tokens that have this probability together
    num_outputs: int = 1  # of an input: samples, or the best beams
    min_length: int = 0  # no EOS among the first ones
    no_repeat_ngram: int = 0  # no n tokens in a row come twice; 0: they may
    repetition_penalty: float = 1.0  # of tokens in the output so far (Keskar et al. 2019, 4.1)
    stop: tuple[tuple[int, ...], ...] = ()  # ids in a row after which an output ends, as after EOS
    logits_processors: tuple[LogitsProcessor, ...] = ()  # one's own, after the rules above
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(f"decoding.{name} = {getattr(self, name)}: at least {least}")
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"decoding.top_p = {self.top_p}: above 0, at most 1")
        if self.repetition_penalty <= 0.0:
            raise ConfigError(f"decoding.repetition_penalty = {self.repetition_penalty}: above 0")
        if self.beam_rule not in get_args(BeamRule):
            raise ConfigError(
                f"decoding.beam_rule = {self.beam_rule!r}: one of {', '.join(get_args(BeamRule))}"
            )
        if any(not ids for ids in self.stop):
            raise ConfigError("decoding.stop has an empty sequence: it would end every output")
        try:
            hash(self.logits_processors)
        except TypeError as error:
            raise ConfigError(
                f"decoding.logits_processors = {self.logits_processors!r}: {error}; decoding is "
                "compiled for them, so make each a dataclass with frozen=True"
            ) from error
        self._check_effects()

    def _check_effects(self) -> None:
        """Settings that need another one to have an effect."""
        if self.temperature and self.num_beams > 1:
            raise ConfigError(
                f"decoding.temperature = {self.temperature} with num_beams = {self.num_beams}: "
                "sample or search, not both"
            )
        if not self.temperature and (self.top_k or self.top_p < 1.0):
            raise ConfigError(
                f"decoding.top_k = {self.top_k}, top_p = {self.top_p} have no effect without "
                "sampling: set decoding.temperature"
            )
        most = self.num_beams if not self.temperature else self.num_outputs
        if self.num_outputs > most:
            raise ConfigError(
                f"decoding.num_outputs = {self.num_outputs}: {self.num_beams} beams give no more "
                f"than {self.num_beams}; raise num_beams, or sample with decoding.temperature"
            )
        if self.min_length > self.max_length:
            raise ConfigError(
                f"decoding.min_length = {self.min_length} is more than max_length = "
                f"{self.max_length}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON, for a report; logits processors by their names, if there are."""
        names = [getattr(x, "__qualname__", repr(x)) for x in self.logits_processors]
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["logits_processors"]
        return values | ({"logits_processors": names} if names else {})

    @property
    def width(self) -> int:
        """Outputs decoded in parallel for a row: beams or samples."""
        return self.num_outputs if self.temperature else self.num_beams


_LEAST = {
    "max_length": 1,
    "num_beams": 1,
    "length_penalty": 0.0,
    "temperature": 0.0,
    "top_k": 0,
    "num_outputs": 1,
    "min_length": 0,
    "no_repeat_ngram": 0,
}
