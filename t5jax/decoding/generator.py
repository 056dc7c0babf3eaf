"""Many inputs of any length through models that lie on a mesh, on any number of hosts.

Every host is given the same inputs and gets all of the results; the devices share the rows of a
batch. Inputs are sorted by length, so that little is padded, and padded to few lengths, so that
little is compiled. Results come in the order of the inputs and do not depend on batch, padding or
mesh. Where every device has all of the parameters, each works on its rows on its own.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from t5jax.decoding import beam_search, sampling
from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.decode_state import Decoded, LogitsCallback, Request, open_stepper
from t5jax.decoding.scoring import score_targets
from t5jax.errors import ConfigError, DataError
from t5jax.model.layout import DecodingLayout, lay_out
from t5jax.model.matmul import are_few_rows
from t5jax.sharding import on_each_device
from t5jax.training.program import Program
from t5jax.training.train_step import cast
from t5jax.types import EOS_ID, Params

_SHORTEST = 16  # inputs are padded to this, or to 2^n or 3 · 2^(n-1) above it


class Generated(NamedTuple):
    """One output of an input."""

    ids: np.ndarray  # int32, without EOS and padding
    score: float  # of `choosing.choose` or `beams.search`
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
        """`params` are float32 and laid out as the program says; `num_ids` is the vocabulary's
        number of ids. `batch_size` is rounded up to what the mesh divides."""
        if batch_size < 1:
            raise ConfigError(f"batch_size = {batch_size}: at least 1")
        if program.model.architecture == "encoder_only":
            raise ConfigError(
                "model.architecture = 'encoder_only' predicts tokens in their places and generates "
                "no text; `t5jax evaluate` gives its loss and accuracy"
            )
        self.program, self.num_ids, self._after_batch = program, num_ids, after_batch
        all_params = (params,) if isinstance(params, dict) else tuple(params)
        self.batch_size = -(-batch_size // program.replicas) * program.replicas
        with program.in_use():
            lower = jax.jit(functools.partial(cast, dtype=program.model.dtype))
            self._params = tuple(lower(one) for one in all_params)
        self._defs = (program.model_def,) * len(all_params)
        whole = all(x.is_fully_replicated for x in jax.tree.leaves(self._params))
        self._alone = program.batch_sharding if whole else None
        # All of the results on every host.
        self._whole = jax.jit(lambda arrays: arrays, out_shardings=program.replicated)
        self._for_few_rows: tuple[DecodingLayout, ...] | None = None

    def generate(
        self,
        inputs: Sequence[np.ndarray],
        config: DecodingConfig,
        *,
        prefixes: Sequence[np.ndarray] | None = None,
        row_numbers: Sequence[int] | None = None,
        callback: LogitsCallback | None = None,
    ) -> list[list[Generated]]:
        """The outputs of every input, `config.num_outputs` each, the best first.

        Args:
          inputs: ids with EOS. An input without any id gets empty outputs.
          prefixes: ids with which the outputs must begin, one array an input.
          row_numbers: numbers of the inputs (default: 0, 1, …); samples of a row follow from seed
            and number.
          callback: changes the scores before a token is chosen; traced once, so a plain function
            that is the same object in every call.

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
        num_rows = self._rows_of_batch(len(inputs))
        layouts = self._layouts(num_rows * config.width)
        for rows in self._batches([len(ids) for ids in inputs]):
            request = Request(
                self._put(_padded([inputs[row] for row in rows], num_rows)),
                self._put(_padded([prefixes[row] for row in rows], num_rows, longest_prefix)),
                self._put(np.resize(numbers[rows], num_rows).astype(np.int32)),
            )
            with self.program.in_use():
                decoded = decode_batch(
                    self._defs,
                    self._params,
                    request,
                    config,
                    self.num_ids,
                    callback=callback,
                    layouts=layouts,
                    alone=self._alone,
                )
            tokens, scores = jax.device_get(tuple(self._whole(decoded)))
            for row, said, score in zip(rows, tokens, scores, strict=False):
                results[row] = [
                    _generated(one, value, config)
                    for one, value in zip(said, score.tolist(), strict=True)
                ]
            self._after_batch()
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
        num_rows = self._rows_of_batch(len(inputs))
        for rows in self._batches(lengths):
            tokens = self._put(_padded([inputs[row] for row in rows], num_rows))
            wanted = self._put(_padded([targets[row] for row in rows], num_rows))
            with self.program.in_use():
                scores = _score(self._defs, self._params, tokens, wanted, self.num_ids, self._alone)
            for row, of_tokens in zip(rows, jax.device_get(self._whole(scores)), strict=False):
                kept = of_tokens[: len(targets[row])]
                results[row] = Scored(float(np.sum(kept, dtype=np.float64)), kept)
            self._after_batch()
        return results

    def _layouts(self, num_rows: int) -> tuple[DecodingLayout, ...] | None:
        """The weights turned for few rows, kept for all batches; None where rows are many, whose
        layout is a matter of slicing."""
        rows_of_device = num_rows // self.program.replicas
        if not are_few_rows(rows_of_device, jax.device_count() if self._alone is None else 1):
            return None
        if self._for_few_rows is None:
            self._for_few_rows = _turned(self._defs, self._params, rows_of_device)
        return self._for_few_rows

    def _batches(self, lengths: Sequence) -> Iterator[np.ndarray]:
        """Numbers of the inputs that go together: of about one length, the longest first, so that
        memory runs out at once if it does."""
        order = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True)
        for start in range(0, len(order), self.batch_size):
            yield np.array(order[start : start + self.batch_size])

    def _rows_of_batch(self, num_inputs: int) -> int:
        """Of few inputs, hardly more than they are: 2^n for each part of the mesh."""
        rows = self.program.replicas
        while rows < num_inputs:
            rows *= 2
        return min(rows, self.batch_size)

    def _put(self, rows: np.ndarray) -> jax.Array:
        """Every host has all rows and gives its devices theirs."""
        sharding = self.program.batch_sharding
        return jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])

    def _check(self, rows: Sequence[np.ndarray], what: str) -> None:
        for number, ids in enumerate(rows):
            if len(ids) and not 0 < np.min(ids) <= np.max(ids) < self.num_ids:
                raise DataError(
                    f"{what} {number} has the id {int(np.max(ids))} or 0; ids are 1 … "
                    f"{self.num_ids - 1} (0 is padding)"
                )


@functools.partial(
    jax.jit, static_argnames=("model_defs", "config", "num_ids", "callback", "alone")
)
def decode_batch(
    model_defs: tuple[nnx.GraphDef, ...],
    params: tuple[Params, ...],
    request: Request,
    config: DecodingConfig,
    num_ids: int,
    callback: LogitsCallback | None = None,
    layouts: tuple[DecodingLayout, ...] | None = None,
    alone: jax.sharding.NamedSharding | None = None,
) -> Decoded:
    """The outputs of a batch; `params` of each model in the dtype to compute in. `alone` is the
    layout of the rows if every device has all of the parameters and decodes its rows on its own."""

    def decode(models, request):
        params, layouts = models
        stepper = open_stepper(model_defs, params, request, config, num_ids, layouts)
        method = beam_search.search if config.num_beams > 1 else sampling.choose
        return method(stepper, request, config, callback)

    return _by(alone, decode)((params, layouts), request)


@functools.partial(jax.jit, static_argnames=("model_defs", "num_ids", "alone"))
def _score(model_defs, params, tokens_BS, targets_BT, num_ids, alone) -> jax.Array:
    score = lambda params, rows: score_targets(model_defs, params, rows[0], rows[1], num_ids)
    return _by(alone, score)(params, (tokens_BS, targets_BT))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _turned(model_defs, params, num_rows) -> tuple[DecodingLayout, ...]:
    models = map(nnx.merge, model_defs, params)
    return tuple(lay_out(model, num_rows, devices=1) for model in models)


def _by(alone: jax.sharding.NamedSharding | None, function: Callable) -> Callable:
    return function if alone is None else on_each_device(function, alone)


def _bucket(length: int) -> int:
    """The least of 16, 24, 32, 48, 64, 96, … that holds `length`."""
    size = _SHORTEST
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size


def _padded(rows: Sequence[np.ndarray], num_rows: int, length: int | None = None) -> np.ndarray:
    """int32 [num_rows, bucket of the longest row, or of `length`]; 0 is padding."""
    if length != 0:
        length = _bucket(max(map(len, rows)) if length is None else length)
    padded = np.zeros((num_rows, length), np.int32)
    for row, ids in zip(padded, rows, strict=False):
        row[: len(ids)] = ids
    return padded


def _generated(said: np.ndarray, score: float, config: DecodingConfig) -> Generated:
    used = int(np.max(np.flatnonzero(said), initial=-1)) + 1
    ids = said[:used]
    ended = used < config.max_length or bool(used and ids[-1] == EOS_ID)
    return Generated(ids[ids != EOS_ID], score, ended)
