"""The names of tasks and mixtures (those that t5jax brings, the user's own, and seqio's) and what
they are made of.

Nothing here imports TensorFlow: a task that was registered with seqio is found through
`seqio_bridge/tasks.py`, which is loaded when a user's module has imported seqio.
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from t5jax.data.config import DataConfig
from t5jax.data.modules import is_loading, load_entry_points, load_modules
from t5jax.data.store.directories import NAME_RULE, can_name_directory
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import Task
from t5jax.data.tensorflow_import import calling_module
from t5jax.data.tensorflow_import import registered_by as of_seqio_registered_by
from t5jax.errors import ConfigError

_own: dict[str, Task | Mixture] = {}
_places: dict[str, tuple[str, str]] = {}  # of `_own`: module, and `module (file:line)`


def add_task(task: Task) -> Task:
    """Registers a task of the user's own under its name; a second one of that name replaces it.

    Raises ConfigError for a name that cannot be a folder's, for one that t5jax brings, and where
    two modules of data.modules register the same.
    """
    return _add(task)


def add_mixture(mixture: Mixture) -> Mixture:
    """Registers a mixture of the user's own; its tasks may be registered later."""
    return _add(mixture)


def _add(entry: Any) -> Any:
    check_task_name(entry.name)
    if entry.name in builtin_names():
        raise ConfigError(f"{entry.name!r} is the name of a task or mixture of t5jax: take another")
    module, place = calling_module(__name__)
    first_module, first = _places.get(entry.name, (module, place))
    if is_loading() and first_module != module and first_module in sys.modules:
        raise ConfigError(
            f"{entry.name!r} is registered by {first}, and again by {place}: give one of them "
            "another name"
        )
    _own[entry.name], _places[entry.name] = entry, (module, place)
    return entry


def registered_by(name: str) -> str:
    """`module (file:line)` that registered a task or mixture, with t5jax or with seqio; "" where
    that is not known."""
    return _places[name][1] if name in _places else of_seqio_registered_by(name) or ""


def check_task_name(name: str) -> None:
    """Raises ConfigError for a name that cannot be a folder's everywhere."""
    if not can_name_directory(name):
        raise ConfigError(f"task name {name!r}: {NAME_RULE}")


def find_builtin(name: str) -> Task | Mixture | None:
    """The task or mixture that t5jax brings under a name."""
    from t5jax.data.registry import builtin as tables

    return tables.find_in_table(name)


def builtin_names() -> list[str]:
    from t5jax.data.registry import builtin as tables

    return list(tables.TABLE)


def own_names() -> list[str]:
    """Tasks and mixtures that were added by `add_task` and `add_mixture`."""
    return sorted(_own)


def find(name: str, data: DataConfig) -> Task | Mixture:
    """The task or mixture of a name: built-in, or registered by `data.modules`, an entry point or
    seqio. Raises ConfigError with near names when there is none."""
    found = find_builtin(name) or _own.get(name)
    if found is None:
        load_modules(data.modules)
        load_entry_points()
        found = _own.get(name) or _of_seqio(name, data)
    if found is None:
        raise ConfigError(unknown(name, data.modules))
    return found


def find_task(name: str, data: DataConfig) -> Task:
    """As `find`, for a single task. Raises ConfigError for a mixture."""
    found = find(name, data)
    if isinstance(found, Mixture):
        raise ConfigError(f"{name} is a mixture of several tasks: name one of its tasks")
    return found


class Definitions(NamedTuple):
    """What a name is made of; `mixture` is None where it is that of a single task."""

    name: str
    tasks: tuple[Task, ...]  # those of nested mixtures too, each once
    mixture: Mixture | None
    mixtures: Mapping[str, Mixture]  # by name: itself, those inside, and theirs


def definitions_of(name: str, data: DataConfig) -> Definitions:
    """The definitions of a task or mixture; TensorFlow is imported only for tasks registered with
    seqio. Raises ConfigError for an unknown name and for a module that fails."""
    tasks: dict[str, Task] = {}
    mixtures: dict[str, Mixture] = {}

    def add(name: str) -> None:
        found = find(name, data)
        if not isinstance(found, Mixture):
            tasks[found.name] = found
        elif name not in mixtures:
            mixtures[name] = found
            for part in found.tasks:
                add(part)

    add(name)
    return Definitions(name, tuple(tasks.values()), mixtures.get(name), mixtures)


def find_definitions(data: DataConfig) -> Definitions:
    """The definitions of `data.mixture`; the user's modules are imported. Raises as
    `definitions_of`, and ConfigError where no mixture is named."""
    if data.mixture is None:
        raise ConfigError(
            "data.mixture = None: the run has no task yet; name a task or mixture "
            "(--data.mixture NAME), `t5jax tasks` lists them"
        )
    load_modules(data.modules)
    return definitions_of(data.mixture, data)


def is_defined_here(data: DataConfig) -> bool:
    """Whether the mixture is defined without importing anything of the user's."""
    if data.mixture is None:
        return True  # and `find_definitions` says what is missing
    return find_builtin(data.mixture) is not None or data.mixture in own_names()


def check_name(data: DataConfig) -> None:
    """Raises ConfigError where no module can define `data.mixture`, and for modules that a built-in
    mixture does not need."""
    assert data.mixture is not None, "a run without a task has no definitions"
    check_task_name(data.mixture)
    if find_builtin(data.mixture) is not None:
        if data.modules:
            raise ConfigError(
                f"data.modules={data.modules} has no effect: {data.mixture} comes with t5jax; "
                "leave it empty"
            )
        return
    if data.modules or data.mixture in own_names():
        return
    near = difflib.get_close_matches(data.mixture, builtin_names(), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    load_entry_points()
    if data.mixture not in (*own_names(), *seqio_names()):
        raise ConfigError(
            f"data.mixture={data.mixture!r} is not a task or mixture of t5jax{hint}; `t5jax "
            "tasks` lists them; for one of your own name the module that registers it in "
            "data.modules"
        )


def unknown(name: str, modules: Sequence[str]) -> str:
    """What to say of a name that nothing has, once `modules` have been imported."""
    own = [*own_names(), *seqio_names()]
    near = difflib.get_close_matches(name, [*builtin_names(), *own], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    said = f"no task or mixture {name!r} is registered{hint}; `t5jax tasks` lists those of t5jax; "
    if not modules:
        return said + (
            "for one of your own name the module that registers it: --data.modules MODULE, or "
            "data.modules in the config"
        )
    found = ", ".join(own[:10]) + (", …" if len(own) > 10 else "") if own else "nothing"
    return f"{said}your own, after {', '.join(modules)} of data.modules: {found}"


def _of_seqio(name: str, data: DataConfig) -> Any:
    if "seqio" not in sys.modules:
        return None
    from t5jax.data.seqio_bridge import tasks as seqio_tasks

    return seqio_tasks.find_seqio_task(name, data)


def seqio_names() -> list[str]:
    """What is registered with seqio, where something has imported it; what t5jax itself has
    registered there (`t5jax.seqio`) is left out."""
    seqio = sys.modules.get("seqio")
    registries = (seqio.TaskRegistry, seqio.MixtureRegistry) if seqio else ()
    found = {name: one.get(name) for one in registries for name in one.names()}
    return sorted(
        name
        for name, provider in found.items()
        if not getattr(getattr(provider, "source", provider), "of_t5jax", False)
    )
