"""Text interface of a model: tokenization, decoding or scoring, detokenization."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from t5jax.config import RunConfig
from t5jax.data.registry.resolve import defined_row_format
from t5jax.decoding import DecodingConfig, Generated, Generator
from t5jax.errors import ConfigError, DataError
from t5jax.training.steps import Program
from t5jax.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """Prefixes, stop texts and truncation."""

    prefix: str = ""  # of every input
    decoder_prefix: str = ""  # of every output
    stop: tuple[str, ...] = ()  # an output ends before the first of these texts
    # Inputs of more tokens, EOS included, are truncated at their end, or with a language model,
    # which continues from there, at their beginning. None: inputs of any length are read whole.
    truncate_inputs: int | None = None

    def __post_init__(self) -> None:
        if self.truncate_inputs is not None and self.truncate_inputs < 2:
            raise ConfigError(f"truncate_inputs = {self.truncate_inputs}: at least 2, EOS included")
        if "" in self.stop:
            raise ConfigError("stop has an empty text: it would end every output")


class TextOutput(NamedTuple):
    """One decoded output."""

    text: str
    score: float  # log-likelihood of the tokens (of beams: divided by the length penalty)
    ids: np.ndarray  # int32, as decoded, without EOS: a stop text and what follows it included
    ended: bool  # False: truncated at decoding.max_length


class Prediction(NamedTuple):
    """Outputs for one input text."""

    outputs: list[TextOutput]  # decoding.num_outputs, the best first; none for a blank input
    input_tokens: int  # after truncation
    input_truncated: bool


class TextScore(NamedTuple):
    """Target log-likelihood under the model, in nats, EOS included."""

    total: float
    tokens: np.ndarray  # float32, of each token
    ids: np.ndarray  # int32, of each token
    input_tokens: int
    input_truncated: bool


class TextModel:
    """A model, or an ensemble, with the vocabulary of its run.

    Results do not depend on `batch_size`, but for the last bits of scores.
    """

    def __init__(
        self,
        config: RunConfig,
        program: Program,
        params: Params | Sequence[Params],
        *,
        batch_size: int = 32,
    ):
        self.vocabulary = config.data.vocabulary
        self.trained_length = config.data.inputs_length  # tokens of an input, EOS included
        self.end_of_inputs = _end_of_inputs(config)
        num_ids = self.vocabulary.vocab_size
        self.generator = Generator(program, params, num_ids=num_ids, batch_size=batch_size)

    @property
    def batch_size(self) -> int:
        """Texts of a batch: a multiple of the number of data-parallel shards."""
        return self.generator.batch_size

    def predict(
        self,
        texts: Sequence[str],
        decoding: DecodingConfig,
        options: TextOptions = TextOptions(),
        row_numbers: Sequence[int] | None = None,
    ) -> list[Prediction]:
        """The outputs of every text; a blank one has none.

        Sampling is seeded by `row_numbers` (default: 0, 1, …). Raises DataError for a decoder
        prefix that leaves no room for an output.
        """
        encoded = [self._encode_input(text, options, skip_blank=True) for text in texts]
        decoding = dataclasses.replace(
            decoding, stop=(*decoding.stop, *self._stop_ids(options.stop))
        )
        prefix = self.vocabulary.encode(options.decoder_prefix)
        generated = self.generator.generate(
            [ids for ids, _ in encoded],
            decoding,
            prefixes=[prefix] * len(texts) if len(prefix) else None,
            row_numbers=row_numbers,
        )
        return [
            Prediction(
                [self._text_output(output, options) for output in outputs if len(ids)],
                len(ids),
                truncated,
            )
            for (ids, truncated), outputs in zip(encoded, generated, strict=True)
        ]

    def score(
        self, inputs: Sequence[str], targets: Sequence[str], options: TextOptions = TextOptions()
    ) -> list[TextScore]:
        """Log-likelihood of every target, EOS included, given its input."""
        if len(inputs) != len(targets):
            raise ConfigError(f"{len(inputs)} inputs and {len(targets)} targets: give one for each")
        encoded = [self._encode_input(text, options) for text in inputs]
        end = self.vocabulary.eos_id
        target_ids = [np.append(self._encode(text), np.int32(end)) for text in targets]
        scored = self.generator.score([ids for ids, _ in encoded], target_ids)
        return [
            TextScore(score.total, score.tokens, ids, len(input_ids), truncated)
            for score, ids, (input_ids, truncated) in zip(scored, target_ids, encoded, strict=True)
        ]

    def _encode_input(
        self, text: str, options: TextOptions, *, skip_blank: bool = False
    ) -> tuple[np.ndarray, bool]:
        """(ids that the model reads, whether they were truncated)."""
        if skip_blank and not text.strip():
            return np.zeros(0, np.int32), False
        ids, end = self._encode(options.prefix + text), self.end_of_inputs
        limit = options.truncate_inputs
        if limit is None or len(ids) + len(end) <= limit:
            return np.append(ids, end), False
        kept = ids[: limit - len(end)] if len(end) else ids[-limit:]
        return np.append(kept, end), True

    def _encode(self, text: str) -> np.ndarray:
        if not isinstance(text, str):
            raise DataError(f"{text!r}: a {type(text).__name__} where a text is expected")
        return self.vocabulary.encode(text)

    def _stop_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Ids at which decoding can end early; a stop text that is decoded in other pieces is
        still found by `_text_output`."""
        encoded = [tuple(self.vocabulary.encode(text).tolist()) for text in texts]
        return [ids for ids in encoded if ids and self.vocabulary.unk_id not in ids]

    def _text_output(self, generated: Generated, options: TextOptions) -> TextOutput:
        text = self.vocabulary.decode(generated.ids)
        stops = [index for stop in options.stop if (index := text.find(stop)) >= 0]
        ended = generated.ended or bool(stops)
        return TextOutput(text[: min(stops, default=None)], generated.score, generated.ids, ended)


def _end_of_inputs(config: RunConfig) -> np.ndarray:
    """int32 ids appended to an input: EOS, or nothing where a language model continues it."""
    architecture, data = config.model.architecture, config.data
    reads_inputs = architecture != "decoder_only" or (
        defined_row_format(data, architecture).converter != "lm"
    )
    return np.array([data.vocabulary.eos_id] * reads_inputs, np.int32)


def best_output(prediction: Prediction) -> tuple[str, float]:
    """(text, score) of the best output; ("", NaN) for a blank input."""
    if not prediction.outputs:
        return "", math.nan
    return prediction.outputs[0].text, prediction.outputs[0].score
