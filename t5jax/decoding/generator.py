"""Batched generation and scoring of inputs of any length, on any mesh and number of hosts.

Every host is given the same inputs and gets all of the results; the devices share the rows of a
batch. Inputs are sorted by length, so that little is padded, and padded to few bucket lengths, so
that little is compiled. Results come in the order of the inputs and do not depend on batch, padding
or mesh. Where every device has all of the parameters, each decodes its rows on its own; few rows
are decoded by one of a CPU's devices.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from t5jax.decoding.beam_search import beam_search
from t5jax.decoding.config import DecodingConfig, LogitsProcessor
from t5jax.decoding.decode_state import Decoded, Request, init_decode_state
from t5jax.decoding.placement import Placement
from t5jax.decoding.sampling import greedy_or_sample
from t5jax.decoding.scoring import score_targets
from t5jax.errors import ConfigError, DataError
from t5jax.model.decode_weights import DecodeWeights
from t5jax.sharding import on_each_device
from t5jax.training.steps import Program
from t5jax.training.train_step import cast_params
from t5jax.types import Params

_SHORTEST = 16  # inputs are padded to this, or to 2^n or 3 · 2^(n-1) above it


class Generated(NamedTuple):
    """One output of an input."""

    ids: np.ndarray  # int32, without EOS and padding
    score: float  # of `sampling.greedy_or_sample` or `beam_search.beam_search`
    ended: bool  # False: cut at max_length


class Scored(NamedTuple):
    """Log-likelihood of one target, in nats."""

    total: float
    tokens: np.ndarray  # float32, of each target token


class Generator:
    """Decodes and scores with one model, or with several whose logits are averaged."""

    def __init__(
        self,
        program: Program,
        params: Params | Sequence[Params],
        *,
        num_ids: int,
        batch_size: int = 32,
        after_batch: Callable[[], None] = lambda: None,
    ):
        """`params` are float32, sharded as in the program; `num_ids` is the vocabulary's
        number of ids. `batch_size` is rounded up to what the mesh divides."""
        if batch_size < 1:
            raise ConfigError(f"batch_size = {batch_size}: at least 1")
        if program.model.architecture == "encoder_only":
            raise ConfigError(
                "model.architecture = 'encoder_only' predicts tokens in their places and generates "
                "no text; `t5jax evaluate` gives its loss and accuracy"
            )
        self.program, self.num_ids, self.after_batch = program, num_ids, after_batch
        all_params = (params,) if isinstance(params, dict) else tuple(params)
        self.batch_size = -(-batch_size // program.replicas) * program.replicas
        with program.use_mesh():
            to_compute_dtype = jax.jit(functools.partial(cast_params, dtype=program.model.dtype))
            computed = tuple(map(to_compute_dtype, all_params))
        self._placement = Placement(program, computed)

    def generate(
        self,
        inputs: Sequence[np.ndarray],
        config: DecodingConfig,
        *,
        prefixes: Sequence[np.ndarray] | None = None,
        row_numbers: Sequence[int] | None = None,
        logits_processor: LogitsProcessor | None = None,
    ) -> list[list[Generated]]:
        """The outputs of every input, `config.num_outputs` each, the best first.

        Args:
          inputs: ids with EOS. An input without any id gets empty outputs.
          prefixes: ids with which the outputs must begin, one array an input.
          row_numbers: numbers of the inputs (default: 0, 1, …); samples of a row follow from seed
            and number.
          logits_processor: applied before a token is chosen, after the config's; traced once, so
            a plain function that is the same object in every call.

        Raises DataError for ids that the vocabulary does not have and for a prefix that leaves no
        room.
        """
        self._check(inputs, "input")
        prefixes = prefixes if prefixes is not None else [np.zeros(0, np.int32)] * len(inputs)
        self._check(prefixes, "prefix")
        numbers = np.arange(len(inputs)) if row_numbers is None else np.asarray(row_numbers)
        longest_prefix = max(map(len, prefixes), default=0)
        if longest_prefix >= config.max_length:
            raise DataError(
                f"a prefix has {longest_prefix} tokens, decoding.max_length = {config.max_length} "
                "leaves no room for an output"
            )
        results: list[list[Generated]] = [[]] * len(inputs)
        most = min(len(inputs), self.batch_size)
        placement = self._placement.for_rows(most * config.width)
        num_rows = self._rows_of_batch(len(inputs), placement)
        weights = placement.decode_weights(num_rows * config.width)
        decode = functools.partial(decode_batch, logits_processor=logits_processor, weights=weights)
        for rows in self._batches([len(ids) for ids in inputs]):
            request = Request(
                placement.put(self._padded([inputs[row] for row in rows], num_rows)),
                placement.put(
                    self._padded([prefixes[row] for row in rows], num_rows, longest_prefix)
                ),
                placement.put(np.resize(numbers[rows], num_rows).astype(np.int32)),
            )
            tokens, scores = placement.run(decode, request, config, self.num_ids)
            for row, outputs, of_outputs in zip(rows, tokens, scores, strict=False):
                results[row] = [
                    self._generated(output, score, config)
                    for output, score in zip(outputs, of_outputs.tolist(), strict=True)
                ]
            self.after_batch()
        return results

    def score(self, inputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> list[Scored]:
        """Log-likelihood of each target (ids, with EOS if it is to be counted) given its input.

        Raises DataError for ids that the vocabulary does not have.
        """
        self._check(inputs, "input")
        self._check(targets, "target")
        results: list[Scored] = [Scored(0.0, np.zeros(0, np.float32))] * len(inputs)
        lengths = [
            (_bucket(len(target)), len(ids)) for ids, target in zip(inputs, targets, strict=True)
        ]
        placement = self._placement
        num_rows = self._rows_of_batch(len(inputs), placement)
        for rows in self._batches(lengths):
            tokens = placement.put(self._padded([inputs[row] for row in rows], num_rows))
            scored = placement.put(self._padded([targets[row] for row in rows], num_rows))
            scores = placement.run(_score, tokens, scored)
            for row, of_tokens in zip(rows, scores, strict=False):
                kept = of_tokens[: len(targets[row])]
                results[row] = Scored(float(np.sum(kept, dtype=np.float64)), kept)
            self.after_batch()
        return results

    def _batches(self, lengths: Sequence) -> Iterator[np.ndarray]:
        """Batches of input numbers, of similar lengths, the longest first, so that memory runs out
        at once if it does."""
        order = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True)
        for start in range(0, len(order), self.batch_size):
            yield np.array(order[start : start + self.batch_size])

    def _rows_of_batch(self, num_inputs: int, placement: Placement) -> int:
        """The batch size, but for few inputs little more than they are: 2^n a shard of rows."""
        rows = placement.program.replicas
        while rows < num_inputs:
            rows *= 2
        return min(rows, self.batch_size)

    def _check(self, rows: Sequence[np.ndarray], what: str) -> None:
        for number, ids in enumerate(rows):
            ids = np.asarray(ids)
            if ((ids < 0) | (ids >= self.num_ids) | (ids == self._pad_id)).any():
                raise DataError(
                    f"{what} {number} has the id {int(np.max(ids))} or {self._pad_id}; ids are 0 … "
                    f"{self.num_ids - 1} without {self._pad_id}, which is padding"
                )

    @property
    def _pad_id(self) -> int:
        return self.program.model.pad_id

    def _padded(
        self, rows: Sequence[np.ndarray], num_rows: int, length: int | None = None
    ) -> np.ndarray:
        """int32 [num_rows, bucket of the longest row, or of `length`], padded."""
        if length != 0:
            length = _bucket(max(map(len, rows)) if length is None else length)
        padded = np.full((num_rows, length), self._pad_id, np.int32)
        for row, ids in zip(padded, rows, strict=False):
            row[: len(ids)] = ids
        return padded

    def _generated(self, tokens: np.ndarray, score: float, config: DecodingConfig) -> Generated:
        used = int(np.max(np.flatnonzero(tokens != self._pad_id), initial=-1)) + 1
        ids, eos_id = tokens[:used], self.program.model.eos_id
        ended = used < config.max_length or bool(used and ids[-1] == eos_id)
        return Generated(ids[ids != eos_id], score, ended)


@functools.partial(
    jax.jit,
    static_argnames=("model_defs", "config", "num_ids", "logits_processor", "rows_per_device"),
)
def decode_batch(
    model_defs: tuple[nnx.GraphDef, ...],
    params: tuple[Params, ...],
    request: Request,
    config: DecodingConfig,
    num_ids: int,
    logits_processor: LogitsProcessor | None = None,
    weights: tuple[DecodeWeights, ...] | None = None,
    rows_per_device: jax.sharding.NamedSharding | None = None,
) -> Decoded:
    """The outputs of a batch; `params` of each model in the compute dtype. `rows_per_device` is the
    sharding of the rows if every device has all of the parameters and decodes its rows alone."""

    def decode(models, request):
        params, weights = models
        state = init_decode_state(model_defs, params, request, config, num_ids, weights)
        method = beam_search if config.num_beams > 1 else greedy_or_sample
        return method(state, request, config, logits_processor)

    return _on_each_device(decode, rows_per_device)((params, weights), request)


@functools.partial(jax.jit, static_argnames=("model_defs", "rows_per_device"))
def _score(model_defs, params, tokens_BS, targets_BT, rows_per_device) -> jax.Array:
    score = lambda params, rows: score_targets(model_defs, params, rows[0], rows[1])
    return _on_each_device(score, rows_per_device)(params, (tokens_BS, targets_BT))


def _on_each_device(function: Callable, rows: jax.sharding.NamedSharding | None) -> Callable:
    return function if rows is None else on_each_device(function, rows)


def _bucket(length: int) -> int:
    """The least of 16, 24, 32, 48, 64, 96, … that holds `length`."""
    size = _SHORTEST
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size
