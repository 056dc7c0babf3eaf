"""The `tf.data` data sets of a seqio task, as `Task.get_dataset` makes them, one example a time.

Every step is given what seqio gives it (`sequence_length`, `output_features`, seeds). Examples come
in the order of the source; trimming to the lengths is left to the reader, who counts it.
"""

import contextlib
import functools
import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from t5jax.data.records import BadRecordPolicy, Rejected
from t5jax.data.seqio_bridge.steps import ends_after_trim, features_of
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.errors import ConfigError, DataError, message_of

seqio = import_seqio()

_log = logging.getLogger("t5jax")
_RANDOM = ("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal",
           "RandomShuffle", "RandomGamma", "RandomPoissonV2", "Multinomial")  # fmt: skip
_MOST_IN_A_ROW = 1000  # examples that fail: a data set that only fails would be asked for ever

Lengths = Mapping[str, int | None]
Example = dict[str, Any]  # arrays and bytes, by feature


def stored_dataset(task: Any, steps: list[Any], split: str, lengths: Lengths | None) -> Any:
    """What these steps leave; random ones draw the same every time."""
    dataset = task.source.get_dataset(split, shuffle=False)
    with seqio.map_seed_manager(0):
        for step in steps:
            dataset = seqio.add_kwargs_to_transform(
                step, sequence_length=lengths, output_features=task.output_features
            )(dataset)
    return dataset


def whole_dataset(task: Any, split: str, lengths: Lengths | None, seed: int) -> Any:
    """What all steps leave, EOS included, untrimmed but for the steps' own trimming.

    A placeholder that requires seqio's cache does not stop it (the steps before it are run), nor
    does a source whose function takes no seed.
    """
    takes_seed = _takes_seed(task.source)
    if takes_seed and not task.requires_caching:
        return task.get_dataset(
            lengths,
            split,
            use_cached=False,
            shuffle=False,
            seed=seed,
            trim_output_features=False,
            try_in_mem_cache=False,
        )
    of_source = {"seed": seed} if takes_seed else {}
    dataset = task.source.get_dataset(split=split, shuffle=False, **of_source)
    dataset = task.preprocess_precache(dataset, seed=seed)
    return task.preprocess_postcache(dataset, sequence_length=lengths, seed=seed)


def warn_of_ignored(task: Any, dataset: Any) -> None:
    """Says, once a process, what of the task cannot be as its author may expect it."""
    if task.shuffle_buffer_size is None and not task.source.performs_internal_shuffling:
        _warn_once(
            f"task {task.name}: its shuffle_buffer_size is None, which forbids shuffling to seqio; "
            "t5jax trains on its rows in an order of its own (evaluation keeps the source's)"
        )
    if drawing := _draws_without_seed(dataset):
        _warn_once(
            f"task {task.name}: its steps draw random numbers without a seed "
            f"({', '.join(drawing)}): a store keeps one draw for all epochs, and rows made live "
            "differ in every process and after a resume; seqio.map_over_dataset(num_seeds=1) gives "
            "a step its seeds"
        )


@functools.cache
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


def _draws_without_seed(dataset: Any) -> list[str]:
    """Random operations of TensorFlow, without a seed, in the steps that made a data set."""
    found, waiting = set(), [dataset]
    while waiting:
        one = waiting.pop()
        waiting += one._inputs()
        for step in one._functions():
            graph = step.function.graph.as_graph_def()
            nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
            found |= {n.op for n in nodes if n.op in _RANDOM and not _is_seeded(n)}
    return sorted(found)


def _is_seeded(node: Any) -> bool:
    return any(node.attr[name].i for name in ("seed", "seed2"))


def _takes_seed(source: Any) -> bool:
    """False for a `seqio.FunctionDataSource` of a function that seqio cannot give one."""
    function = getattr(source, "_dataset_fn", None)
    if function is None:
        return True
    return tuple(inspect.signature(function).parameters)[:3] == ("split", "shuffle_files", "seed")


def without_last_trim(task: Any) -> Any:
    """The task; where its last step trims before it adds EOS, one that leaves examples whole, so
    that what is cut can be counted."""
    if not ends_after_trim(task) or type(task) is not seqio.Task:
        return task
    *steps, last = task.preprocessors
    return task.replace(preprocessors=[*steps, functools.partial(last, sequence_length=None)])


def trimmed(ids: np.ndarray, limit: int | None, eos_id: int | None) -> np.ndarray:
    """The first `limit` ids, the last of them EOS where `eos_id` says which."""
    if limit is None or len(ids) <= limit:
        return ids
    return ids[:limit] if eos_id is None else np.append(ids[: limit - 1], eos_id).astype(ids.dtype)


def examples_of(
    make: Any,
    task: Any,
    split: str,
    policy: BadRecordPolicy | None = None,
    rejected: Rejected | None = None,
) -> Iterator[Example]:
    """The examples of the data set that `make()` gives.

    Raises DataError naming task, split and example for whatever the task's own code raises, and for
    features that are no rows of ids. Under the policy "skip" an example that a step fails on is
    left out and counted; where nothing comes after it, as a source that breaks off.
    """
    policy, rejected = policy or BadRecordPolicy(), Rejected() if rejected is None else rejected
    failures: list[str] = []
    waiting: list[str] = []  # failures since the last example
    done = 0
    with _code_of_task(task, split, None):
        examples = make().as_numpy_iterator()
    while True:
        try:
            with _code_of_task(task, split, done):
                example = next(examples, None)
        except DataError as error:
            fails_alone = isinstance(error.__cause__, import_tensorflow().errors.OpError)
            if policy.policy == "error" or not fails_alone or len(waiting) == _MOST_IN_A_ROW:
                raise
            waiting.append(str(error))
            continue
        if example is None:
            break
        failures += waiting
        for line in waiting:
            rejected.add(*line.split(": ", 1))
        waiting.clear()
        yield example
        done += 1
    if waiting:
        rejected.add_file(f"{waiting[-1]}; nothing came after it")
    policy.check_share(len(failures), done + len(failures), failures)


@contextlib.contextmanager
def _code_of_task(task: Any, split: str, done: int | None) -> Iterator[None]:
    """The boundary around the author's steps and source, which may raise anything."""
    try:
        yield
    except (ConfigError, DataError):
        raise
    except Exception as error:
        where = f", after example {done - 1}" if done else ""
        of_graph = isinstance(error, import_tensorflow().errors.OpError)
        said = error.message if of_graph else f"{type(error).__name__}: {message_of(error)}"  # pyright: ignore
        raise DataError(f"task {task.name}, split {split!r}{where}: {said}") from error


def check_ids(ids: np.ndarray, name: str, task: Any, place: str, *, least: int = 1) -> None:
    """Raises DataError for an id that a feature's vocabulary does not have."""
    size = task.output_features[name].vocabulary.vocab_size
    wrong = ids[(ids < least) | (ids >= size)]
    if len(wrong):
        raise DataError(
            f"{place}: its steps leave the id {wrong[0]} in {name}; ids of tokens are 1 to "
            f"{size - 1} (0 is padding)"
        )


def check_rows_of_ids(spec: Mapping[str, Any], task: Any) -> None:
    """Raises DataError unless inputs and targets, those that the task has, are rows of integers."""
    for name in features_of(task):
        found = spec.get(name)
        if found is None or not found.dtype.is_integer or found.shape.rank != 1:
            missing = found is None and not task.output_features[name].required
            raise DataError(
                f"task {task.name}: its steps leave {name} = {found}; a row of token ids is "
                "expected" + (f" (or leave {name} out of its output_features)" if missing else "")
            )
