"""Tasks and mixtures registered with seqio as tasks of t5jax. Needs seqio and TensorFlow."""

from typing import Any

from t5jax.data.config import DataConfig
from t5jax.data.seqio_bridge.objects import find_provider, provider_of
from t5jax.data.seqio_bridge.steps import (
    divided_steps,
    features_of,
    function_of,
    own_methods,
    takes,
)
from t5jax.data.seqio_bridge.vocabularies import make_readable, our_vocabulary
from t5jax.data.tasks.mixture import Custom, Mixture
from t5jax.data.tasks.task import SeqioTask
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import ConfigError, DataError, message_of

seqio = import_seqio()
tf = import_tensorflow()


def find_seqio_task(name: str, data: DataConfig) -> SeqioTask | Mixture | None:
    """The task or mixture that is registered with seqio under a name, or is a variable of the
    config's modules; None when there is none.

    Raises ConfigError for a task whose vocabulary cannot be read or is not the config's, for
    features that are no rows of ids, and for rates that cannot be computed.
    """
    task = find_provider(name, data.modules)
    if task is None:
        return None
    if isinstance(task, seqio.Mixture):
        return _mixture(task)
    _check_features(task)
    for feature in _features(task).values():
        make_readable(feature.vocabulary, data.vocabulary, task.name)
        vocabulary = our_vocabulary(feature.vocabulary)
        if vocabulary.fingerprint != data.vocabulary.fingerprint:
            raise ConfigError(
                f"data.vocabulary={data.vocabulary} is not the one of task {task.name}, "
                f"{vocabulary}: they must agree"
            )
    return task_from_seqio(task, data.modules)


def seqio_task(name: str, modules: tuple[str, ...] = ()) -> Any:
    """The `seqio.Task` of a name; `modules`, which have been imported, may hold it."""
    return provider_of(name, modules)


def _features(task: Any) -> dict[str, Any]:
    return {name: task.output_features[name] for name in features_of(task)}


def _check_features(task: Any) -> None:
    """Raises ConfigError where inputs or targets are no rows of ids; other features train nothing,
    as seqio's feature converters leave them out."""
    if "targets" not in task.output_features:
        raise ConfigError(
            f"task {task.name} has the features {sorted(task.output_features)}: a model is trained "
            "on inputs and targets, or on targets alone; name them so in its output_features"
        )
    for name, feature in _features(task).items():
        if feature.rank != 1 or not feature.dtype.is_integer:
            raise ConfigError(
                f"task {task.name}: its feature {name} is {feature.dtype.name} of rank "
                f"{feature.rank}; a row of token ids (int32 of rank 1) is expected"
            )


def _mixture(mixture: Any) -> Mixture:
    """With the rates that seqio gives its tasks, those of mixtures inside included.

    Raises ConfigError for a mixture that does not draw by its rates: rows are drawn by the shares
    of their tasks, as `tf.data.Dataset.sample_from_datasets` draws them.
    """
    sample = mixture._sample_fn
    by_rates = (tf.data.Dataset.sample_from_datasets, tf.data.experimental.sample_from_datasets)
    own = own_methods(mixture, seqio.Mixture)
    if function_of(sample) not in by_rates or own:
        said = (
            f"its class {type(mixture).__name__} has a {own[0]} of its own"
            if own
            else f"its sample_fn is {seqio.utils.function_name(sample)}"
        )
        raise ConfigError(
            f"mixture {mixture.name}: {said}, and t5jax draws tasks by their rates alone: make it "
            "without (seqio.Mixture(name, tasks, rates)), and give t5jax.add_mixture a schedule "
            "where the rates change with the training step"
        )
    rates = {task.name: _rate(mixture, task) for task in mixture.tasks}
    return Mixture(name=mixture.name, tasks=tuple(rates), rate=Custom(weights=rates))


def _rate(mixture: Any, task: Any) -> float:
    try:
        rate = float(mixture.get_rate(task))
    except Exception as error:  # a rate may be any function of the task
        raise ConfigError(
            f"mixture {mixture.name}: the rate of task {task.name} failed: "
            f"{type(error).__name__}: {message_of(error)}; one by number of "
            "examples needs a source that states num_input_examples"
        ) from error
    if not 0.0 <= rate < float("inf"):
        raise ConfigError(f"mixture {mixture.name}: the rate of task {task.name} is {rate}")
    return rate


def splits_of(task: Any) -> tuple[str, ...]:
    """The splits of a task's source. Raises DataError where it cannot tell them, as a data set of
    TFDS that is not there."""
    try:
        return tuple(task.source.splits)
    except Exception as error:
        raise DataError(
            f"task {task.name}: its source does not tell its splits: {type(error).__name__}: "
            f"{message_of(error)}"
        ) from error


def task_from_seqio(task: Any, modules: tuple[str, ...]) -> SeqioTask:
    """A `seqio.Task` as a `SeqioTask`: its objective, EOS rules, whether it can be cached."""
    steps = divided_steps(task)
    return SeqioTask(
        name=task.name,
        description=f"{task.source} of seqio, {len(steps.stored)} steps before the cache",
        modules=modules,
        splits=splits_of(task),
        objective=steps.objective,
        eos=steps.eos,
        not_cacheable=steps.not_cacheable,
        needs_lengths=any(takes(step, "sequence_length") for step in steps.stored),
    )
