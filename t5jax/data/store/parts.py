"""Parts of a build, for hosts that share a disk or a bucket and need not know of one another.

A part is a choice of a store's units (`units.py`): every N-th of them. It builds those that are
not finished, so it may be killed, repeated, run by two at once or under another N. `build_cache`
completes the store and finds nothing left to build: the bytes are those of one host.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from t5jax.data.atomic_files import json_bytes, write_file
from t5jax.data.store.build import Engine, build_units, say_code_without_source, store_of_0_1
from t5jax.data.store.directories import (
    file_sizes,
    in_bucket,
    make_folder,
    modified,
    remove_file,
    store_path,
)
from t5jax.data.store.documents import DocumentSource
from t5jax.data.store.lock import PARTS, building
from t5jax.data.store.reader import META, ShardInfo
from t5jax.data.store.units import Unit, finished_units, store_units
from t5jax.data.vocabularies import Vocabulary
from t5jax.errors import ConfigError, DataError

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Part `index` (from 0) of `count` parts of a build."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Of `I/N`. Raises ConfigError for anything else, and for I that is not from 0 to N-1."""
        found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        index, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if not found or index >= count:
            last = f" (here from 0 to {count - 1})" if count else ""
            raise ConfigError(f"--part {text}: a part is I/N, I from 0 to N-1{last}, as in 0/4")
        return cls(index, count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def of(self, units: Sequence[_T], first: int = 0) -> list[_T]:
        """Those of the units, numbered from `first` on, that the part has."""
        return [u for number, u in enumerate(units, first) if number % self.count == self.index]


def build_part(
    texts: DocumentSource,
    split: str,
    directory: str | os.PathLike,
    *,
    vocabulary: Vocabulary,
    part: Part,
    first_unit: int = 0,
    num_processes: int = 1,
    progress: Callable[[str], None] | None = None,
    engine: Engine = "processes",
) -> list[ShardInfo]:
    """Builds the shards of one part of a store, numbered from `first_unit` on; returns the records
    of all that it has, also of those that were finished before.

    Any number of parts may run at once, here and on other hosts. `num_processes`, `progress`,
    `engine`: as of `build_cache`. A complete store of the same settings is left as it is.
    Raises DataError as `build_cache` does, but for what is only known of the whole (no tokens, text
    that cannot be spelled), and when parts of other settings were begun in the directory.
    """
    directory = store_path(directory)
    make_folder(directory)
    say = progress or (lambda line: None)
    with building(directory, progress, part=True):
        units = part.of(store_units(texts, split, directory, vocabulary), first_unit)
        say_code_without_source(texts, progress)
        existing = store_of_0_1(directory, texts, split, vocabulary)
        if existing is not None:
            say(f"cache: {directory} was made by t5jax 0.1 and is kept")
            return part.of(existing.shards, first_unit)
        if not all(finished_units(units)):
            _begin(directory, texts, split, vocabulary, part)
        elif (directory / META).exists():
            say(f"cache: {directory} is complete: nothing to do")
        return build_units(units, texts, split, vocabulary, num_processes, progress, engine=engine)


def unfinished_units(
    texts: DocumentSource, split: str, directory: str | os.PathLike, *, vocabulary: Vocabulary
) -> list[tuple[int, Unit]]:
    """The units of a store that no part has finished, with their numbers in it. Raises DataError
    while a part runs, and for a complete store of something else."""
    directory = store_path(directory)
    units = store_units(texts, split, directory, vocabulary)
    if not directory.exists():
        return list(enumerate(units))
    with building(directory):
        if store_of_0_1(directory, texts, split, vocabulary) is not None:
            return []
        found = finished_units(units)
        return [(number, unit) for number, unit in enumerate(units) if found[number] is None]


def counts_begun(directory: str | os.PathLike) -> list[tuple[float, int]]:
    """(time, N) of parts I/N that were begun in the directory since it was last complete."""
    directory = store_path(directory)
    names = [name for name in file_sizes(directory) if name.startswith(PARTS)]
    return [(modified(directory / name), int(name.rpartition("-")[2])) for name in names]


def _begin(
    directory: pathlib.Path, texts: DocumentSource, split: str, vocabulary: Vocabulary, part: Part
) -> None:
    """Says in the directory that parts of these settings are made; DataError if others are, which
    could be writing files of the same names."""
    settings = {"texts": texts.identity(), "split": split, "ids": vocabulary.fingerprint}
    ours = f"{PARTS}{hashlib.sha256(json_bytes(settings)).hexdigest()[:12]}-"
    claim = directory / f"{ours}{part.count}"

    def others() -> list[str]:
        names = [name for name in file_sizes(directory) if name.startswith(PARTS)]
        return [name for name in names if not name.startswith(ours)]

    if not others():
        if in_bucket(directory):
            write_file(claim, b"")
        else:
            claim.touch()
    if found := others():  # again: of two that begin at once one sees the other
        remove_file(claim)
        raise DataError(
            f"{directory} holds unfinished parts of another vocabulary, source or task "
            f"({found[0]}); if nothing builds them any more delete {directory}, or use another "
            "data.cache_dir"
        )
