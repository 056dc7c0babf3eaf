"""Rows of tasks that are tokenised while training reads them: no store to build, none to keep.

A task's documents are read in blocks of about a million tokens, shards in a keyed order that is new
in every epoch; a block is in memory what a store is on disk, and its rows come in a keyed order. So
the rows are the same on any number of hosts, and a position is where the block begins and how many
of its rows are used up. Every host tokenises everything: for a pod, and for long runs, `t5jax
cache` is the better way.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.pipeline.converters import Features
from t5jax.data.pipeline.loader import BaseLoader, digest, refuse_other_data
from t5jax.data.pipeline.mixing import Mixing
from t5jax.data.pipeline.rows import Rows
from t5jax.data.records import BadRecord, Rejected
from t5jax.data.registry.row_format import RowFormat
from t5jax.data.rng import Permutation, derive_seed
from t5jax.data.store.documents import (
    Document,
    DocumentSource,
    encode_document,
    leave_out,
    policy_of,
)
from t5jax.data.store.reader import TokenStream
from t5jax.data.store.spelling import SpellingCounter, refuse_unspellable, spelling_notes
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import DataError
from t5jax.types import Batch

_log = logging.getLogger("t5jax")

BLOCK_TOKENS = 1 << 20
_STATES_KEPT = 256  # positions of steps that were made ahead and may still be asked for

MakeRows = Callable[[Mapping[str, TokenStream], int], Rows]  # (streams, seed) -> rows


class Position(NamedTuple):
    """Where a block begins, and how many of its rows are used up."""

    epoch: int = 0
    shard: int = 0  # in the order of the epoch
    document: int = 0
    row: int = 0


class StreamingTask:
    """The rows of one task, in their order; `position` is that of the next one.

    `settings` is whatever decides the rows that `make_rows` makes of a block, as JSON. With a
    `max_unknown_share` DataError is raised when the vocabulary cannot spell more of the first
    block's characters.
    """

    def __init__(
        self,
        name: str,
        texts: DocumentSource,
        split: str,
        vocabulary: Vocabulary,
        make_rows: MakeRows,
        *,
        settings: Mapping[str, Any],
        seed: int,
        block_tokens: int = BLOCK_TOKENS,
        max_unknown_share: float | None = None,
    ):
        self.name, self.position = name, Position()
        self.rejected = Rejected()
        self._spelling: SpellingCounter | None = None
        if max_unknown_share is not None:
            self._spelling = SpellingCounter(vocabulary)
        self._max_unknown_share = max_unknown_share
        self._texts, self._split, self._vocabulary = texts, split, vocabulary
        self._make_rows, self._settings = make_rows, settings
        self._seed, self._block_tokens = seed, block_tokens
        self._shards = texts.shards(split)
        self._block: Rows | None = None
        self._next_block = Position()
        self._reader: _Reader | None = None

    @property
    def packs(self) -> bool:
        return self._current().packs

    def identity(self) -> dict[str, Any]:
        """Whatever decides the rows: texts, shards, vocabulary, seed and the rows' settings."""
        return {
            "texts": self._texts.identity(),
            "vocabulary": self._vocabulary.fingerprint,
            "rows": self._settings,
            "shards": self._shards,  # names: a copy of a file has another time, and the same rows
            "block_tokens": self._block_tokens,
            "seed": self._seed,
        }

    def move_to(self, position: Sequence[int]) -> None:
        """Goes on from a position that was saved."""
        self.position = Position(*position)
        self._block, self._reader = None, None

    @property
    def examples_per_row(self) -> float:
        """Of the first block of all, wherever the position is."""
        first = copy.copy(self)
        first.rejected, first._spelling = Rejected(), None
        first.move_to(Position())
        return first._current().examples_per_row

    def read(self, wanted_B: np.ndarray) -> Features | None:
        """The next len(wanted_B) rows: those that are wanted are made, the others passed over.
        None when none is wanted."""
        parts, done = [], 0
        while done < len(wanted_B):
            block = self._current()
            first = self.position.row
            count = min(len(wanted_B) - done, block.num_rows - first)
            ids = first + np.flatnonzero(wanted_B[done : done + count])
            if len(ids):
                parts.append(block.read(ids))
            self.position = self.position._replace(row=first + count)
            done += count
            if self.position.row == block.num_rows:
                self.position, self._block = self._next_block, None
        if not parts:
            return None
        arrays = zip(Features._fields, zip(*parts, strict=True), strict=True)
        return Features(**{name: np.concatenate(x) for name, x in arrays if x[0] is not None})

    def _current(self) -> Rows:
        """The rows of the block at the position, read and tokenised if need be."""
        if self._block is None:
            start = self.position._replace(row=0)
            reader = self._reader if self._reader and self._reader.position == start else None
            self._reader = reader or _Reader(self, start)
            documents = self._reader.take(self._block_tokens)
            self._check_spelling()
            names = self._texts.features
            streams = {
                name: TokenStream.of_documents([d[name] for d in documents]) for name in names
            }
            seed = derive_seed(self._seed, f"block/{start.epoch}/{start.shard}/{start.document}")
            self._block = self._make_rows(streams, seed)
            self._next_block = self._reader.position
        return self._block

    def _check_spelling(self) -> None:
        """Says what the vocabulary cannot spell of the first block that is read. Raises DataError
        when it is more than `max_unknown_share`; what comes later is like it."""
        if self._spelling is None or self._max_unknown_share is None:
            return
        counts, self._spelling = self._spelling.counts, None
        where = f"task {self.name}, its first texts"
        refuse_unspellable(counts, self._max_unknown_share, where, self._vocabulary)
        for note in spelling_notes(counts):
            _log.warning("%s: %s", where, note)

    def documents_of_shard(self, epoch: int, nth: int) -> Iterator[Document]:
        """The texts of the shard that comes nth in an epoch."""
        order = Permutation(len(self._shards), derive_seed(self._seed, "shards"), epoch)
        shard = self._shards[int(order(np.array([nth]))[0])]
        of_epoch = getattr(self._texts, "of_epoch", None)
        texts = of_epoch(epoch) if of_epoch else self._texts
        return texts.documents(self._split, shard, self.rejected)

    def encode(self, document: Document, number: int) -> dict[str, np.ndarray] | None:
        """int32 ids of each feature; None for a document that the policy leaves out because the
        vocabulary fails on it."""
        place = f"task {self.name}, document {number} of its shard"
        encoded = encode_document(document, self._vocabulary, place)
        if isinstance(encoded, BadRecord):
            leave_out(encoded, policy_of(self._texts), self.rejected)
            return None
        if self._spelling is not None:
            self._spelling.add(document, encoded)
        return encoded

    @property
    def num_shards(self) -> int:
        return len(self._shards)


class _Reader:
    """Documents from a position on, for ever; `position` is that of the next one."""

    def __init__(self, task: StreamingTask, position: Position):
        self._task, self.position = task, position
        self._documents = task.documents_of_shard(position.epoch, position.shard)
        for number in range(position.document):
            if next(self._documents, None) is None:
                raise DataError(
                    f"task {task.name}: the saved position is document {position.document} of a "
                    f"shard that has {number}: its source changed since"
                )

    def take(self, num_tokens: int) -> list[dict[str, np.ndarray]]:
        """Tokenised documents of at least so many tokens; fewer at the end of an epoch.

        Raises DataError when a whole epoch has no tokens.
        """
        while True:
            whole_epoch = self.position == Position(self.position.epoch)
            taken = self._take_of_epoch(num_tokens)
            if any(len(ids) for document in taken for ids in document.values()):
                return taken
            if whole_epoch:
                raise DataError(f"task {self._task.name}: its texts have no tokens at all")

    def _take_of_epoch(self, num_tokens: int) -> list[dict[str, np.ndarray]]:
        taken, size, epoch = [], 0, self.position.epoch
        while size < num_tokens and self.position.epoch == epoch:
            document = next(self._documents, None)
            if document is None:
                self._next_shard()
                continue
            ids = self._task.encode(document, self.position.document)
            if ids is not None:
                taken.append(ids)
                size += sum(len(x) for x in ids.values())
            self.position = self.position._replace(document=self.position.document + 1)
        return taken

    def _next_shard(self) -> None:
        epoch, shard = self.position.epoch, self.position.shard + 1
        if shard == self._task.num_shards:
            epoch, shard = epoch + 1, 0
        self.position = Position(epoch, shard)
        self._documents = self._task.documents_of_shard(epoch, shard)


class StreamingLoader(BaseLoader):
    """Batches of live tasks, step after step: what `Loader` is to stores.

    Steps must be asked for in their order (each once), because a position is only known when
    everything before it was read.
    """

    mixing: Mixing  # always: there is no order without rates

    def __init__(
        self,
        tasks: Sequence[StreamingTask],
        vocabulary: Vocabulary,
        *,
        batch_size: int,
        row_format: RowFormat,
        mixing: Mixing,
    ):
        names = [task.name for task in tasks]
        super().__init__(
            names, vocabulary, batch_size=batch_size, row_format=row_format, mixing=mixing
        )
        self.tasks = tuple(tasks)
        self._next_step, self._next_row = 0, 0
        self._identity = {
            "live_tasks": digest([task.identity() for task in self.tasks]),
            "tasks": digest(self.task_names),
            "rates": digest(mixing.identity()),
            "lengths": [row_format.inputs_length, row_format.targets_length],
            "converter": self.row_format.converter,
        }
        self._states: dict[int, dict[str, Any]] = {0: self._state()}

    def rows(self, step: int, row_indices: Sequence[int] | None = None) -> Batch:
        """As `Loader.rows`, for the next step alone."""
        assert step == self._next_step, (step, self._next_step)
        ids_B = self._next_row + np.arange(self.batch_size)
        tasks_B, _ = self.mixing(ids_B)
        indices = np.arange(self.batch_size) if row_indices is None else np.array(row_indices, int)
        wanted_B = np.zeros(self.batch_size, bool)
        wanted_B[indices] = True
        parts = {}
        for number, task in enumerate(self.tasks):
            part = task.read(wanted_B[tasks_B == number])
            if part is not None:
                parts[number] = part
        self._next_step, self._next_row = step + 1, self._next_row + self.batch_size
        # Kept as it is now: the thread that makes batches ahead may be in the middle of the next
        # one when a checkpoint asks for this position.
        self._states[step + 1] = self._state()
        self._states.pop(step - _STATES_KEPT, None)
        batch = self._batch(parts, tasks_B[wanted_B])
        places_B = np.searchsorted(np.flatnonzero(wanted_B), indices)
        return {name: array[places_B] for name, array in batch.items()}

    @property
    def num_left_out(self) -> int:
        """Records and damaged files that the policy left out so far, again in every epoch."""
        return sum(t.rejected.records + t.rejected.damaged_files for t in self.tasks)

    @property
    def places_left_out(self) -> list[str]:
        """Where the first of them stand, and why they were left out."""
        return [place for task in self.tasks for place in task.rejected.places]

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint before `step` keeps: a position in every task."""
        return self._states[step]

    def check_state(self, state: dict[str, Any]) -> None:
        """DataError when the state's positions mean nothing here."""
        if not isinstance(state.get("next_row"), int) or "positions" not in state:
            raise DataError(f"data state has no positions of live tasks: {state}")
        refers_to = dict(self._identity)
        if "live" in state:  # of t5jax 0.1, which knew functions by byte code: not comparable
            del refers_to["live_tasks"]
        refuse_other_data(state, refers_to)

    def restore(self, state: dict[str, Any], step: int) -> None:
        """From now on `step` is next, at the state's positions (checked by `check_state`)."""
        self.check_state(state)
        self._next_step, self._next_row = step, state["next_row"]
        for task, position in zip(self.tasks, state["positions"], strict=True):
            task.move_to(position)
        self._states = {step: self._state()}

    def _state(self) -> dict[str, Any]:
        return {
            "next_row": self._next_row,
            "batch_size": self.batch_size,
            "positions": [list(task.position) for task in self.tasks],
            **self._identity,
        }

    @property
    def _packs(self) -> bool:
        return any(task.packs for task in self.tasks)
