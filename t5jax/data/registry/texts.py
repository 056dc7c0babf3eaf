"""The documents of a task to tokenise: its source, its columns, the policy for bad records."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.records import (
    BadColumn,
    BadRecord,
    BadRecordPolicy,
    DamagedFile,
    Record,
    Rejected,
    Row,
    Source,
    with_columns,
)
from t5jax.data.rng import derive_seed
from t5jax.data.seqio_bridge.documents import SeqioDocuments
from t5jax.data.sources import Cleaned
from t5jax.data.sources.patterns import check_shards_of_splits
from t5jax.data.store.documents import DocumentSource
from t5jax.data.tasks.identity import identity_of
from t5jax.data.tasks.task import ExampleTask, SeqioTask, Task, TextTask
from t5jax.data.vocabularies.seqio_files import copies_taken
from t5jax.errors import ConfigError, DataError, foreign_code, foreign_items, is_failure

_AS_EXAMPLES = {"inputs": "inputs", "targets": "targets"}  # feature of the store: key of an example
_AS_TEXT = {"text": "targets"}


def task_documents(task: Task, data: DataConfig) -> DocumentSource:
    """What a task tokenises."""
    if isinstance(task, SeqioTask):
        return _seqio_documents(task, data)
    return TaskDocuments(task.name, data)


def _seqio_documents(task: SeqioTask, data: DataConfig) -> SeqioDocuments:
    whole = task.not_cacheable is not None
    lengths = (data.inputs_length, data.targets_length)
    return SeqioDocuments(
        name=task.name,
        modules=task.modules,
        has_objective=task.objective is not None,
        lengths=lengths if whole or task.needs_lengths else None,
        seed=derive_seed(data.seed, f"seqio/{task.name}") if whole else 0,
        whole=whole,
        has_inputs="inputs" in task.eos,
        vocabulary_copies=copies_taken(),
        policy=_policy(data),
    )


def _policy(data: DataConfig) -> BadRecordPolicy:
    return BadRecordPolicy(policy=data.on_bad_record, max_fraction=data.max_bad_fraction)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskDocuments:
    """What a task of ours tokenises. Pickled as names and settings: functions do not travel."""

    task_name: str
    data: DataConfig

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self._keys())

    def identity(self) -> dict[str, Any]:
        """The source's type and settings, the task's version, and what makes texts of its rows."""
        task = self._task()
        text = isinstance(task, TextTask)
        return {
            "stated_version": task.version,
            "source": identity_of(self._source()),
            "column": (task.column or self.data.text_column) if text else None,
            "examples": None if text else identity_of([task.examples, task.eval_examples]),
        }

    def splits(self) -> tuple[str, ...]:
        """The splits that the source has."""
        source = self._source()
        with foreign_code(self._source_name()):
            return source.splits()

    def shards(self, split: str) -> list[str]:
        """The source's. Raises DataError for a file that is read twice or in two splits."""
        source = self._source()
        with foreign_code(self._source_name()):
            return check_shards_of_splits(source, split)

    def shard_fingerprint(self, split: str, shard: str) -> str:
        of_shard = getattr(self._source(), "shard_fingerprint", None)
        with foreign_code(self._source_name(), shard):
            fingerprint = of_shard(split, shard) if of_shard else ""
        # What was left out under another policy has to be looked at again.
        return f"{fingerprint} {self.policy}"

    def documents(self, split: str, shard: str, rejected: Rejected | None = None) -> Iterator[Row]:
        """{"text"} or {"inputs", "targets"} of each document or example of a shard, in order, with
        the place of the row it is made of."""
        keys = self._keys()
        for place, example in self.placed_examples(split, shard, rejected):
            yield Row({feature: example[key] for feature, key in keys.items()}, place)

    def examples(
        self, split: str, shard: str, rejected: Rejected | None = None
    ) -> Iterator[dict[str, Any]]:
        """Examples with all their columns; of plain text {"targets": text}."""
        return (example for _, example in self.placed_examples(split, shard, rejected))

    def placed_examples(
        self, split: str, shard: str, rejected: Rejected | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(place of the row, example) of all examples of a shard."""
        with foreign_code(self._source_name()):
            source = with_columns(self._source(), self._columns())
        records = foreign_items(
            lambda: source.records(split, shard), self._source_name(), shard, _error_of_source
        )
        rows = self._with_examples(records, split)
        rejected = Rejected() if rejected is None else rejected
        for row in self.policy.accept(rows, rejected):
            for example in row["examples"]:
                yield row.place, example
        if isinstance(source, Cleaned):
            rejected.dropped = source.counts[split, shard].by_rule()

    def _with_examples(self, records: Iterator[Record], split: str) -> Iterator[Record]:
        """Rows of the examples made of each row; one that lacks what the task needs is bad."""
        task = self._task()
        for record in records:
            if isinstance(record, BadRecord):
                yield record
                continue
            try:
                examples = examples_of(record, task, split, self.data)
            except BaseException as error:  # a user's function met a row it was not written for
                if not is_failure(error):
                    raise
                yield BadRecord.from_failure(record.place, error, f"task {task.name}")
            else:
                yield Row({"examples": examples}, record.place)

    def _keys(self) -> dict[str, str]:
        return _AS_TEXT if isinstance(self._task(), TextTask) else _AS_EXAMPLES

    def _task(self) -> TextTask | ExampleTask:
        task = registry.find_task(self.task_name, self.data)
        assert not isinstance(task, SeqioTask), task
        return task

    def _source(self) -> Source:
        task = self._task()
        with foreign_code(self._source_name(), kind=ConfigError):
            return task.source(self.data)

    def _columns(self) -> tuple[str, ...]:
        """The columns that the task reads of a row; () are all."""
        task = self._task()
        if not isinstance(task, TextTask):
            return task.columns
        reads_one = type(task).text is TextTask.text
        return (task.column or self.data.text_column,) if reads_one else ()

    def _source_name(self) -> str:
        return f"the source of task {self.task_name}"

    @property
    def policy(self) -> BadRecordPolicy:
        """What becomes of records that cannot be used."""
        return _policy(self.data)


def _error_of_source(error: BaseException) -> type[DataError]:
    """A source that fails breaks off there, and a policy may use what came before; where a disk or
    the network fails, the data may be whole, and no policy leaves it out."""
    return DataError if isinstance(error, OSError) else DamagedFile


def examples_of(
    row: Row, task: TextTask | ExampleTask, split: str, data: DataConfig
) -> list[dict[str, Any]]:
    """The examples of a row: those of training, or those of evaluation, by the split.

    Raises BadColumn when the task cannot make them of the row.
    """
    if isinstance(task, TextTask):
        return [{"targets": task.text(row, data)}]
    make = task.examples
    if split not in task.train_splits and task.eval_examples is not None:
        make = task.eval_examples
    made = make(row)
    if made is None or isinstance(made, Mapping):
        raise BadColumn("the task made no list of examples: yield each, or return them in a list")
    examples = [dict(example) for example in made]
    for example in examples:
        for name in ("inputs", "targets"):
            if not isinstance(example.get(name), str):
                raise BadColumn(
                    f"the task made {name} = {example.get(name)!r}, not a string (of the keys "
                    f"{', '.join(example)})"
                )
        if split in task.train_splits and example["targets"] == task.unlabelled is not None:
            raise BadColumn(
                f"the row has no label (its target would be {task.unlabelled!r}), and a training "
                "split needs one; on_bad_record='skip' leaves such rows out"
            )
    return examples
