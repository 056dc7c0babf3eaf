"""Paths as users write them: `~`, and relative ones from another folder than was meant."""

import os
import pathlib
from collections.abc import Iterable
from typing import Any


def expand_home(path: Any) -> Any:
    """A path that begins with `~` or `~user` with that home folder in its place; any other path, a
    URL and None as they are. A shell does this for words that begin with `~` only (not for
    `--workdir=~/run`), and nobody does for a config file. A folder of that name is `./~`."""
    if isinstance(path, str) and path.startswith("~"):
        return os.path.expanduser(path)
    return path


def found_elsewhere(path: str, folders: Iterable[str | pathlib.Path] = ()) -> str | None:
    """The absolute path that a relative one would be from a folder above this one, or from (or
    above) one of `folders`; None where nothing is there either."""
    if not path or "://" in path or pathlib.Path(path).expanduser().is_absolute():
        return None
    here = pathlib.Path.cwd()
    for folder in (here, *(pathlib.Path(os.path.abspath(folder)) for folder in folders)):
        for base in (folder, *folder.parents):
            found = base / path
            if base != here and len(base.parts) > 1 and _is_there(found):
                return str(found)
    return None


def started_elsewhere(path: str, folders: Iterable[str | pathlib.Path] = ()) -> str:
    """`; it exists in FOLDER: …` where a relative path exists from another folder; else ""."""
    found = found_elsewhere(path, folders)
    if found is None:
        return ""
    base = found.removesuffix(path).rstrip("/") or "/"
    return (
        f"; it exists from another folder than this one, {pathlib.Path.cwd()}: start t5jax in "
        f"{base}, or give {found}"
    )


def _is_there(path: pathlib.Path) -> bool:
    """Whether a path is there, or for a pattern something that it names."""
    try:
        if not set("*?[") & set(path.name):
            return path.exists()
        return next(path.parent.glob(path.name), None) is not None
    except (OSError, ValueError):  # a name that is too long, or no name
        return False
