"""A task with the settings of a run: objective in force, prefix ids, seed, store."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from t5jax.data import objectives
from t5jax.data.config import DataConfig
from t5jax.data.objectives import Objective, lengths_of, objective_code
from t5jax.data.rng import derive_seed
from t5jax.data.store.directories import cache_directory
from t5jax.data.tasks.task import EosRule, SeqioTask, Task, TextTask
from t5jax.errors import ConfigError

SOURCE_SETTINGS = (  # fields of DataConfig that some tasks read and others do not
    "train_files",
    "validation_files",
    "test_files",
    "text_column",
    "tfds_data_dir",
    "datasets_dir",
    "huggingface_dataset",
    "max_record_bytes",
    "blank_lines",
    "empty_files",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedTask:
    """A task of a run.

    Attributes:
      store: names its tokenised store; tasks over the same text share one.
      objective: in force, `data.objective` or the task's own; None for a task with examples.
      own_objective: that of the task's definition.
      prefix, prefix_ids: in front of every row's inputs, as text and as ids.
      eos: how EOS is added to each feature, where that is not `after_trim`; of a task registered
        with seqio to each that it has.
      seed: of its order and noise; with one for all, tasks over one text would read it in step.
      definition: None where the task was read from its serialised form.
    """

    name: str
    store: str
    objective: Objective | None
    own_objective: Objective | None
    prefix: str
    prefix_ids: tuple[int, ...]
    eos: Mapping[str, EosRule]
    seed: int
    definition: Task | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def has_inputs(self) -> bool:
        """False for examples of targets alone."""
        return self.objective is not None or not self.eos or "inputs" in self.eos

    @property
    def defined(self) -> Task:
        """The definition, where the mixture was resolved from definitions."""
        assert self.definition is not None, f"{self.name} was read from its serialised form"
        return self.definition

    def to_dict(self) -> dict[str, Any]:
        """The task's own properties as JSON, without the settings of a run."""
        own = self.own_objective
        return {
            "name": self.name,
            "corpus": self.store,
            "objective": None if own is None else own.to_dict(),
            "prefix": self.prefix,
            "eos": self.eos,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], data: DataConfig) -> "ResolvedTask":
        """From `to_dict`, with the settings of `data`."""
        own = content["objective"]
        return _resolve_task(
            data,
            name=content["name"],
            store=content["corpus"],
            own_objective=None if own is None else objectives.objective_from_dict(own),
            prefix=content["prefix"],
            eos=content["eos"],
        )

    def directory(self, data: DataConfig, split: str) -> pathlib.Path:
        """Where the tokenised store of a split is, or would be."""
        assert data.cache_dir is not None
        return cache_directory(data.cache_dir, self.store, split)


def store_name(task: Task) -> str:
    """The folder of a task's stores; tasks over the same text share one."""
    return task.corpus if isinstance(task, TextTask) else task.name


def resolve_tasks(tasks: Sequence[Task], data: DataConfig) -> tuple[ResolvedTask, ...]:
    """The tasks with the settings of `data`. Raises ConfigError for a setting that is missing or
    has no effect on them, and when a row of a text task does not fit the lengths or sentinels."""
    _check_settings(tasks, data)
    resolved = tuple(resolve_task(task, data) for task in tasks)
    targets_length = find_targets_length(resolved, data)
    for task in resolved:
        if task.objective is not None:
            with objective_code(task.objective, f"task {task.name}"):
                task.objective.check(
                    inputs_length=data.inputs_length - len(task.prefix_ids),
                    targets_length=targets_length,
                    num_sentinels=data.vocabulary.num_sentinels,
                )
    return resolved


def resolve_task(task: Task, data: DataConfig) -> ResolvedTask:
    """A task's definition with the settings of `data`."""
    return _resolve_task(
        data,
        name=task.name,
        store=store_name(task),
        own_objective=task.objective,
        prefix=task.prefix,
        eos=task.eos if isinstance(task, SeqioTask) else {},
        definition=task,
    )


def _resolve_task(
    data: DataConfig, *, name: str, own_objective: Objective | None, prefix: str, **fields: Any
) -> ResolvedTask:
    objective = own_objective
    if own_objective is not None and data.objective is not None:
        objective = objectives.parse_objective(data.objective)
    return ResolvedTask(
        name=name,
        objective=objective,
        own_objective=own_objective,
        prefix=prefix,
        prefix_ids=tuple(data.vocabulary.encode(prefix).tolist()) if prefix else (),
        seed=derive_seed(data.seed, f"task/{name}"),
        **fields,
    )


def check_required(tasks: Iterable[Task], data: DataConfig) -> None:
    """Raises ConfigError for a setting that a task cannot be read without."""
    for task in tasks:
        for name in task.required:
            if not getattr(data, name):
                raise ConfigError(f"data.{name} is empty: {task.name} needs it")


def _check_settings(tasks: Sequence[Task], data: DataConfig) -> None:
    """Raises ConfigError for a setting that is missing, or has no effect on the tasks."""
    check_required(tasks, data)
    read = {name for task in tasks for name in task.settings}
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if field.name in SOURCE_SETTINGS and field.name not in read and value != field.default:
            raise ConfigError(
                f"data.{field.name}={value!r} has no effect on {data.mixture}: leave it out, "
                "or take another task"
            )
    texts = [task for task in tasks if task.objective is not None]
    for name in ("objective", "max_text_tokens"):
        if getattr(data, name) is not None and not texts:
            raise ConfigError(
                f"data.{name}={getattr(data, name)!r} has no effect on {data.mixture}, which "
                "has no task of plain text: leave it out"
            )
    if not data.pack and len(texts) == len(tasks):
        raise ConfigError(f"data.pack=False has no effect on {data.mixture}: leave it out")


def find_targets_length(tasks: Sequence[ResolvedTask], data: DataConfig) -> int:
    """`data.targets_length`, or the most that the text tasks' objectives make of the inputs.

    Raises ConfigError when nothing says how long the targets of a task with examples are.
    """
    if data.targets_length is not None:
        return data.targets_length
    names = [task.name for task in tasks if task.objective is None]
    if names:
        raise ConfigError(
            f"data.targets_length is not set, and {', '.join(names[:5])} has examples of its "
            "own: say how many tokens targets may have (T5: 84 for GLUE, 62 for SuperGLUE, 97 "
            "for SQuAD, 512 for translation and summaries)"
        )
    return max(
        lengths_of(task.objective, data.inputs_length - len(task.prefix_ids)).targets
        for task in tasks
        if task.objective is not None
    )
