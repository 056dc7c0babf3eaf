"""The order of training data as a function: (tasks, rates, seed, step) -> rows of a batch.

Nothing here has a position to lose. Row i of the run belongs to a task (`mixing.py`) and is that
task's j-th row (`rows/`), so any host computes its own rows of any step, for any number of hosts
and any cut into batches, and a checkpoint of the data is one integer beside what it refers to.
No library's iterator: tf.data's holds a position, and hangs (measured) when it is restored with
another batch size.
"""

import abc
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from t5jax.data.pipeline.converters import Features, batch_shapes, convert
from t5jax.data.pipeline.mixing import Mixing
from t5jax.data.pipeline.rows import Rows
from t5jax.data.registry.row_format import RowFormat
from t5jax.data.store.ranges import Traffic
from t5jax.data.store.reader import Place, TokenStore
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError, DataError
from t5jax.types import PAD_ID, Batch


class ArraySpec(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


class Origin(NamedTuple):
    """Where a part of a row comes from."""

    task: str
    feature: str
    place: Place


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A task of the run: its rows and the store that they are read from (None: memory)."""

    name: str
    rows: Rows
    store: TokenStore | None


class BaseLoader(abc.ABC):
    """What loaders share: the tasks, and batches made of the rows that each of them gave."""

    def __init__(
        self,
        task_names: Iterable[str],
        vocabulary: Vocabulary,
        *,
        batch_size: int,
        row_format: RowFormat,
        mixing: Mixing | None,
    ):
        self.task_names, self.vocabulary = tuple(task_names), vocabulary
        self.batch_size, self.row_format, self.mixing = batch_size, row_format, mixing

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the encoder's and the decoder's rows, 0 where there is none."""
        return self.row_format.lengths

    @property
    def element_spec(self) -> dict[str, ArraySpec]:
        """Shapes and dtypes of a whole global batch; all int32."""
        shapes = batch_shapes(self.row_format, packed=self._packs)
        shapes |= {"task_ids": ()} if len(self.task_names) > 1 else {}
        int32 = np.dtype(np.int32)
        return {k: ArraySpec((self.batch_size, *shape), int32) for k, shape in shapes.items()}

    @property
    @abc.abstractmethod
    def _packs(self) -> bool:
        """Whether rows of any task come with segments: then those of all do."""

    def _batch(self, parts: Mapping[int, Features], tasks_B: np.ndarray) -> Batch:
        """The rows of several tasks, of which row b is the next one of task tasks_B[b]. A host may
        hold none of a batch's rows."""
        if not parts:
            spec = self.element_spec
            return {name: np.zeros((0, *x.shape[1:]), x.dtype) for name, x in spec.items()}
        rows = merged(parts, tasks_B, self._packs, self.row_format.pad_id)
        batch = convert(rows, self.row_format)
        if len(self.task_names) > 1:
            batch["task_ids"] = tasks_B.astype(np.int32)
        return batch


class Loader(BaseLoader):
    """Batches of the rows of one task, or of several at the rates of `mixing`.

    With `mixing=None` the rows come in order: the first component's, then the next one's, each
    once; rows beyond the last are all zero and weigh nothing (evaluation).
    """

    def __init__(
        self,
        components: Sequence[Component],
        vocabulary: Vocabulary,
        *,
        batch_size: int,
        row_format: RowFormat,
        mixing: Mixing | None,
    ):
        assert components
        assert mixing is None or len(mixing.names) == len(components)
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: give 1 or more rows")
        names = [component.name for component in components]
        super().__init__(
            names, vocabulary, batch_size=batch_size, row_format=row_format, mixing=mixing
        )
        self.components = tuple(components)
        self._origin = 0  # the row that step 0 would begin with; see `restore`
        sizes = [component.rows.num_rows for component in components]
        self._first_rows = np.cumsum([0, *sizes])
        self.num_rows = int(self._first_rows[-1])

    @property
    def num_steps(self) -> int:
        """Steps of one pass over the rows; the last may be partial."""
        return math.ceil(self.num_rows / self.batch_size)

    @property
    def num_tokens(self) -> int:
        """Tokens of all stores."""
        stores = {c.store.directory: c.store for c in self.components if c.store}
        return sum(store.info.total("tokens") for store in stores.values())

    @property
    def traffic(self) -> Traffic | None:
        """What the stores of this process have read from buckets; None where none lies in one."""
        found = [c.store.traffic for c in self.components if c.store and c.store.traffic]
        return found[0] if found else None

    def rows(self, step: int, row_indices: Iterable[int] | None = None) -> Batch:
        """The given rows (all by default) of the global batch of a step, in the order given.

        int32, tokens padded with the vocabulary's pad id, as the run's converter makes them. For an
        encoder-decoder: encoder_input_tokens [B, inputs_length]; decoder_target_tokens,
        decoder_input_tokens (the targets behind the start id, in each segment) and
        decoder_loss_weights [B, targets_length]; where a task packs, also segment ids and positions
        of both sides. With several tasks task_ids [B] says which one each row is of.
        """
        tasks_B, within_B = self._tasks(self._row_ids(step, row_indices))
        parts = {
            task: self.components[task].rows.read(within_B[tasks_B == task])
            for task in np.unique(tasks_B).tolist()
        }
        return self._batch(parts, tasks_B)

    def origins(self, step: int, row: int) -> list[Origin]:
        """Which tokens of which shards, and which of their documents, a row of a step shows."""
        tasks_B, within_B = self._tasks(self._row_ids(step, [row]))
        component = self.components[int(tasks_B[0])]
        assert component.store is not None, "rows in memory have no places"
        found = []
        for feature, start, length, example in component.rows.stretches(int(within_B[0])):
            if example is not None:
                places = [component.store.place_of_example(example)]
            else:
                places = component.store.places(feature, start, length)
            found += [Origin(component.name, feature, place) for place in places]
        return found

    def state(self, step: int) -> dict[str, Any]:
        """Resume state, which a checkpoint before `step` keeps: next row and what it refers to."""
        return {
            "next_row": self._origin + step * self.batch_size,
            "batch_size": self.batch_size,
            **self._refers_to,
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """DataError when the state's position means nothing here: other data, seed or rows.

        Another batch size or number of hosts is fine: the position counts rows.
        """
        if not isinstance(state.get("next_row"), int) or state["next_row"] < 0:
            raise DataError(f"data state has no valid next_row: {state}")
        refuse_other_data(state, self._refers_to)

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Resumes: from now on `step` begins with the state's next row (`check_state`)."""
        self.check_state(state)
        self._origin = state["next_row"] - step * self.batch_size

    @functools.cached_property
    def _refers_to(self) -> dict[str, Any]:
        """Short digests, one for each kind of thing that can differ. Made once: the packing of
        millions of examples is among what they are of."""
        return {
            "tasks": digest(self.task_names),
            "stores": digest([c.store.fingerprint if c.store else None for c in self.components]),
            "rows": digest([component.rows.identity() for component in self.components]),
            "rates": digest(self.mixing.identity() if self.mixing else None),
            "converter": self.row_format.converter,
        }

    def _row_ids(self, step: int, row_indices: Iterable[int] | None) -> np.ndarray:
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

    def _tasks(self, ids_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(component, row within it) of each row of the run."""
        if self.mixing is not None and len(self.components) > 1:
            return self.mixing(ids_B)
        if self.mixing is not None:
            return np.zeros_like(ids_B), ids_B
        last = len(self.components) - 1
        tasks_B = np.minimum(np.searchsorted(self._first_rows, ids_B, side="right") - 1, last)
        return tasks_B, ids_B - self._first_rows[tasks_B]

    @property
    def _packs(self) -> bool:
        return any(component.rows.packs for component in self.components)


def refuse_other_data(state: dict[str, Any], refers_to: dict[str, Any]) -> None:
    """DataError when a saved state refers to other things than those here."""
    for key, here in refers_to.items():
        if state.get(key) != here:
            raise DataError(
                f"data state was saved with {key} = {state.get(key)!r}, this run has {here!r}: "
                "its position means other examples here (other files, data.inputs_length, "
                "data.targets_length or objective). Resume with the saved settings and files "
                "(config.txt of the run names them), or begin a new run"
            )


def merged(
    parts: Mapping[int, Features], tasks_B: np.ndarray, packs: bool, pad_id: int = PAD_ID
) -> Features:
    """Rows of several tasks in the order of the batch: row b is the next one of task tasks_B[b]. As
    wide as the widest: packed examples may have more inputs in a row than a text has."""
    if packs:
        parts = {task: with_segments(part, pad_id) for task, part in parts.items()}
    if len(parts) == 1:
        return next(iter(parts.values()))
    arrays = {}
    for name in Features._fields:
        of_tasks = {task: getattr(part, name) for task, part in parts.items()}
        first = next(iter(of_tasks.values()))
        if first is not None:
            width = max(array.shape[1] for array in of_tasks.values())
            fill = pad_id if name in ("inputs", "targets") else 0
            arrays[name] = np.full((len(tasks_B), width), fill, np.int32)
            for task, array in of_tasks.items():
                arrays[name][tasks_B == task, : array.shape[1]] = array
    return Features(**arrays)


def with_segments(features: Features, pad_id: int = PAD_ID) -> Features:
    """The same rows, each as one segment where it is not packed."""
    if features.inputs_segments is not None:
        return features
    arrays = {}
    for name in ("inputs", "targets"):
        tokens = getattr(features, name)
        filled = (tokens != pad_id).astype(np.int32)
        arrays[f"{name}_segments"] = filled
        arrays[f"{name}_positions"] = np.arange(tokens.shape[1], dtype=np.int32) * filled
    return features._replace(**arrays)


def digest(value: Any) -> str:
    """Of a value that JSON can write: 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
