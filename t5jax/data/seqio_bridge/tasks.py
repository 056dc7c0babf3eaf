"""Tasks and mixtures registered with seqio as tasks of t5jax. Needs seqio and TensorFlow."""

import os
from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.seqio_bridge.steps import divided_steps, takes
from t5jax.data.seqio_bridge.vocabularies import our_vocabulary
from t5jax.data.tasks.mixture import Custom, Mixture
from t5jax.data.tasks.task import SeqioTask
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
    steps = divided_steps(task)
    return SeqioTask(
        name=task.name,
        description=f"{task.source} of seqio, {len(steps.stored)} steps before the cache",
        modules=modules,
        splits=tuple(task.source.splits),
        objective=steps.objective,
        eos=steps.eos,
        not_cacheable=steps.not_cacheable,
        needs_lengths=any(takes(step, "sequence_length") for step in steps.stored),
    )
