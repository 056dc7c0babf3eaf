"""Where a tokenised store lies: a folder for each task (or corpus) and split, on a disk or in a
bucket of Cloud Storage (`gs://`), and what a store asks of its folder there."""

import contextlib
import os
import pathlib
import re

from t5jax import buckets
from t5jax.buckets import in_bucket
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
    return store_path(cache_dir) / task / split


def store_path(path: str | os.PathLike) -> pathlib.Path:
    """A path with pathlib's methods, on a disk or in a bucket. Raises ConfigError for one in a
    bucket where gcsfs is not installed."""
    if not in_bucket(path):
        return pathlib.Path(path)
    buckets.check_driver(path)
    from etils import epath  # not before: most stores are on a disk

    buckets.file_system()  # sets fsspec up, which epath uses too
    return epath.Path(path)  # pyright: ignore[reportReturnType]


# What follows raises on a path in a bucket what gcsfs does: see `buckets.reading` and
# `buckets.bucket_errors`.


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of a file. Raises FileNotFoundError."""
    return buckets.file_system().cat_file(str(path)) if in_bucket(path) else path.read_bytes()


def file_size(path: pathlib.Path) -> int | None:
    """Bytes of a file; None where there is none."""
    try:
        if in_bucket(path):
            return buckets.file_system().info(str(path))["size"]
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


def file_sizes(directory: pathlib.Path) -> dict[str, int]:
    """Bytes of the files of a folder by name; {} where there is none. One request in a bucket."""
    if in_bucket(directory):
        try:
            found = buckets.file_system().find(str(directory), detail=True)
        except FileNotFoundError:  # no such bucket
            return {}
        return {name.rpartition("/")[2]: info["size"] for name, info in found.items()}
    sizes = {name: file_size(directory / name) for name in _names(directory)}
    return {name: size for name, size in sizes.items() if size is not None}


def folders_in(directory: pathlib.Path) -> list[str]:
    """Names of the folders in a folder; [] where there is none."""
    if not directory.is_dir():
        return []
    return [path.name for path in directory.iterdir() if path.is_dir()]


def remove_file(path: pathlib.Path) -> None:
    """The file is not there afterwards."""
    if not in_bucket(path):
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        buckets.file_system().rm_file(str(path))


def make_folder(directory: pathlib.Path) -> None:
    """The folder is there, and in a bucket it can be written to. Raises OSError."""
    if in_bucket(directory):
        buckets.make_folder(str(directory))
    else:
        directory.mkdir(parents=True, exist_ok=True)


def modified(path: pathlib.Path) -> float:
    """When a file was written, in seconds since 1970."""
    status = path.stat()
    return status.mtime if in_bucket(path) else status.st_mtime  # pyright: ignore


def _names(directory: pathlib.Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
