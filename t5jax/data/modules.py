"""The user's modules: those that register tasks (`data.modules` and entry points), and those of
classes and functions that a config holds, by their import path."""

import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from t5jax.data.tensorflow_import import import_seqio
from t5jax.data.vocabularies.seqio_files import read_local_copies
from t5jax.errors import ConfigError, failure

_loading: list[str] = []
ENTRY_POINTS = "t5jax.tasks"  # group of the entry points that name modules which register tasks


def load_modules(modules: Sequence[str]) -> None:
    """Imports the user's modules, which register tasks. The working directory is searched as well.

    Raises ConfigError naming the module when it is not found or fails.
    """
    for name in modules:
        if "/" in name or not all(name.split(".")):
            raise ConfigError(f"data.modules names {name!r}: {_as_imported(name)}")
        _loading.append(name)
        try:
            _import_module(name, "data.modules")
        finally:
            _loading.pop()


def is_loading() -> bool:
    """Whether a module of the user's is being imported by `load_modules`."""
    return bool(_loading)


def import_path(thing: Any) -> str:
    """`module.Class` of a user's class or function, which a saved config names it by. Raises
    ConfigError where another process could not import it."""
    path = f"{thing.__module__}.{thing.__qualname__}"
    if "<" in thing.__qualname__:
        raise ConfigError(f"{path} cannot be imported: define it at the top of a module")
    if not _is_importable(thing.__module__):
        raise ConfigError(
            f"{thing.__qualname__} is defined in {thing.__module__}, which other processes cannot "
            "import: move it into a module in the folder that t5jax is started in (or in an "
            "installed package), and import it from there"
        )
    if import_named(path, "the config") is not thing:
        raise ConfigError(f"{path} is not what importing {thing.__module__} gives: rename it")
    return path


def import_named(path: str, where: str) -> Any:
    """The class or function of an import path. Raises ConfigError when there is none."""
    module, *names = path.split(".")
    found = _import_module(module, where)
    for name in names:
        if not hasattr(found, name) and hasattr(found, "__path__"):
            module += f".{name}"
            found = _import_module(module, where)
        elif hasattr(found, name):
            found = getattr(found, name)
        else:
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where} names {path}, but {module} has no {name}{hint}")
    return found


def _is_importable(name: str) -> bool:
    _search_working_directory()
    return name != "__main__" and importlib.util.find_spec(name) is not None


def _import_module(name: str, where: str) -> Any:
    _search_working_directory()
    try:
        _import_seqio_for(name)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"module {name} of {where} imports {error.name!r}, which is not installed"
                + _how_to_install(error.name)
            ) from error
        raise ConfigError(f"{where} names {name!r}, but {_not_found(name)}") from error
    except Exception as error:
        raise ConfigError(f"module {name} of {where} failed: {failure(error, name)}") from error


def _how_to_install(module: str | None) -> str:
    """Of the one package that pip alone would install wrongly: its requirements overwrite seqio."""
    if (module or "").partition(".")[0] != "t5":
        return ""
    return (
        ": `pip install 't5jax[t5]'`, which is what it needs, then `pip install --no-deps "
        "t5==0.9.4` (without --no-deps its nightly seqio would overwrite the one that is here)"
    )


def _search_working_directory() -> None:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


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
        + "; start t5jax in the folder that it lies in, name that in PYTHONPATH, or write "
        "folder.module"
    )


def _import_seqio_for(module: str) -> None:
    """A module that imports seqio gets it from us: here it comes without TensorFlow's banner, and
    reads local copies of vocabularies."""
    spec = importlib.util.find_spec(module)
    path = pathlib.Path(spec.origin or "") if spec else pathlib.Path()
    if path.suffix == ".py" and "import seqio" in path.read_text(errors="replace"):
        read_local_copies(import_seqio())


def load_entry_points() -> None:
    """Imports what installed packages offer as `t5jax.tasks`. Raises ConfigError where it fails."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            raise ConfigError(
                f"entry point {point.name} = {point.value} of {ENTRY_POINTS} failed: "
                f"{failure(error, point.value)}"
            ) from error
