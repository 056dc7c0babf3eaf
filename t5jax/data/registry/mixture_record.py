"""What a mixture is made of, as training needs it: tasks, where their tokens lie, and rates.

For tasks that come with t5jax it follows from their names. For a user's own `t5jax cache` writes it
down beside the stores, so that training imports neither the user's modules nor seqio.
"""

import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from t5jax.data import objectives, registry
from t5jax.data.atomic_files import write_json
from t5jax.data.config import DataConfig, mixture_of, tasks_of
from t5jax.data.objectives import Objective
from t5jax.data.store.build import cache_directory
from t5jax.data.store.reader import MAKE_IT, read_info
from t5jax.data.tasks.mixture import stages_if_known
from t5jax.data.tasks.task import EosRule, ExampleTask, SeqioTask, Task, TextTask
from t5jax.errors import ConfigError, DataError

FORMAT = "t5jax mixture"
FORMAT_VERSION = 1
TRAIN = "train"
SUFFIX = ".mixture.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskRecord:
    """A task of the mixture: `corpus` names its store; with an objective it is plain text."""

    name: str
    corpus: str
    objective: Objective | None
    prefix: str
    eos: Mapping[str, EosRule]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can write it."""
        objective = None if self.objective is None else self.objective.to_dict()
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"objective": objective}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "TaskRecord":
        """What `to_dict` gave."""
        objective = content["objective"]
        found = None if objective is None else objectives.from_dict(objective)
        return cls(**{**content, "objective": found})

    def directory(self, data: DataConfig, split: str) -> pathlib.Path:
        """Where the store of a split is, or would be."""
        assert data.cache_dir is not None
        return cache_directory(data.cache_dir, self.corpus, split)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MixtureRecord:
    """`phases` are (first step, share of the examples by task; what is not named has none)."""

    mixture: str
    tasks: tuple[TaskRecord, ...]
    phases: tuple[tuple[int, Mapping[str, float]], ...]

    @property
    def trained_on(self) -> tuple[TaskRecord, ...]:
        """The tasks that have a share at any step; the others are only evaluated."""
        drawn = {name for _, shares in self.phases for name, share in shares.items() if share > 0}
        return tuple(task for task in self.tasks if task.name in drawn)


def corpus_of(task: Task) -> str:
    """The name of a task's store: tasks over the same text share one."""
    return task.corpus if isinstance(task, TextTask) else task.name


def task_record(task: Task) -> TaskRecord:
    return TaskRecord(
        name=task.name,
        corpus=corpus_of(task),
        objective=task.objective,
        prefix=task.prefix,
        eos=task.eos if isinstance(task, SeqioTask) else {},
    )


def make_record(data: DataConfig, sizes: Mapping[str, int | None]) -> MixtureRecord:
    """The record of the config's mixture; `sizes` are the numbers of examples of its tasks, None
    where nothing has counted them.

    Raises ConfigError for an unknown task, for rates that cannot be, and for those that depend on
    sizes that are not known.
    """
    tasks, mixture = tasks_of(data), mixture_of(data)
    phases: tuple[tuple[int, Mapping[str, float]], ...] = ((0, {task.name: 1.0 for task in tasks}),)
    if mixture is not None:
        inside = registry.mixtures_within(mixture, data)
        found = stages_if_known(mixture, sizes, mixtures=inside)
        if found is None:
            unknown = [name for name, size in sizes.items() if size is None]
            raise ConfigError(
                f"the rates of {data.mixture} depend on the number of examples of "
                f"{', '.join(unknown[:5])}, which is not known without a store: set data.cache_dir "
                "and run t5jax cache, or give rates of their own"
            )
        phases = found
    records = tuple(task_record(task) for task in tasks)
    return MixtureRecord(mixture=data.mixture, tasks=records, phases=phases)


def published_size(task: Task) -> int | None:
    """Training examples, where a task knows without a store."""
    if TRAIN not in task.splits:
        return 0
    return task.num_examples if isinstance(task, ExampleTask) else None


def cached_sizes(tasks: list[Task], data: DataConfig) -> dict[str, int]:
    """Examples (documents, of plain text) in the training stores of the tasks."""
    return {
        task.name: read_info(task_record(task).directory(data, TRAIN)).documents
        if TRAIN in task.splits
        else 0
        for task in tasks
    }


def corpora_of(data: DataConfig) -> dict[str, bool]:
    """The corpora whose stores the config's mixture reads; True for those that it trains on.

    Raises DataError when a user's own mixture was not cached.
    """
    if _is_known(data):
        return {corpus_of(task): TRAIN in task.splits for task in tasks_of(data)}
    record = _read_record(data)
    drawn = {task.corpus for task in record.trained_on}
    return {task.corpus: task.corpus in drawn for task in record.tasks}


def record_path(data: DataConfig) -> pathlib.Path:
    assert data.cache_dir is not None
    return pathlib.Path(data.cache_dir) / f"{data.mixture}{SUFFIX}"


def write_record(data: DataConfig, record: MixtureRecord) -> None:
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "mixture": record.mixture,
        "tasks": [task.to_dict() for task in record.tasks],
        "phases": record.phases,
    }
    write_json(record_path(data), content)


def record_of(data: DataConfig) -> MixtureRecord:
    """The record of the config's mixture, for training from stores.

    Raises DataError when a store, or a user's own mixture's record, is not there.
    """
    if _is_known(data):
        return make_record(data, cached_sizes(tasks_of(data), data))
    return _read_record(data)


def _is_known(data: DataConfig) -> bool:
    """Whether the mixture follows from its name, here and now."""
    return registry.find_builtin(data.mixture) is not None or data.mixture in registry.own_names()


def _read_record(data: DataConfig) -> MixtureRecord:
    path = record_path(data)
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        cached = [p.name.removesuffix(SUFFIX) for p in path.parent.glob(f"*{SUFFIX}")]
        near = difflib.get_close_matches(data.mixture, cached, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DataError(
            f"{path} is not there (seen from {os.getcwd()}): {data.mixture} was not cached in "
            f"{data.cache_dir}{hint}; {MAKE_IT}"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); delete it, then {MAKE_IT}") from error
    if (content.pop("format", None), content.pop("format_version", None)) != (
        FORMAT,
        FORMAT_VERSION,
    ):
        raise DataError(f"{path} is not of this t5jax; delete it, then {MAKE_IT}")
    return MixtureRecord(
        mixture=content["mixture"],
        tasks=tuple(TaskRecord.from_dict(task) for task in content["tasks"]),
        phases=tuple((int(first), rates) for first, rates in content["phases"]),
    )
