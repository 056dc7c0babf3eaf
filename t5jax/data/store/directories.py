"""Where a tokenised store lies: a folder for each task (or corpus) and split."""

import os
import pathlib
import re

from t5jax.errors import DataError

NAME_RULE = (
    "begin with a letter or digit, then letters, digits and _ . : # - (no '..', at most 128)"
)
# seqio's own pattern for the names of tasks also takes ".", ".." and a trailing newline.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:#-]{0,127}")


def can_name_directory(name: str) -> bool:
    """Whether a task or split of this name can be a folder of the cache everywhere: NAME_RULE."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def cache_directory(cache_dir: str | os.PathLike, task: str, split: str) -> pathlib.Path:
    """`<cache_dir>/<task>/<split>`; DataError for a name that could leave `cache_dir`."""
    for what, name in (("task", task), ("split", split)):
        if not can_name_directory(name):
            raise DataError(f"{what} name {name!r} cannot name a directory: {NAME_RULE}")
    return pathlib.Path(cache_dir) / task / split
