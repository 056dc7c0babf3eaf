"""What there is to train on, as a table: an entry for every task and mixture that has a name here.

Nothing is opened and TensorFlow is not imported, unless a module of the user's has imported seqio.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import Any, Literal

from t5jax.data import registry
from t5jax.data.benchmarks.classification import KeyedText
from t5jax.data.benchmarks.datasets import Dataset
from t5jax.data.benchmarks.sentinels import SENTINEL
from t5jax.data.benchmarks.supervised import BENCHMARKS
from t5jax.data.benchmarks.templates import Templates
from t5jax.data.benchmarks.translation import Translate, language_name
from t5jax.data.config import DataConfig
from t5jax.data.modules import load_entry_points, load_modules
from t5jax.data.objectives import OBJECTIVES, Objective
from t5jax.data.registry import builtin
from t5jax.data.registry.resolved_task import resolve_task
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import ExampleTask, SeqioTask, Task, TextTask
from t5jax.errors import ConfigError, DataError

TEXT, MIXTURES, OWN, OF_SEQIO = "plain text", "mixtures", "your own", "registered with seqio"
_OTHERS = "other tasks with examples"
_GROUPS = {task.name: title for title, module in BENCHMARKS for task in module.TASKS}
# What a function that makes examples says of them in front: `question: … context: …` -> …
_STATED = re.compile(r"\s*`([^`]+)`\s*->")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of the catalog. `num_examples` are those of the published training split;
    `source` is where the rows come from, "" where the description says it; `objective` is the one
    in force, `own_objective` what `data.objective` put it in place of; `input_format` is what the
    task's inputs look like, "" where it does not say; `settings` are the fields of the data section
    that it reads, `required` those that must be set."""

    name: str
    kind: Literal["text", "examples", "seqio", "mixture"]
    group: str
    description: str
    source: str = ""
    num_examples: int | None = None
    objective: str | None = None
    own_objective: str | None = None
    input_format: str = ""
    metrics: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()  # of a mixture
    registered_by: str = ""  # module, file and line, of one that does not come with t5jax


def entries(data: DataConfig) -> list[Entry]:
    """All tasks and mixtures, group by group: t5jax's, those of entry points, and what
    `data.modules` register, with t5jax or with seqio.

    Raises ConfigError for a module or entry point that fails.
    """
    load_modules(data.modules)
    load_entry_points()
    found = [entry(task) for task in builtin.TABLE.values()]
    own = (entry(registry.find(name, data)) for name in registry.own_names())
    found += [dataclasses.replace(one, group=OWN) for one in own]
    return sorted([*found, *_of_seqio(data.modules)], key=lambda one: _order(one.group))


def entry(found: Task | Mixture, data: DataConfig | None = None) -> Entry:
    """What is known of a task or mixture without opening its source; with the objective that the
    data section gives it, if there is one."""
    registered_by = registry.registered_by(found.name)
    if registry.find_builtin(found.name) is not None:
        registered_by = ""  # another package may have registered the same name with seqio
    if isinstance(found, Mixture):
        return Entry(
            registered_by=registered_by,
            name=found.name,
            kind="mixture",
            group=MIXTURES,
            description=found.description,
            tasks=found.tasks,
        )
    own, kind, group = found.objective, "examples", _GROUPS.get(found.name, _OTHERS)
    objective = own if data is None else resolve_task(found, data).objective
    if isinstance(found, TextTask):
        kind, group = "text", TEXT
    elif isinstance(found, SeqioTask):
        kind, group = "seqio", OF_SEQIO
    return Entry(
        registered_by=registered_by,
        name=found.name,
        kind=kind,
        group=group,
        description=found.description,
        num_examples=found.num_examples if isinstance(found, ExampleTask) else None,
        source=_source_of(found),
        objective=None if objective is None else short(objective),
        own_objective=None if own is None or own == objective else short(own),
        input_format=input_format(found),
        metrics=metric_names(found),
        splits=found.splits,
        settings=found.settings,
        required=found.required,
    )


def short(objective: Objective) -> str:
    """The first name that the table of objectives has for it, or all of its settings."""
    return next((name for name, known in OBJECTIVES.items() if known == objective), str(objective))


def input_format(task: Task) -> str:
    """What the inputs look like: `cola sentence: <sentence>`. "" where the task does not say.

    A user's own says it with the first words of the docstring of its `examples`, in backticks
    before an arrow.
    """
    if not isinstance(task, ExampleTask):
        return getattr(task, "prefix", "").strip()
    return _format_of(task.examples)


def metric_names(task: Task) -> tuple[str, ...]:
    """The names of the values that the task's metrics give."""
    if isinstance(task, TextTask):
        return ()
    if isinstance(task, ExampleTask):
        metrics: Any = task.metrics
    else:
        from t5jax.data.seqio_bridge.tasks import seqio_task

        own = seqio_task(task.name)
        try:
            functions, objects = own.metric_fns, own.metric_objs  # these hold the functions too
        except ValueError as error:  # seqio's, of a metric with other arguments
            raise ConfigError(f"task {task.name}: {error}") from error
        metrics = [*functions, *objects[: len(objects) - len(functions)]]
    names = [name for metric in metrics for name in _names_of(metric)]
    return tuple(dict.fromkeys(names))


def _source_of(task: Task) -> str:
    """Of a data set that lies below `data.datasets_dir` or in TFDS: where."""
    dataset = getattr(getattr(task, "source", None), "__self__", None)
    return dataset.where if isinstance(dataset, Dataset) else ""


def _format_of(examples: Any) -> str:
    examples = getattr(examples, "func", examples)  # of a functools.partial
    inner = getattr(examples, "examples", None)
    if inner is not None:  # a variant whose answer fills a sentinel
        stated = _format_of(inner)
        return f"{stated} {SENTINEL}" if stated else ""
    if isinstance(examples, KeyedText):
        return " ".join([examples.prefix, *(f"{c}: <{c}>" for c in examples.columns)])
    if isinstance(examples, Templates):
        return " ".join(examples.wordings[0].split())
    if isinstance(examples, Translate):
        source = language_name(examples.source_language)
        return f"translate {source} to {language_name(examples.target_language)}: <text>"
    stated = _STATED.match(getattr(examples, "__doc__", None) or "")
    return stated[1] if stated else ""


def _names_of(metric: Any) -> tuple[str, ...]:
    metric = getattr(metric, "func", metric)  # of a functools.partial
    return getattr(metric, "names", None) or (getattr(metric, "__name__", type(metric).__name__),)


def _of_seqio(modules: tuple[str, ...]) -> Iterator[Entry]:
    if "seqio" not in sys.modules:
        return
    from t5jax.data.seqio_bridge import tasks as seqio_tasks

    library, ours = seqio_tasks.seqio, {*builtin.TABLE, *registry.own_names()}
    names = set(registry.seqio_names()) - ours
    for name in sorted(names & set(library.TaskRegistry.names())):
        try:
            yield entry(seqio_tasks.task_from_seqio(seqio_tasks.seqio_task(name), modules))
        except (
            ConfigError,
            DataError,
        ) as error:  # one that cannot be used must not hide the others
            yield Entry(name=name, kind="seqio", group=OF_SEQIO, description=str(error))
    for name in sorted(names & set(library.MixtureRegistry.names())):
        tasks = tuple(task.name for task in library.MixtureRegistry.get(name).tasks)
        yield Entry(
            name=name,
            kind="mixture",
            group=OF_SEQIO,
            description="",
            tasks=tasks,
            registered_by=registry.registered_by(name),
        )


def _order(group: str) -> int:
    groups = (OWN, OF_SEQIO, TEXT, *dict.fromkeys(_GROUPS.values()), _OTHERS, MIXTURES)
    return groups.index(group)
