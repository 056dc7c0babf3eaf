"""The documents of a task to tokenise: its source, its columns, the policy for bad records."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.records import BadColumn, BadRecord, BadRecordPolicy, Record, Rejected, Row, Source
from t5jax.data.rng import derive_seed
from t5jax.data.seqio_bridge.documents import SeqioDocuments
from t5jax.data.sources import Cleaned
from t5jax.data.sources.patterns import check_shards_of_splits
from t5jax.data.store.documents import DocumentSource
from t5jax.data.tasks.identity import identity_of
from t5jax.data.tasks.task import ExampleTask, SeqioTask, Task, TextTask
from t5jax.errors import ConfigError

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
    )


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
        return self._source().splits()

    def shards(self, split: str) -> list[str]:
        """The source's. Raises DataError for a file that is read twice or in two splits."""
        return check_shards_of_splits(self._source(), split)

    def shard_fingerprint(self, split: str, shard: str) -> str:
        of_shard = getattr(self._source(), "shard_fingerprint", None)
        # What was left out under another policy has to be looked at again.
        return f"{of_shard(split, shard) if of_shard else ''} {self._policy()}"

    def documents(
        self, split: str, shard: str, rejected: Rejected | None = None
    ) -> Iterator[dict[str, str]]:
        """{"text"} or {"inputs", "targets"} of each document or example of a shard, in order."""
        keys = self._keys()
        for example in self.examples(split, shard, rejected):
            yield {feature: example[key] for feature, key in keys.items()}

    def examples(
        self, split: str, shard: str, rejected: Rejected | None = None
    ) -> Iterator[dict[str, Any]]:
        """Examples with all their columns; of plain text {"targets": text}."""
        source = self._source()
        rows = self._with_examples(source.records(split, shard), split)
        rejected = Rejected() if rejected is None else rejected
        for row in self._policy().accept(rows, rejected):
            yield from row["examples"]
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
            except BadColumn as error:
                yield BadRecord(record.place, str(error))
            except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                # A user's function met a row that it was not written for.
                reason = f"{type(error).__name__} in task {task.name}: {error}"
                yield BadRecord(record.place, reason)
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
        try:
            return task.source(self.data)
        except (TypeError, AttributeError) as error:
            raise ConfigError(f"the source of task {task.name}: {error}") from error

    def _policy(self) -> BadRecordPolicy:
        return BadRecordPolicy(
            policy=self.data.on_bad_record, max_fraction=self.data.max_bad_fraction
        )


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
    return examples
