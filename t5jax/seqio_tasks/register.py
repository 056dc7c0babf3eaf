"""Registration with seqio: which names, under what names there, with which settings."""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.modules import load_entry_points, load_modules
from t5jax.data.objectives import OBJECTIVES
from t5jax.data.registry.corpora import CORPORA
from t5jax.data.registry.names import Definitions
from t5jax.data.registry.resolved_task import SOURCE_SETTINGS
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import SeqioTask, Task
from t5jax.data.tensorflow_import import import_seqio
from t5jax.data.vocabularies import (
    ByteVocabulary,
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
    named_vocabulary,
)
from t5jax.errors import ConfigError
from t5jax.seqio_tasks.mixtures import MixtureRates, mixture_for_seqio
from t5jax.seqio_tasks.tasks import task_for_seqio

seqio = import_seqio()

SETTINGS = (*SOURCE_SETTINGS, "modules", "objective", "on_bad_record", "max_bad_fraction")
_NOT_IN_NAMES = re.compile(r"[^\w.:#]")  # seqio's names have none of these
_REGISTRIES = (seqio.TaskRegistry, seqio.MixtureRegistry)


class _Mixed(NamedTuple):
    """A mixture that is registered: made again when one of its tasks is."""

    rates: MixtureRates
    seqio_names: Mapping[str, str]


_ours: dict[str, Any] = {}  # what is registered, by its name with seqio
_mixed: dict[str, _Mixed] = {}


def register(
    names: Iterable[str] | None = None,
    *,
    prefix: str = "",
    vocabulary: SentencePieceVocabulary | ByteVocabulary | HuggingFaceVocabulary | None = None,
    step: int | None = None,
    **settings: Any,
) -> list[str]:
    """Registers tasks and mixtures of t5jax with seqio; returns their names there.

    Args:
      names: any that a config's `data.mixture` may have; None: all that t5jax brings, those of
        `add_task` and `add_mixture`, and CORPUS:OBJECTIVE for every corpus and named objective. A
        mixture's tasks are registered with it.
      prefix: put before each name; characters that seqio does not allow become `_`.
      vocabulary: of inputs and targets; None: T5's published one.
      step: the training step whose rates mixtures take whose rates change.
      settings: fields of a config's data section: `datasets_dir`, `tfds_data_dir`, `train_files`,
        `modules`, `objective`, ...

    No file is opened. What was registered before is registered anew, with these settings; tasks
    that came from seqio stay as they are. Raises ConfigError for a name that somebody else has
    registered, an unknown one and an unknown setting.
    """
    if isinstance(names, str):
        raise ConfigError(f"names={names!r}: give a list of names")
    _check_settings(settings)
    data = DataConfig(
        mixture="all", vocabulary=vocabulary or named_vocabulary("t5"), cache_dir=None, **settings
    )
    data.check()
    load_modules(data.modules)
    if names is None:
        load_entry_points()
        names = _all_names()
    definitions = [registry.definitions_of(name, data) for name in dict.fromkeys(names)]
    tasks = {task.name: task for found in definitions for task in found.tasks}
    mixed = [found for found in definitions if found.mixture and _is_ours(found.name)]
    mixtures = {found.name: found.mixture for found in mixed if found.mixture}
    seqio_names = _seqio_names(tasks, mixtures, prefix)
    made = {seqio_names[k]: task for k, task in tasks.items() if not isinstance(task, SeqioTask)}
    _check_free({**made, **{seqio_names[name]: found for name, found in mixtures.items()}})
    for name, task in made.items():
        own = dataclasses.replace(data, mixture=task.name)
        _put(seqio.TaskRegistry, name, task_for_seqio(task, own, name))
    for found in mixed:
        _mixed[seqio_names[found.name]] = _mix(found, seqio_names, step)
    _make_mixtures({*made, *(seqio_names[name] for name in mixtures)})
    return [seqio_names[name] for name in (*tasks, *mixtures) if seqio_names[name] in _ours]


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"register has no setting {name!r}; {hint}it has {', '.join(SETTINGS)}"
            )


def _is_ours(name: str) -> bool:
    """Whether it is of t5jax, and not of what seqio has."""
    return registry.find_builtin(name) is not None or name in registry.own_names()


def _all_names() -> list[str]:
    objectives = [*OBJECTIVES, "ul2"]
    pairs = [f"{corpus}:{objective}" for corpus in CORPORA for objective in objectives]
    return [*registry.builtin_names(), *registry.own_names(), *pairs]


def _seqio_names(
    tasks: Mapping[str, Task], mixtures: Mapping[str, Mixture], prefix: str
) -> dict[str, str]:
    """Names with seqio by names of t5jax. Raises ConfigError where two become the same."""
    found: dict[str, str] = {}
    for name in (*tasks, *mixtures):
        is_there = isinstance(tasks.get(name), SeqioTask)
        found[name] = name if is_there else _NOT_IN_NAMES.sub("_", prefix + name)
    first: dict[str, str] = {}
    for name, there in found.items():
        if first.setdefault(there, name) != name:
            raise ConfigError(
                f"{first[there]} and {name} would both be {there} with seqio: rename one"
            )
    return found


def _check_free(made: Mapping[str, Task | Mixture]) -> None:
    """Raises ConfigError for names that somebody else has registered."""
    taken = [
        (library, name)
        for library in _REGISTRIES
        for name in made
        if name in library.names() and library.get(name) is not _ours.get(name)
    ]
    if taken:
        library, name = taken[0]
        others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise ConfigError(
            f"{name!r}{others} is registered with seqio already, as "
            f"{_described(library.get(name))}; t5jax's is {made[name].description!r}. Import one "
            "of the two (T5's package `t5` registers T5's names), or give t5jax's others: from "
            "t5jax.seqio_tasks import register; register(prefix='t5jax_')"
        )


def _described(provider: Any) -> str:
    if isinstance(provider, seqio.Mixture):
        names = [task.name for task in provider.tasks]
        return f"a mixture of {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    return f"a task over {provider.source}"


def _mix(found: Definitions, seqio_names: Mapping[str, str], step: int | None) -> _Mixed:
    assert found.mixture is not None, found.name
    rates = MixtureRates(
        mixture=found.mixture,
        tasks={task.name: task for task in found.tasks},
        nested={k: inside for k, inside in found.mixtures.items() if k != found.name},
        step=step,
    )
    return _Mixed(rates, {task.name: seqio_names[task.name] for task in found.tasks})


def _make_mixtures(changed: set[str]) -> None:
    """Registers the mixtures that are new, and those that hold a task that is."""
    for name, (rates, seqio_names) in _mixed.items():
        if changed & {name, *seqio_names.values()}:
            _put(seqio.MixtureRegistry, name, mixture_for_seqio(rates, name, seqio_names))


def _put(library: Any, name: str, provider: Any) -> None:
    """Registers, in place of what t5jax had registered under the name."""
    for one in _REGISTRIES:
        if name in _ours and name in one.names() and one.get(name) is _ours[name]:
            one.remove(name)
    library.add_provider(name, provider)
    _ours[name] = provider
