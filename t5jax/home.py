"""`~` in paths: the one place where it is understood."""

import os
from typing import TypeVar

Path = TypeVar("Path", str, None, str | None)


def expand_home(path: Path) -> Path:
    """A local path with its leading `~` or `~user` replaced by that home folder; any other path, a
    URL and None as they are. A shell does this only for words that begin with `~`: not for
    `--workdir=~/run`, and nobody does for a config file. A folder of that name is `./~`."""
    return os.path.expanduser(path) if path is not None and path.startswith("~") else path
