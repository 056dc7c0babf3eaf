"""The names of tasks and mixtures: those that t5jax brings, the user's own, and seqio's.

Nothing here imports TensorFlow: a task that was registered with seqio is found through
`seqio_tasks.py`, which is loaded when a user's module has imported seqio.
"""

import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from t5jax.data.tasks.mixtures import Mixture
from t5jax.data.tasks.task import Task
from t5jax.data.tf_runtime import import_seqio
from t5jax.data.token_store import NAME_RULE, can_name_directory
from t5jax.errors import ConfigError

if TYPE_CHECKING:
    from t5jax.data.config import DataConfig

ENTRY_POINTS = "t5jax.tasks"  # group of the entry points that name modules which register tasks

_own: dict[str, Task | Mixture] = {}


def add_task(task: Task) -> Task:
    """Registers a task of the user's own under its name; a second one of that name replaces it.

    Raises ConfigError for a name that cannot be a folder's, and for one that t5jax brings.
    """
    return _add(task)


def add_mixture(mixture: Mixture) -> Mixture:
    """Registers a mixture of the user's own; its tasks may be registered later."""
    return _add(mixture)


def _add(entry: Any) -> Any:
    check_task_name(entry.name)
    if entry.name in builtin_names():
        raise ConfigError(f"{entry.name!r} is the name of a task or mixture of t5jax: take another")
    _own[entry.name] = entry
    return entry


def check_task_name(name: str) -> None:
    """Raises ConfigError for a name that cannot be a folder's everywhere."""
    if not can_name_directory(name):
        raise ConfigError(f"task name {name!r}: {NAME_RULE}")


def builtin(name: str) -> Task | Mixture | None:
    """The task or mixture that t5jax brings under a name."""
    from t5jax.data.tasks import builtin as tables

    return tables.find(name)


def builtin_names() -> list[str]:
    from t5jax.data.tasks import builtin as tables

    return list(tables.TABLE)


def own_names() -> list[str]:
    """Tasks and mixtures that were added by `add_task` and `add_mixture`."""
    return sorted(_own)


def find(name: str, data: "DataConfig") -> Task | Mixture:
    """The task or mixture of a name: built-in, or registered by `data.modules`, an entry point or
    seqio. Raises ConfigError with near names when there is none."""
    found = builtin(name) or _own.get(name)
    if found is None:
        load_modules(data.modules)
        load_entry_points()
        found = _own.get(name) or _of_seqio(name, data)
    if found is None:
        raise ConfigError(unknown(name, data.modules))
    return found


def find_task(name: str, data: "DataConfig") -> Task:
    """As `find`, for a single task. Raises ConfigError for a mixture."""
    found = find(name, data)
    if isinstance(found, Mixture):
        raise ConfigError(f"{name} is a mixture of several tasks: name one of its tasks")
    return found


def tasks_of(name: str, data: "DataConfig") -> list[Task]:
    """The tasks of a task or mixture, nested ones too, each once."""
    found = find(name, data)
    if not isinstance(found, Mixture):
        return [found]
    tasks: dict[str, Task] = {}
    for part in found.tasks:
        tasks |= {task.name: task for task in tasks_of(part, data)}
    return list(tasks.values())


def mixtures_within(mixture: Mixture, data: "DataConfig") -> dict[str, Mixture]:
    """The mixtures that a mixture draws from, by name, and theirs."""
    found: dict[str, Mixture] = {}
    for name in mixture.tasks:
        part = find(name, data)
        if isinstance(part, Mixture):
            found |= {name: part, **mixtures_within(part, data)}
    return found


def unknown(name: str, modules: Sequence[str]) -> str:
    """What to say of a name that nothing has, once `modules` have been imported."""
    own = [*own_names(), *seqio_names()]
    near = difflib.get_close_matches(name, [*builtin_names(), *own], n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    said = f"no task or mixture {name!r} is registered{hint}; `t5jax tasks` lists those of t5jax; "
    if not modules:
        return said + (
            "for one of your own name the module that registers it in data.modules of a config"
        )
    found = ", ".join(own[:10]) + (", …" if len(own) > 10 else "") if own else "nothing"
    return f"{said}your own, after {', '.join(modules)} of data.modules: {found}"


def load_modules(modules: Sequence[str]) -> None:
    """Imports the user's modules, which register tasks. The working directory is searched as well.

    Raises ConfigError naming the module when it is not found or fails.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for name in modules:
        if "/" in name or not all(name.split(".")):
            raise ConfigError(f"data.modules names {name!r}: {_as_imported(name)}")
        try:
            _import_seqio_for(name)
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise ConfigError(
                    f"module {name} of data.modules imports {error.name!r}, which is not installed"
                ) from error
            raise ConfigError(f"data.modules names {name!r}, but {_not_found(name)}") from error
        except Exception as error:
            raise ConfigError(
                f"module {name} of data.modules failed: {type(error).__name__}: {error}"
            ) from error


def _as_imported(name: str) -> str:
    """What to write for something that cannot be a module's name, such as a file's."""
    path = pathlib.PurePath(name.removeprefix(f"{os.getcwd()}/"))
    parts = path.with_suffix("").parts if path.suffix == ".py" else path.parts
    if parts and not any("." in part or part == "/" for part in parts):
        return f"write it as `import` takes it, {'.'.join(parts)}"
    return "write a module's name as `import` takes it: my_tasks, or folder.my_tasks"


def _not_found(name: str) -> str:
    """Where a module was looked for, and which one may be meant."""
    here = pathlib.Path.cwd()
    if name.endswith(".py") and (here / name).is_file():
        return f"that is a file: write it as `import` takes it, {name.removesuffix('.py')}"
    files = [*here.glob("*.py"), *here.glob("*/*.py")]
    names = [".".join(path.relative_to(here).with_suffix("").parts) for path in sorted(files)]
    last = name.rpartition(".")[2]
    near = [found for found in names if found.rpartition(".")[2] == last][:1]
    near = near or difflib.get_close_matches(name, names, n=1)
    return (
        f"there is no {name.replace('.', '/')}.py in {here}, and no installed module of that name"
        + (f" (did you mean {near[0]}?)" if near else "")
        + "; start t5jax in the folder that it lies in, or write folder.module"
    )


def _import_seqio_for(module: str) -> None:
    """A module that imports seqio gets it from us: here it comes without TensorFlow's banner."""
    spec = importlib.util.find_spec(module)
    path = pathlib.Path(spec.origin or "") if spec else pathlib.Path()
    if path.suffix == ".py" and "import seqio" in path.read_text(errors="replace"):
        import_seqio()


def load_entry_points() -> None:
    """Imports what installed packages offer as `t5jax.tasks`. Raises ConfigError where it fails."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise ConfigError(
                f"entry point {point.name} = {point.value} of {ENTRY_POINTS} failed: "
                f"{type(error).__name__}: {error}"
            ) from error


def _of_seqio(name: str, data: "DataConfig") -> Any:
    if "seqio" not in sys.modules:
        return None
    from t5jax.data.tasks import seqio_tasks

    return seqio_tasks.find(name, data)


def seqio_names() -> list[str]:
    """What is registered with seqio, where something has imported it."""
    seqio = sys.modules.get("seqio")
    return sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}) if seqio else []
