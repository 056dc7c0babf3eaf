"""The order of training data as a function: (store, objective, seed, step) -> rows of a batch.

Nothing here has a position to lose. Example i belongs to epoch i // num_rows; a keyed permutation
of that epoch says which row of the store it is, and its noise mask is drawn from (seed, i). So any
host computes its own rows of any step, for any number of hosts and any cut into batches, and a
checkpoint of the data is one integer beside what the integer refers to.

Rows: the store is one ring of N tokens. An epoch begins at a random token and cuts the ring into
rows of `raw` tokens, so that row borders move from epoch to epoch; the last row of an epoch has the
N % raw tokens that are left (if any) and is padded. Every token is in exactly one row per epoch.

Shapes: B rows, L tokens of a row before corruption.
"""

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.counter_rng import Permutation, derive_seed, integers_below
from t5jax.data.objectives import SpanCorruption
from t5jax.data.token_store import Place, TokenCache
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError, DataError

Batch = dict[str, np.ndarray]

_BLOCK_ROWS = 64  # rows worked on at once: their temporaries stay in a core's cache


class ArraySpec(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


class Loader:
    """Rows of span-corrupted (or otherwise coded) batches from a token store.

    Training (`shuffle=True`) goes on for ever, epoch after epoch, each with another order, other
    row borders and other masks. Evaluation (`shuffle=False`) is one pass of `num_steps` steps in
    the store's order, each row once; rows beyond the last are all zero and weigh nothing.

    Raises ConfigError when the objective does not fit the lengths or the vocabulary, DataError
    when the vocabulary is not the store's.
    """

    def __init__(
        self,
        cache: TokenCache,
        objective: SpanCorruption,
        vocabulary: Vocabulary,
        *,
        batch_size: int,
        inputs_length: int,
        targets_length: int,
        seed: int,
        shuffle: bool = True,
    ):
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: give 1 or more rows")
        cache.check_vocabulary(vocabulary)
        objective.check(
            inputs_length=inputs_length,
            targets_length=targets_length,
            num_sentinels=vocabulary.num_sentinels,
        )
        self.cache, self.objective, self.vocabulary = cache, objective, vocabulary
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.inputs_length, self.targets_length = inputs_length, targets_length
        self._vocab_size = vocabulary.vocab_size
        self._mask_seed = derive_seed(seed, "masks")
        self._origin = 0  # the example that step 0 would begin with; see `restore`
        self._raw = min(objective.lengths(inputs_length).raw, cache.num_tokens)
        self.num_rows = math.ceil(cache.num_tokens / self._raw)
        self._last_length = cache.num_tokens - (self.num_rows - 1) * self._raw

    @property
    def num_steps(self) -> int:
        """Steps of one pass over the data; the last may be partial."""
        return math.ceil(self.num_rows / self.batch_size)

    @property
    def element_spec(self) -> dict[str, ArraySpec]:
        """Shapes and dtypes of a whole global batch."""
        inputs = ArraySpec((self.batch_size, self.inputs_length), np.dtype(np.int32))
        targets = ArraySpec((self.batch_size, self.targets_length), np.dtype(np.int32))
        return {
            "encoder_input_tokens": inputs,
            "decoder_input_tokens": targets,
            "decoder_target_tokens": targets,
            "decoder_loss_weights": targets,
        }

    def rows(self, step: int, row_indices: Iterable[int] | None = None) -> Batch:
        """The given rows (all by default) of the global batch of a step, in the order given.

        int32, padded with 0: encoder_input_tokens [B, inputs_length]; decoder_target_tokens,
        decoder_input_tokens (the targets behind a 0) and decoder_loss_weights [B, targets_length].
        """
        ids_B = self._example_ids(step, row_indices)
        inputs_BS = np.zeros((len(ids_B), self.inputs_length), np.int32)
        targets_BT = np.zeros((len(ids_B), self.targets_length), np.int32)
        starts_B, lengths_B = self._spans(ids_B)
        for first in range(0, len(ids_B), _BLOCK_ROWS):
            block = slice(first, first + _BLOCK_ROWS)
            inputs_BK, targets_BK = self._corrupt(ids_B[block], starts_B[block], lengths_B[block])
            inputs_BS[block, : inputs_BK.shape[1]] = inputs_BK
            targets_BT[block, : targets_BK.shape[1]] = targets_BK
        decoder_inputs_BT = np.zeros_like(targets_BT)
        decoder_inputs_BT[:, 1:] = targets_BT[:, :-1]
        return {
            "encoder_input_tokens": inputs_BS,
            "decoder_input_tokens": decoder_inputs_BT,
            "decoder_target_tokens": targets_BT,
            "decoder_loss_weights": (targets_BT != self.vocabulary.pad_id).astype(np.int32),
        }

    def documents_of(self, step: int, row: int) -> list[Place]:
        """Which tokens of which shards, and which of their documents, row `row` of a step shows."""
        ids_B = self._example_ids(step, [row])
        starts_B, lengths_B = self._spans(ids_B)
        return self.cache.places(int(starts_B[0]), int(lengths_B[0]))

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint before `step` keeps: the next example and what it refers to."""
        return {
            "next_example": self._origin + step * self.batch_size,
            "batch_size": self.batch_size,
            **self._refers_to(),
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """DataError when the state's position means nothing here: other data, seed or rows.

        Another batch size or number of hosts is fine: the position counts examples.
        """
        if not isinstance(state.get("next_example"), int) or state["next_example"] < 0:
            raise DataError(f"data state has no valid next_example: {state}")
        for key, here in self._refers_to().items():
            if state.get(key) != here:
                raise DataError(
                    f"data state was saved with {key} = {state.get(key)!r}, this run has {here!r}: "
                    "its position means other examples here. Resume with the saved setting, or "
                    "begin a new run (warm start) with the new one"
                )

    def restore(self, state: dict[str, Any], step: int) -> None:
        """From now on `step` begins with the state's next example (checked by `check_state`)."""
        self.check_state(state)
        self._origin = state["next_example"] - step * self.batch_size

    def _refers_to(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "cache": self.cache.fingerprint,
            "objective": self.objective.to_dict(),
            "inputs_length": self.inputs_length,
            "shuffle": self.shuffle,
        }

    def _example_ids(self, step: int, row_indices: Iterable[int] | None) -> np.ndarray:
        if row_indices is None:
            rows_B = np.arange(self.batch_size)
        else:
            rows_B = np.fromiter(row_indices, np.int64)
            if len(rows_B) and not 0 <= rows_B.min() <= rows_B.max() < self.batch_size:
                raise IndexError(f"rows {rows_B.min()}..{rows_B.max()} of batch {self.batch_size}")
        first = self._origin + step * self.batch_size
        if first < 0:
            raise IndexError(f"step {step} lies before the restored position")
        return first + rows_B

    def _spans(self, ids_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(start, length) in the store of each example; length 0 after a single pass's last."""
        if not self.shuffle:
            exists_B = ids_B < self.num_rows
            rows_B = np.where(exists_B, ids_B, 0)
            return rows_B * self._raw, np.where(exists_B, self._row_lengths(rows_B), 0)
        epochs_B, positions_B = np.divmod(ids_B, self.num_rows)
        rows_B, starts_B = np.empty_like(ids_B), np.empty_like(ids_B)
        for epoch in np.unique(epochs_B).tolist():
            permutation, offset = _epoch(self.num_rows, self.cache.num_tokens, self.seed, epoch)
            here_B = epochs_B == epoch
            rows_B[here_B] = permutation(positions_B[here_B])
            starts_B[here_B] = (rows_B[here_B] * self._raw + offset) % self.cache.num_tokens
        return starts_B, self._row_lengths(rows_B)

    def _row_lengths(self, rows_B: np.ndarray) -> np.ndarray:
        return np.where(rows_B == self.num_rows - 1, self._last_length, self._raw)

    def _corrupt(
        self, ids_B: np.ndarray, starts_B: np.ndarray, lengths_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        tokens_BL = self.cache.read_rows(starts_B, self._raw)
        if tokens_BL.max() >= self._vocab_size or tokens_BL.min() <= self.vocabulary.eos_id:
            self._refuse_ids(tokens_BL, starts_B)
        ragged = bool((lengths_B != self._raw).any())
        return self.objective.apply(
            tokens_BL, ids_B, self._mask_seed, self.vocabulary, lengths_B if ragged else None
        )

    def _refuse_ids(self, tokens_BL: np.ndarray, starts_B: np.ndarray) -> None:
        bad_BL = (tokens_BL >= self._vocab_size) | (tokens_BL <= self.vocabulary.eos_id)
        row, column = np.argwhere(bad_BL)[0]
        position = int(starts_B[row] + column) % self.cache.num_tokens
        place = self.cache.places(position, 1)[0]
        raise DataError(
            f"feature text (encoder_input_tokens / decoder_target_tokens): id "
            f"{tokens_BL[row, column]} at token {place.token_offset} of {place.shard} in "
            f"{self.cache.directory} is not a text id of the vocabulary (2 to "
            f"{self._vocab_size - 1}); the store is damaged, check it with TokenCache.verify"
        )


@functools.lru_cache(maxsize=8)
def _epoch(num_rows: int, num_tokens: int, seed: int, epoch: int) -> tuple[Permutation, int]:
    """The order of an epoch's rows and the token at which its first row begins."""
    offset_1 = integers_below(num_tokens, derive_seed(seed, "borders"), np.array([epoch]))
    return Permutation(num_rows, derive_seed(seed, "order"), epoch), int(offset_1[0])


class Prefetcher(Iterator[Batch]):
    """Batches of consecutive steps, made ahead by one thread while the devices work.

    `produce(step)` is called for first_step, first_step + 1, ... (up to `end_step`, exclusive), at
    most `depth` batches ahead. What it raises is raised by `next` at its step's turn, with its
    traceback. `step` is the step that `next` will return: what was made ahead does not count, so
    `loader.state(prefetcher.step)` is right at any time.
    """

    def __init__(
        self,
        produce: Callable[[int], Batch],
        *,
        first_step: int = 0,
        end_step: int | None = None,
        depth: int = 2,
    ):
        if depth < 1:
            raise ConfigError(f"prefetch depth={depth}: give 1 or more batches")
        self.step = first_step
        self.seconds_waited = 0.0
        self._produce, self._end_step, self._depth = produce, end_step, depth
        self._ready: deque[Batch] = deque()
        self._failure: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run, args=(first_step,), name="prefetch", daemon=True
        )
        self._thread.start()

    def __next__(self) -> Batch:
        started = time.monotonic()
        with self._changed:
            if self._end_step is not None and self.step >= self._end_step:
                raise StopIteration
            self._changed.wait_for(lambda: self._ready or self._failure or self._closed)
            self.seconds_waited += time.monotonic() - started
            if self._closed:
                raise RuntimeError("this Prefetcher is closed")
            if not self._ready:
                assert self._failure is not None
                raise self._failure
            batch = self._ready.popleft()
            self.step += 1
            self._changed.notify_all()
            return batch

    def close(self) -> None:
        """Stops the thread; a batch in the making is finished first (for ten seconds at most)."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(timeout=10.0)

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def _run(self, step: int) -> None:
        try:
            while self._end_step is None or step < self._end_step:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < self._depth or self._closed)
                    if self._closed:
                        return
                batch = self._produce(step)
                with self._changed:
                    self._ready.append(batch)
                    self._changed.notify_all()
                step += 1
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
