"""Texts through a model: made into ids, decoded or scored, and made into texts again."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from t5jax.config import RunConfig
from t5jax.data.config import tasks_of
from t5jax.data.pipeline.conversion import converter_for
from t5jax.decoding import DecodingConfig, Generated, Generator, Scored
from t5jax.errors import ConfigError, DataError
from t5jax.training.program import Program


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TextOptions:
    """What stands around inputs and outputs."""

    prefix: str = ""  # put before every input
    decoder_prefix: str = ""  # every output begins with it
    stop: tuple[str, ...] = ()  # an output ends before the first of these texts
    # Inputs of more tokens, EOS included, are cut: their end, or with a language model, which goes
    # on from there, their beginning. None: whole, whatever their length.
    truncate_inputs: int | None = None

    def __post_init__(self) -> None:
        if self.truncate_inputs is not None and self.truncate_inputs < 2:
            raise ConfigError(f"truncate_inputs = {self.truncate_inputs}: at least 2, EOS included")
        if "" in self.stop:
            raise ConfigError("stop has an empty text: it would end every output")


class Answer(NamedTuple):
    """One output."""

    text: str
    score: float  # log-likelihood of the tokens (with beams: what they were ranked by)
    ids: np.ndarray  # int32, as decoded, without EOS: a stop text and what follows it included
    ended: bool  # False: cut at decoding.max_length


class Prediction(NamedTuple):
    """What a model says to an input."""

    outputs: list[Answer]  # decoding.num_outputs of them, the best first; none for a blank input
    input_tokens: int  # as the model read it
    input_truncated: bool


class TextScore(NamedTuple):
    """What a model thinks of a target. Log-likelihoods are in nats; EOS counts as a token."""

    total: float
    tokens: np.ndarray  # float32, of each token
    ids: np.ndarray  # int32, of each token
    input_tokens: int
    input_truncated: bool


class TextModel:
    """One model, or several that decode together, and the vocabulary of their run.

    Results do not depend on `batch_size`, but for the last bits of scores.
    """

    def __init__(
        self,
        config: RunConfig,
        program: Program,
        params: dict | Sequence[dict],
        *,
        batch_size: int = 32,
        after_batch: Callable[[], None] = lambda: None,
    ):
        self.vocabulary = config.data.vocabulary
        self.trained_length = config.data.inputs_length  # tokens of an input, EOS included
        self.end_of_inputs = _end_of_inputs(config)
        self.generator = Generator(
            program,
            params,
            num_ids=self.vocabulary.vocab_size,
            batch_size=batch_size,
            after_batch=after_batch,
        )

    @property
    def batch_size(self) -> int:
        """Texts at a time: a multiple of the parts into which the mesh divides them."""
        return self.generator.batch_size

    def predict(
        self,
        texts: Sequence[str],
        decoding: DecodingConfig,
        options: TextOptions = TextOptions(),
        row_numbers: Sequence[int] | None = None,
    ) -> list[Prediction]:
        """The outputs of every text; a blank one has none.

        `row_numbers` (default: 0, 1, …) make samples their row's own. Raises DataError for a
        decoder prefix that leaves no room for an output.
        """
        encoded = [self._input(text, options, blank_is_nothing=True) for text in texts]
        decoding = dataclasses.replace(
            decoding, stop=(*decoding.stop, *self._stop_ids(options.stop))
        )
        begin = self.vocabulary.encode(options.decoder_prefix)
        generated = self.generator.generate(
            [ids for ids, _ in encoded],
            decoding,
            prefixes=[begin] * len(texts) if len(begin) else None,
            row_numbers=row_numbers,
        )
        return [
            Prediction([self._answer(one, options) for one in outputs if len(ids)], len(ids), cut)
            for (ids, cut), outputs in zip(encoded, generated, strict=True)
        ]

    def score(
        self,
        inputs: Sequence[str],
        targets: Sequence[str],
        options: TextOptions = TextOptions(),
    ) -> list[TextScore]:
        """Log-likelihood of every target, and EOS, given its input."""
        if len(inputs) != len(targets):
            raise ConfigError(f"{len(inputs)} inputs and {len(targets)} targets: give one for each")
        encoded = [self._input(text, options) for text in inputs]
        end = self.vocabulary.eos_id
        wanted = [np.append(self._ids(text), np.int32(end)) for text in targets]
        scored = self.generator.score([ids for ids, _ in encoded], wanted)
        return [
            _text_score(one, ids, *of_input)
            for one, ids, of_input in zip(scored, wanted, encoded, strict=True)
        ]

    def _input(
        self, text: str, options: TextOptions, *, blank_is_nothing: bool = False
    ) -> tuple[np.ndarray, bool]:
        """(ids of what the model reads, whether it was cut)."""
        if blank_is_nothing and not text.strip():
            return np.zeros(0, np.int32), False
        ids, end = self._ids(options.prefix + text), self.end_of_inputs
        most = options.truncate_inputs
        if most is None or len(ids) + len(end) <= most:
            return np.append(ids, end), False
        kept = ids[: most - len(end)] if len(end) else ids[-most:]
        return np.append(kept, end), True

    def _ids(self, text: str) -> np.ndarray:
        if not isinstance(text, str):
            raise DataError(f"{text!r}: a {type(text).__name__} where a text is expected")
        return self.vocabulary.encode(text)

    def _stop_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Ids with which decoding can end early; a text that comes in other pieces is still found
        by `_answer`."""
        encoded = [tuple(self.vocabulary.encode(text).tolist()) for text in texts]
        return [ids for ids in encoded if ids and self.vocabulary.unk_id not in ids]

    def _answer(self, generated: Generated, options: TextOptions) -> Answer:
        text = self.vocabulary.decode(generated.ids)
        places = [place for stop in options.stop if (place := text.find(stop)) >= 0]
        ended = generated.ended or bool(places)
        return Answer(text[: min(places, default=None)], generated.score, generated.ids, ended)


def _text_score(scored: Scored, ids: np.ndarray, input_ids: np.ndarray, cut: bool) -> TextScore:
    return TextScore(scored.total, scored.tokens, ids, len(input_ids), cut)


def _end_of_inputs(config: RunConfig) -> np.ndarray:
    """int32 ids that stand behind a text: EOS, or nothing where the model goes on with it."""
    architecture, data = config.model.architecture, config.data
    reads_inputs = architecture != "decoder_only" or (
        converter_for(architecture, tasks_of(data), data) != "lm"
    )
    return np.array([data.vocabulary.eos_id] * reads_inputs, np.int32)


def best(prediction: Prediction) -> tuple[str, float]:
    """(text, score) of the best output; nothing, with no score, for a blank input."""
    if not prediction.outputs:
        return "", math.nan
    return prediction.outputs[0].text, prediction.outputs[0].score
