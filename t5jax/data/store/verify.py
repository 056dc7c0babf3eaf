"""Verification of a tokenised store: every byte of its files, by checksum."""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from t5jax.buckets import is_of_store
from t5jax.data import vocabularies
from t5jax.data.store.directories import file_size, in_bucket, read_file, store_path
from t5jax.data.store.reader import (
    MAKE_IT,
    META,
    CacheInfo,
    ShardInfo,
    read_info,
    shard_info,
    wrong_size,
)
from t5jax.errors import ConfigError


class CheckedFile(NamedTuple):
    """`damage` says what is wrong and what to do; None: the file is as it was written."""

    path: pathlib.Path
    num_bytes: int
    damage: str | None


def check_files(directory: str | os.PathLike, num_threads: int = 1) -> Iterator[CheckedFile]:
    """Reads every byte of a store, `num_threads` files at a time; they come in their order.

    Raises DataError when META.json, which holds the checksums, is missing or damaged itself.
    """
    directory = store_path(directory)
    info = read_info(directory)
    yield CheckedFile(directory / META, _size(directory / META), None)
    checks = list(_checks(directory, info))
    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        yield from pool.map(lambda check: check(), checks)


def _checks(directory: pathlib.Path, info: CacheInfo) -> Iterator[Callable[[], CheckedFile]]:
    file_name = vocabularies.vocabulary_from_dict(info.vocabulary, directory).file_name
    if file_name:
        yield functools.partial(_check_vocabulary, directory / file_name, info)
    for shard in info.shards:
        yield functools.partial(_check_record, directory / f"{shard.name}.json", shard)
        for name, size, sha256 in shard.files(np.dtype(info.dtype)):
            yield functools.partial(_check_content, directory / name, size, sha256, shard.name)


def _check_content(path: pathlib.Path, size: int, sha256: str, shard: str) -> CheckedFile:
    is_there = file_size(path)
    if problem := wrong_size(path, size, is_there):
        return CheckedFile(path, is_there or 0, problem)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore
        problem = f"sha256 {found[:12]}…, written was {sha256[:12]}…"
    except OSError as error:  # of a disk that fails
        if in_bucket(path):  # which says nothing about the object
            raise
        found, problem = None, str(error)
    damage = (
        f"{path} is damaged: {problem}; copy it again, or delete {shard}.* and {META} there, then "
        f"{MAKE_IT}"
    )
    return CheckedFile(path, size, None if found == sha256 else damage)


def _check_record(path: pathlib.Path, shard: ShardInfo) -> CheckedFile:
    """A shard's own record, which META.json repeats."""
    try:
        same = shard_info(json.loads(read_file(path))) == shard
        damage = None if same else f"{path} and {META} beside it do not agree: one is damaged"
    except FileNotFoundError:
        damage = f"{path} is missing"
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        damage = f"{path} is damaged ({error})"
    if damage:
        damage += f"; copy the store again, or delete {path.name} and {META} there, then {MAKE_IT}"
    return CheckedFile(path, _size(path), damage)


def _check_vocabulary(path: pathlib.Path, info: CacheInfo) -> CheckedFile:
    expected = info.vocabulary["fingerprint"]
    try:
        found = _fingerprint(path, info)
        problem = f"fingerprint {found[:12]}…, written was {expected[:12]}…"
    except ConfigError:  # a package that reads it is not installed
        raise
    except Exception as error:  # parsers have errors of their own for bytes that make no sense
        if in_bucket(path) and is_of_store(error):
            raise
        found, problem = None, str(error)
    damage = f"{path} is damaged: {problem}; copy it again, or {MAKE_IT}"
    return CheckedFile(path, _size(path), None if found == expected else damage)


def _fingerprint(path: pathlib.Path, info: CacheInfo) -> str:
    """Of the vocabulary in a file; one in a bucket is copied, and no copy of before is taken."""
    if not in_bucket(path):
        return vocabularies.vocabulary_from_dict(info.vocabulary, path.parent).fingerprint
    with tempfile.TemporaryDirectory(prefix="t5jax-") as folder:
        (pathlib.Path(folder) / path.name).write_bytes(read_file(path))
        return vocabularies.vocabulary_from_dict(info.vocabulary, folder).fingerprint


def _size(path: pathlib.Path) -> int:
    return file_size(path) or 0
