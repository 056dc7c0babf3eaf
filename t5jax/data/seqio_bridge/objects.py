"""seqio tasks and mixtures by name: registered, or variables of the user's modules."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from t5jax.data.tensorflow_import import import_seqio, registered_by
from t5jax.errors import ConfigError

seqio = import_seqio()

_found: dict[str, Any] = {}  # variables that were asked for, by the names of their objects


def find_provider(name: str, modules: Sequence[str]) -> Any | None:
    """The `seqio.Task` or `seqio.Mixture` of a name: registered, or an object of one of the
    modules: by its own name, its variable's, or `module.variable`.

    Raises ConfigError for an object that has the name of another one.
    """
    registered = _registered(name)
    if registered is not None:
        return registered
    found = [(place, x) for place, names, x in _objects(modules) if name in names]
    if not found:
        return None
    place, provider = found[0]
    for other_place, other in found[1:]:
        if other is not provider:
            raise ConfigError(
                f"{name} is a task of {place} and another one of {other_place}: rename one of "
                "them (task.replace(name=...))"
            )
    for task in (provider, *getattr(provider, "tasks", ())):
        _keep(task, place)
    return provider


def provider_of(name: str, modules: Sequence[str] = ()) -> Any:
    """The same for a name that is known to be there."""
    found = _registered(name) or _found.get(name) or find_provider(name, modules)
    if found is None:
        raise ConfigError(f"no task {name} is registered with seqio by {', '.join(modules)}")
    return found


def _keep(provider: Any, place: str) -> None:
    """Remembers an object under its own name, which no other may have."""
    other = _registered(provider.name)
    if other is not None and other is not provider:
        raise ConfigError(
            f"{place} has the name {provider.name!r} of the task that is registered by "
            f"{registered_by(provider.name) or 'another module'}: give it its own "
            "(task.replace(name=...))"
        )
    _found[provider.name] = provider


def _registered(name: str) -> Any | None:
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
        if name in registry.names():
            return registry.get(name)
    return None


def _objects(modules: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """(module.variable, names that it is found by, object), of variables and of the tasks that
    mixtures among them hold."""
    for module in modules:
        variables = getattr(sys.modules.get(module), "__dict__", {})
        for variable, value in list(variables.items()):
            if not isinstance(value, seqio.Task | seqio.Mixture):
                continue
            place = f"{module}.{variable}"
            yield place, (value.name, variable, place), value
            for task in getattr(value, "tasks", ()):
                yield f"{place}, task {task.name}", (task.name,), task
