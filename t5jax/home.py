"""`~` in paths: the one place where it is understood."""

import os
from typing import Any


def expand_home(path: Any) -> Any:
    """A path that begins with `~` or `~user` with that home folder in its place; any other path, a
    URL and None as they are. A shell does this for words that begin with `~` only (not for
    `--workdir=~/run`), and nobody does for a config file. A folder of that name is `./~`."""
    if isinstance(path, str) and path.startswith("~"):
        return os.path.expanduser(path)
    return path
