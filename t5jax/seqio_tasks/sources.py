"""The rows of a task of t5jax as a seqio `DataSource`."""

import functools
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.records import Rejected
from t5jax.data.registry.resolved_task import check_required
from t5jax.data.registry.texts import TaskDocuments
from t5jax.data.tasks.task import ExampleTask, TextTask
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import ConfigError, DataError
from t5jax.seqio_tasks.columns import columns_to_text
from t5jax.types import PAD_ID

seqio = import_seqio()
tf = import_tensorflow()
_log = logging.getLogger("t5jax")

COLUMNS = "t5jax_columns"  # the feature that holds an example's other columns
_TRAIN = "train"
_CYCLE, _BLOCK = 16, 16  # of files read in turn, as seqio's FileDataSource reads them


def _check_padding(data: DataConfig) -> None:
    if data.vocabulary.pad_id != PAD_ID:
        raise ConfigError(
            f"vocabulary {data.vocabulary} pads with id {data.vocabulary.pad_id}: seqio takes id "
            f"{PAD_ID} for padding whatever the vocabulary says; train with t5jax, or with a "
            f"vocabulary whose id {PAD_ID} is padding"
        )


class TaskSource(seqio.DataSource):
    """What a task makes of its own source: {"text"} of a task of plain text, {"inputs", "targets",
    COLUMNS} of one with examples, all strings.

    Without shuffling the order is t5jax's, shard by shard; with it shards are permuted and read in
    turn. Nothing is opened before a split, a shard or a data set is asked for. Hosts divide the
    shards, or the examples where there are fewer shards than hosts.
    """

    of_t5jax = True  # `registry.seqio_names` leaves out what t5jax has registered itself

    def __init__(self, task: TextTask | ExampleTask, data: DataConfig):
        super().__init__(splits=task.splits)
        self.task, self.data = task, data
        self._texts = TaskDocuments(task.name, data)

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the task names and its data has; all that it names where there is no data, of
        which a data set then says why."""
        try:
            check_required([self.task], self.data)
            there = self._texts.splits()
        except (ConfigError, DataError):
            return self.task.splits
        return tuple(split for split in self.task.splits if split in there) or self.task.splits

    @property
    def supports_arbitrary_sharding(self) -> bool:
        return False

    def num_input_examples(self, split: str) -> int | None:
        """Of the published training split, or what the source's own description says; None where
        neither is known."""
        if split == _TRAIN and isinstance(self.task, ExampleTask) and self.task.num_examples:
            return self.task.num_examples
        try:
            num_records = getattr(self.task.source(self.data), "num_records", None)
            return None if num_records is None else num_records(split)
        except (ConfigError, DataError):
            return None

    def list_shards(self, split: str) -> list[str]:
        """Of any split that the data has, named by the task or not. Raises ConfigError for a
        setting that is missing, DataError for data that is."""
        check_required([self.task], self.data)
        return self._texts.shards(split)

    def get_dataset(
        self,
        split: str = _TRAIN,
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: Any = None,
        **unused: Any,
    ) -> Any:
        """Raises as `list_shards`, ValueError for fewer shards than `shard_info` asks for,
        ConfigError for a vocabulary that does not pad with 0. What breaks off later is an error of
        TensorFlow's, which holds the message."""
        shards = self.list_shards(split)
        _check_padding(self.data)
        if shard_info and len(shards) < shard_info.num_shards:
            raise ValueError(
                f"task {self.task.name}, {split}: {len(shards)} shards cannot be divided by "
                f"{shard_info.num_shards}"
            )
        if shard_info:
            shards = shards[shard_info.index :: shard_info.num_shards]
        names = tf.data.Dataset.from_tensor_slices(shards)
        read = functools.partial(self._read, split)
        if not shuffle:
            return names.flat_map(read)
        return names.shuffle(len(shards), seed=seed).interleave(
            read, cycle_length=_CYCLE, block_length=_BLOCK, num_parallel_calls=tf.data.AUTOTUNE
        )

    def __str__(self) -> str:
        return f"t5jax task {self.task.name}"

    def _read(self, split: str, shard: Any) -> Any:
        features = ("text",) if isinstance(self.task, TextTask) else ("inputs", "targets", COLUMNS)
        return tf.data.Dataset.from_generator(
            functools.partial(self._rows, split),
            args=(shard,),
            output_signature={name: tf.TensorSpec([], tf.string) for name in features},
        )

    def _rows(self, split: str, shard: bytes) -> Iterator[dict[str, str]]:
        rejected = Rejected()
        for example in self._texts.examples(split, shard.decode(), rejected):
            yield self._row(example)
        for place in rejected.places:
            _log.warning("%s of %s, left out: %s", split, self.task.name, place)

    def _row(self, example: Mapping[str, Any]) -> dict[str, str]:
        if isinstance(self.task, TextTask):
            return {"text": example["targets"]}
        columns = {k: value for k, value in example.items() if k not in ("inputs", "targets")}
        kept = {name: example[name] for name in ("inputs", "targets")}
        return {**kept, COLUMNS: columns_to_text(columns)}
