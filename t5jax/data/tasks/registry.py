"""seqio's registry of tasks: the built-in ones, the user's own, and what the acts ask of them.

seqio and TensorFlow are imported by the functions that need them, so a list of the built-in tasks
costs nothing.
"""

import dataclasses
import difflib
import functools
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from t5jax.data.objectives import SpanCorruption
from t5jax.data.sources import Source
from t5jax.data.tasks.builtin import BUILTIN_TASKS, check_task_name
from t5jax.data.tf_runtime import import_seqio, import_tensorflow
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError, DataError

if TYPE_CHECKING:
    from t5jax.data.config import DataConfig

_ONLY_SHARD = "all"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskRow:
    """One line of `t5jax tasks`."""

    name: str
    source: str
    splits: tuple[str, ...]
    vocabulary: str
    objective: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """One example, ids and their text."""

    inputs: list[int]
    targets: list[int]
    inputs_text: str
    targets_text: str


def load_modules(modules: Sequence[str]) -> None:
    """Imports the user's modules, which register tasks. The working directory is searched as well.

    Raises ConfigError naming the module when it is not found or fails.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if modules:
        import_seqio()  # they will: here it comes without TensorFlow's banner
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"module {name} of data.modules imports {error.name!r}, which is not installed"
                ) from error
            raise ConfigError(
                f"data.modules names {name!r}, but there is no such module in {os.getcwd()} or "
                "where Python looks"
            ) from error
        except Exception as error:
            raise ConfigError(
                f"module {name} of data.modules failed: {type(error).__name__}: {error}"
            ) from error


def register(data: "DataConfig") -> Any:
    """Registers the built-in task of a config under its name and returns it, a `seqio.Task`.

    A task of that name that was registered before, with other files perhaps, is replaced.
    """
    seqio = import_seqio()
    from t5jax.data.tasks.seqio_adapters import TextDataSource, TextVocabulary
    from t5jax.data.tasks.span_corruption import SpanCorruptionPreprocessor

    task = BUILTIN_TASKS[data.mixture]
    vocabulary = TextVocabulary(data.vocabulary)
    seqio.TaskRegistry.remove(task.name)
    source = task.source(data)
    return seqio.TaskRegistry.add(
        task.name,
        source=TextDataSource(source, splits=None if task.required else task.splits),
        preprocessors=[
            text_to_targets,
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
            seqio.CacheDatasetPlaceholder(),
            SpanCorruptionPreprocessor(task.objective),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={
            name: seqio.Feature(vocabulary, add_eos=True) for name in ("inputs", "targets")
        },
    )


def text_to_targets(dataset):
    """`{"text": …}` -> `{"inputs": "", "targets": …}`: where T5's objectives look for the text."""
    return import_seqio().preprocessors.rekey(dataset, key_map={"inputs": None, "targets": "text"})


def seqio_task(data: "DataConfig") -> Any:
    """The `seqio.Task` of a config: built-in, or registered by one of `data.modules`."""
    if data.mixture in BUILTIN_TASKS:
        return register(data)
    load_modules(data.modules)
    return registered_task(data.mixture)


def registered_task(name: str) -> Any:
    """The task registered under a name. Raises ConfigError when there is none, or it is a
    mixture."""
    check_task_name(name)
    seqio = import_seqio()
    if name in seqio.TaskRegistry.names():
        task = seqio.TaskRegistry.get(name)
        for feature in task.output_features.values():
            if path := _absent_file(feature.vocabulary):
                raise ConfigError(
                    f"task {name}: its vocabulary {path} cannot be read from {os.getcwd()}"
                )
        return task
    if name in seqio.MixtureRegistry.names():
        raise ConfigError(
            f"{name} is a mixture of several tasks; only single tasks are supported yet: name one "
            "of them"
        )
    known = sorted({*BUILTIN_TASKS, *seqio.TaskRegistry.names()})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    raise ConfigError(
        f"no task {name!r} is registered ({hint}); name the module that registers it in "
        "data.modules"
    )


def _absent_file(vocabulary: Any) -> str | None:
    """The vocabulary's file if it is not there: seqio looks when it first needs it, wherever
    that is."""
    path = getattr(vocabulary, "sentencepiece_model_file", None)
    return path if path and not import_tensorflow().io.gfile.exists(path) else None


def task_source(
    name: str, *, modules: tuple[str, ...] = ()
) -> tuple[Source, SpanCorruption, Vocabulary]:
    """(documents, objective, vocabulary) of a registered task, for the token cache.

    `modules` are what another process has to import to find the task again. Raises ConfigError for
    a task that the cache cannot stand for: its preprocessors must be text steps,
    `seqio.preprocessors.tokenize`, optionally `CacheDatasetPlaceholder`, our
    `SpanCorruptionPreprocessor` and one that appends EOS, in this order.
    """
    from t5jax.data.tasks.seqio_adapters import TextDataSource, our_vocabulary

    task = registered_task(name)
    text_steps, objective = split_preprocessors(task)
    vocabulary = our_vocabulary(task.output_features["targets"].vocabulary)
    if isinstance(task.source, TextDataSource) and text_steps == [text_to_targets]:
        return task.source.source, objective, vocabulary
    return TaskDocuments(name=name, modules=modules), objective, vocabulary


def split_preprocessors(task: Any) -> tuple[list[Any], SpanCorruption]:
    """(the steps before `tokenize`, the objective) of a task. Raises ConfigError as `task_source`
    says."""
    seqio = import_seqio()
    from t5jax.data.tasks.span_corruption import SpanCorruptionPreprocessor

    def function(step: Any) -> Any:
        return step.func if isinstance(step, functools.partial) else step

    steps = list(task.preprocessors)
    functions = [function(step) for step in steps]
    corruptions = [step for step in steps if isinstance(step, SpanCorruptionPreprocessor)]
    library = seqio.preprocessors
    if len(corruptions) != 1 or library.tokenize not in functions:
        raise ConfigError(
            f"task {task.name} cannot be cached for pretraining: its preprocessors must contain "
            "seqio.preprocessors.tokenize and, after it, one "
            "t5jax.data.tasks.span_corruption.SpanCorruptionPreprocessor"
        )
    place = functions.index(library.tokenize)
    rest = [
        step
        for step in functions[place + 1 :]
        if not isinstance(step, seqio.CacheDatasetPlaceholder)
    ]
    if rest[:1] != corruptions or rest[1:] not in (
        [library.append_eos],
        [library.append_eos_after_trim],
    ):
        raise ConfigError(
            f"task {task.name} cannot be cached for pretraining: after "
            "seqio.preprocessors.tokenize only "
            "SpanCorruptionPreprocessor and then append_eos_after_trim may follow; the cache would "
            "leave out the rest"
        )
    return steps[:place], corruptions[0].objective


@dataclasses.dataclass(kw_only=True, slots=True)
class TaskDocuments:
    """The text that a registered task tokenises, through its own source and text steps; one shard a
    split."""

    name: str
    modules: tuple[str, ...] = ()

    def splits(self) -> tuple[str, ...]:
        """Splits of the task's source."""
        return tuple(self._task().source.splits)

    def shards(self, split: str) -> list[str]:
        """One shard. Raises DataError for an unknown split."""
        if split not in self.splits():
            raise DataError(
                f"task {self.name} has no split {split!r}: choose one of {list(self.splits())}"
            )
        return [_ONLY_SHARD]

    def documents(self, split: str, shard: str) -> Iterator[str]:
        """The `targets` strings before tokenisation. Raises DataError for anything that is not
        one."""
        if shard not in self.shards(split):
            raise DataError(f"task {self.name} has one shard, {_ONLY_SHARD!r}, not {shard!r}")
        tensorflow, seqio = import_tensorflow(), import_seqio()
        task = self._task()
        dataset = task.source.get_dataset(split, shuffle=False)
        with seqio.map_seed_manager(0):  # steps with random numbers give the same text every time
            for step in split_preprocessors(task)[0]:
                dataset = seqio.add_kwargs_to_transform(step, output_features=task.output_features)(
                    dataset
                )
        if dataset.element_spec.get("targets") != tensorflow.TensorSpec([], tensorflow.string):
            raise DataError(
                f"task {self.name}: the steps before tokenize must leave one string under 'targets'"
            )
        number = 0
        try:
            for example in dataset.as_numpy_iterator():
                yield example["targets"].decode("utf-8")
                number += 1
        except UnicodeDecodeError as error:
            raise DataError(
                f"task {self.name}, {split} example {number}: not valid UTF-8: {error}"
            ) from error
        except tensorflow.errors.OpError as error:
            raise DataError(
                f"task {self.name}, {split}, after example {number}: {error.message}"
            ) from error

    def _task(self) -> Any:
        load_modules(self.modules)
        return registered_task(self.name)


def list_tasks(modules: Sequence[str] = ()) -> list[TaskRow]:
    """The built-in tasks and, when modules are named, every task that is registered after importing
    them."""
    rows = [
        TaskRow(
            name=task.name,
            source=task.description,
            splits=task.splits,
            vocabulary="of the config",
            objective=str(task.objective),
        )
        for task in BUILTIN_TASKS.values()
    ]
    if not modules:
        return rows
    load_modules(modules)
    registry = import_seqio().TaskRegistry
    return rows + [
        _row(registry.get(name)) for name in sorted(registry.names()) if name not in BUILTIN_TASKS
    ]


def _row(task: Any) -> TaskRow:
    try:
        objective = str(split_preprocessors(task)[1])
    except ConfigError:
        objective = "not cacheable: " + " -> ".join(_step_name(step) for step in task.preprocessors)
    vocabularies = {name: _vocabulary(feature) for name, feature in task.output_features.items()}
    return TaskRow(
        name=task.name,
        source=str(task.source),
        splits=tuple(task.source.splits),
        vocabulary="; ".join(sorted(set(vocabularies.values()))),
        objective=objective,
    )


def _vocabulary(feature: Any) -> str:
    absent = _absent_file(feature.vocabulary)
    return f"{absent} (not there)" if absent else str(feature.vocabulary)


def _step_name(step: Any) -> str:
    step = step.func if isinstance(step, functools.partial) else step
    return getattr(step, "__name__", type(step).__name__)


def preview(data: "DataConfig", *, split: str = "train", num_examples: int = 3) -> list[Preview]:
    """The first examples that seqio makes of the config's task, in the order of its files."""
    from t5jax.data.tasks.seqio_adapters import our_vocabulary

    task = seqio_task(data)
    _, objective = split_preprocessors(task)
    lengths: Mapping[str, int] = {
        "inputs": data.inputs_length,
        "targets": data.targets_length_for(objective),
    }
    vocabulary = our_vocabulary(task.output_features["targets"].vocabulary)
    examples = task.get_dataset(lengths, split, shuffle=False, seed=data.seed).take(num_examples)
    return [
        Preview(
            inputs=example["inputs"].tolist(),
            targets=example["targets"].tolist(),
            inputs_text=vocabulary.decode(example["inputs"]),
            targets_text=vocabulary.decode(example["targets"]),
        )
        for example in examples.as_numpy_iterator()
    ]
