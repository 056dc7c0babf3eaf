"""Tasks and mixtures registered with seqio as tasks of t5jax. Needs seqio and TensorFlow."""

import functools
import os
from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.objectives import Objective
from t5jax.data.seqio_bridge.span_corruption import SpanCorruptionPreprocessor
from t5jax.data.seqio_bridge.vocabularies import our_vocabulary
from t5jax.data.tasks.mixture import Custom, Mixture
from t5jax.data.tasks.task import EosRule, SeqioTask
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import ConfigError

seqio = import_seqio()


def find_seqio_task(name: str, data: DataConfig) -> SeqioTask | Mixture | None:
    """The task or mixture that is registered with seqio under a name; None when there is none.

    Raises ConfigError for a task whose vocabulary is not the config's.
    """
    if name in seqio.MixtureRegistry.names():
        return _mixture(seqio.MixtureRegistry.get(name))
    if name not in seqio.TaskRegistry.names():
        return None
    task = seqio_task(name)
    for feature in task.output_features.values():
        vocabulary = our_vocabulary(feature.vocabulary)
        if vocabulary.fingerprint != data.vocabulary.fingerprint:
            raise ConfigError(
                f"data.vocabulary={data.vocabulary} is not the one of task {name}, {vocabulary}: "
                "they must agree"
            )
    return task_from_seqio(task, data.modules)


def _mixture(mixture: Any) -> Mixture:
    rates = {task.name: float(mixture.get_rate(task)) for task in mixture.tasks}
    return Mixture(name=mixture.name, tasks=tuple(rates), rate=Custom(weights=rates))


def seqio_task(name: str) -> Any:
    """The `seqio.Task` of a name. Raises ConfigError when its vocabulary's file is not there: seqio
    looks when it first needs it, wherever that is."""
    task = seqio.TaskRegistry.get(name)
    for feature in task.output_features.values():
        path = getattr(feature.vocabulary, "sentencepiece_model_file", None)
        if path and not import_tensorflow().io.gfile.exists(path):
            raise ConfigError(
                f"task {name}: its vocabulary {path} cannot be read from {os.getcwd()}"
            )
    return task


def task_from_seqio(task: Any, modules: tuple[str, ...]) -> SeqioTask:
    """A `seqio.Task` as a `SeqioTask`: its objective, EOS rules, whether it can be cached."""
    steps, objective, eos, problem = _cut(task)
    return SeqioTask(
        name=task.name,
        description=f"{task.source} of seqio, {len(steps)} steps before the cache",
        modules=modules,
        splits=tuple(task.source.splits),
        objective=objective,
        eos=eos,
        not_cacheable=problem,
    )


def cached_steps(task: Any) -> list[Any]:
    """The preprocessors whose results the tokenised store keeps. With an objective the text before
    `tokenize`, otherwise everything up to `CacheDatasetPlaceholder`, or to `tokenize`."""
    return _cut(task)[0]


def _cut(task: Any) -> tuple[list[Any], Objective | None, dict[str, EosRule], str | None]:
    """(steps before the cache, objective, EOS by feature, why it cannot be cached)."""
    steps, library = list(task.preprocessors), seqio.preprocessors
    functions = [_function(step) for step in steps]
    no_eos: dict[str, EosRule] = dict.fromkeys(task.output_features, "none")
    objectives = [step for step in steps if isinstance(step, SpanCorruptionPreprocessor)]
    places = [n for n, step in enumerate(steps) if isinstance(step, seqio.CacheDatasetPlaceholder)]
    if library.tokenize not in functions:
        return steps, None, no_eos, "it has no seqio.preprocessors.tokenize"
    tokenize = functions.index(library.tokenize)
    cut = tokenize + 1 if objectives or not places else places[0]
    after = [n for n in range(cut, len(steps)) if n not in places]
    if objectives and steps[after[0]] is objectives[0]:
        cut, after = tokenize, after[1:]
    elif objectives:
        return steps, None, no_eos, "SpanCorruptionPreprocessor must follow seqio's tokenize"
    rules: dict[Any, EosRule] = {
        library.append_eos_after_trim: "after_trim",
        library.append_eos: "before_trim",
    }
    if len(after) > 1 or any(functions[n] not in rules for n in after):
        names = ", ".join(_name(steps[n]) for n in after)
        return steps, None, no_eos, f"after what is cached only EOS may be added, not {names}"
    rule: EosRule = rules[functions[after[0]]] if after else "none"
    eos: dict[str, EosRule] = {
        name: rule if feature.add_eos else "none" for name, feature in task.output_features.items()
    }
    if objectives:
        if set(eos.values()) == {"none"}:
            return steps, None, no_eos, "SpanCorruptionPreprocessor must be followed by append_eos"
        return steps[:cut], objectives[0].objective, eos, None
    if set(task.output_features) != {"inputs", "targets"}:
        return steps, None, eos, f"its features are {sorted(eos)}, not inputs and targets"
    return steps[:cut], None, eos, None


def _function(step: Any) -> Any:
    return step.func if isinstance(step, functools.partial) else step


def _name(step: Any) -> str:
    step = _function(step)
    return getattr(step, "__name__", type(step).__name__)
