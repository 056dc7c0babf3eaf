"""Definitions of a mixture: its tasks, its rates and the mixtures inside it, by name."""

import difflib
from collections.abc import Mapping
from typing import NamedTuple

from t5jax.data.config import DataConfig
from t5jax.data.modules import load_entry_points, load_modules
from t5jax.data.registry import names
from t5jax.data.tasks.mixture import Mixture
from t5jax.data.tasks.task import Task
from t5jax.errors import ConfigError


class Definitions(NamedTuple):
    """`mixture` is None where the name is that of a single task; `nested` are mixtures inside."""

    name: str
    tasks: tuple[Task, ...]
    mixture: Mixture | None
    nested: Mapping[str, Mixture]


def find_definitions(data: DataConfig) -> Definitions:
    """The definitions of `data.mixture`; the user's modules are imported, TensorFlow only for tasks
    registered with seqio.

    Raises ConfigError for an unknown name and for a module that fails.
    """
    load_modules(data.modules)
    found = names.find(data.mixture, data)
    mixture = found if isinstance(found, Mixture) else None
    nested = {} if mixture is None else names.mixtures_within(mixture, data)
    return Definitions(data.mixture, tuple(names.tasks_of(data.mixture, data)), mixture, nested)


def is_defined_here(data: DataConfig) -> bool:
    """Whether the mixture is defined without importing anything of the user's."""
    return names.find_builtin(data.mixture) is not None or data.mixture in names.own_names()


def check_name(data: DataConfig) -> None:
    """Raises ConfigError where no module can define `data.mixture`, and for modules that a built-in
    mixture does not need."""
    names.check_task_name(data.mixture)
    if names.find_builtin(data.mixture) is not None:
        if data.modules:
            raise ConfigError(
                f"data.modules={data.modules} has no effect: {data.mixture} comes with t5jax; "
                "leave it empty"
            )
        return
    if data.modules or data.mixture in names.own_names():
        return
    near = difflib.get_close_matches(data.mixture, names.builtin_names(), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    load_entry_points()
    if data.mixture not in (*names.own_names(), *names.seqio_names()):
        raise ConfigError(
            f"data.mixture={data.mixture!r} is not a task or mixture of t5jax{hint}; `t5jax "
            "tasks` lists them; for one of your own name the module that registers it in "
            "data.modules"
        )
