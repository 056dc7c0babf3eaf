"""Paths of a command line, and the workdir of a config file, that are refused before anything is
imported, contacted or computed for them."""

import argparse
import ast
import errno
import os

from t5jax.buckets import check_driver
from t5jax.errors import ConfigError
from t5jax.paths import (
    check_written_run,
    refuse_file_in_the_way,
    run_folder,
    scheme_of,
    seen_from,
    written_path,
)

# Setting -> the class that has it, its name there, and where it may lie.
_SETTINGS = {
    "workdir": ("RunConfig", "workdir", run_folder),
    "init.path": ("WarmStart", "path", run_folder),
    "data.cache_dir": ("DataConfig", "cache_dir", written_path),
}
# What commands write, by the names of their options: folders, which they make, and files.
_FOLDERS = {"evaluate": ("output", "submission")}
_FILES = {"html": "--html", "json_file": "--json", "output": "--output"}
_MADE_WITH_FOLDER = ("target", "write")


def check_outputs(arguments: argparse.Namespace) -> None:
    """Raises NotADirectoryError or IsADirectoryError (exit 73) where something of the other kind
    lies in the way of what the command is to write, ConfigError where a file's folder is missing.
    """
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    folders = _FOLDERS.get(arguments.command.name, ())
    for name in folders:
        if name in given:
            refuse_file_in_the_way(given[name])
    for name in _MADE_WITH_FOLDER:
        if name in given:
            check_driver(given[name])
            refuse_file_in_the_way(_folder(given[name]))
    for name, option in _FILES.items():
        if name in given and name not in folders:
            _check_file(given[name], option)


def _check_file(path: str, option: str) -> None:
    folder = _folder(path)
    if scheme_of(path):
        check_driver(path)
        if path.endswith("/"):
            raise ConfigError(f"{option} {path!r}: names no file")
        return
    refuse_file_in_the_way(folder)
    if not os.path.isdir(folder):
        raise ConfigError(f"{option} {path}: there is no folder {folder}{seen_from(folder)}")
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if path.endswith("/") or not path:
        raise ConfigError(f"{option} {path!r}: names no file")


def _folder(path: str) -> str:
    return os.path.dirname(path.rstrip("/")) or "."


def check_workdir(flags: list[str], config_file: str | None, *, written: bool) -> None:
    """Raises ConfigError for a workdir, init.path or data.cache_dir among the settings of the
    command line, or that the config file has as a plain text: a URL that no run, or store, can be
    read from, or `written` to."""
    for name, (cls, keyword, understand) in _SETTINGS.items():
        path = _last(flags, f"--{name}")
        if path is None and config_file is not None:
            path = _written_in(config_file, cls, keyword)
        if path is not None:
            path = understand(path, name)
            if written and name == "workdir":
                check_written_run(path)
            check_driver(path)


def _last(flags: list[str], option: str) -> str | None:
    """The value of an option where it is given last, `--option VALUE` or `--option=VALUE`."""
    found = None
    for place, word in enumerate(flags):
        name, given, value = word.partition("=")
        if name.replace("-", "_") != option.replace("-", "_"):
            continue
        if given:
            found = value
        elif place + 1 < len(flags):
            found = flags[place + 1]
    return found


def _written_in(config_file: str, cls: str, keyword: str) -> str | None:
    """The text that a Python file gives as `cls(keyword="...")`, where it calls it once."""
    try:
        with open(config_file, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):  # said, with more, by what reads the config
        return None
    calls = [x for x in ast.walk(tree) if isinstance(x, ast.Call) and _name(x.func) == cls]
    if len(calls) != 1:
        return None
    values = [x.value for x in calls[0].keywords if x.arg == keyword]
    texts = [x.value for x in values if isinstance(x, ast.Constant) and isinstance(x.value, str)]
    return texts[0] if texts else None


def _name(function: ast.expr) -> str | None:
    """`RunConfig` of `RunConfig` and of `t5jax.RunConfig`."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None
