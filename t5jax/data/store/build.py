"""Building a tokenised store with any number of processes, resumable after a kill.

A store is `<cache_dir>/<corpus>/<split>/`; `reader.py` describes its files and reads them. One
shard of the source becomes one shard of the store (`units.py`), so that a build which was killed
goes on where it stopped, and any number of processes, or of hosts (`parts.py`), writes the same
bytes.
"""

import concurrent.futures.process
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from t5jax.data.atomic_files import json_bytes, write_file, write_json_file
from t5jax.data.records import counted
from t5jax.data.store import version_2
from t5jax.data.store.directories import (
    file_sizes,
    in_bucket,
    make_folder,
    remove_file,
    store_path,
)
from t5jax.data.store.documents import DocumentSource
from t5jax.data.store.existing import (
    code_without_source,
    message_for_0_1,
    refuse_other_store,
)
from t5jax.data.store.lock import PARTS, building
from t5jax.data.store.ray_cluster import on_ray
from t5jax.data.store.reader import (
    CHECKSUM,
    META,
    CacheInfo,
    ShardInfo,
    checksum,
    read_info,
)
from t5jax.data.store.spelling import refuse_unspellable
from t5jax.data.store.units import Unit, build_unit, finished_units, store_units
from t5jax.data.vocabularies import Vocabulary, save_vocabulary
from t5jax.errors import DataError

Engine = Literal["processes", "ray"]  # what builds the units of a store


def build_cache(
    texts: DocumentSource,
    split: str,
    directory: str | os.PathLike,
    *,
    vocabulary: Vocabulary,
    num_processes: int = 1,
    progress: Callable[[str], None] | None = None,
    engine: Engine = "processes",
    overwrite: bool = False,
    max_unknown_share: float = 1.0,
) -> CacheInfo:
    """Tokenises one split of the texts into `directory` and returns what META.json says.

    May be killed at any moment and called again: shards that are finished, by the same vocabulary
    from the same source, are kept, and the result is the same byte for byte. A literal
    `<extra_id_0>` is text in a document, and a sentinel in the inputs and targets of a task.
    `num_processes=1` works inline; more are spawned, so a script that calls this needs the usual
    `if __name__ == "__main__"`. `engine="ray"` builds on a running Ray cluster, with as many
    processes as it gives. `progress` gets a line after each shard.
    A complete store of t5jax 0.1 with the same settings is kept as it is.
    Raises DataError when the directory holds a complete store of something else (unless
    `overwrite`), when another process is building there, when the source has no text, and when the
    vocabulary cannot spell more than `max_unknown_share` of a feature's characters.
    """
    directory = store_path(directory)
    make_folder(directory)
    with building(directory, progress):
        if not in_bucket(directory):
            for half_written in directory.glob("shard-*.tmp-*"):  # by builders that were killed
                half_written.unlink(missing_ok=True)
        units = store_units(texts, split, directory, vocabulary)
        say_code_without_source(texts, progress)
        if overwrite:
            for unit in units:
                remove_file(directory / f"{unit.name}.json")
        elif (existing := store_of_0_1(directory, texts, split, vocabulary)) is not None:
            if progress:
                progress(f"cache: {directory} {message_for_0_1(existing, texts)}")
            return existing
        info = CacheInfo(
            split=split,
            dtype=units[0].dtype.name,
            vocabulary=vocabulary.to_dict(),
            source=json.loads(json_bytes(texts.identity())),
            features=tuple(texts.features),
            shards=build_units(
                units, texts, split, vocabulary, num_processes, progress, engine=engine
            ),
        )
        _complete(info, directory, vocabulary, max_unknown_share)
    return info


def _complete(
    info: CacheInfo, directory: pathlib.Path, vocabulary: Vocabulary, max_unknown_share: float
) -> None:
    """Writes META.json, which makes the store complete, if all that is in it may be trained on."""
    if info.total("tokens") == 0:
        raise DataError(
            f"split {info.split!r} of {info.source} gave {counted(info.documents, 'document')} and "
            "no tokens: nothing to store; check the source's files and the name of its text field"
        )
    # The shards are kept: with a higher limit the store is complete at once.
    where = f"split {info.split!r} in {directory}"
    refuse_unspellable(info.spelling(), max_unknown_share, where, vocabulary)
    if not in_bucket(directory):
        save_vocabulary(vocabulary, directory)
    elif (data := vocabulary.file_bytes()) is not None and vocabulary.file_name is not None:
        write_file(directory / vocabulary.file_name, data)
    _remove_stale_files(directory, info)
    record = dataclasses.asdict(info)
    write_json_file(directory / META, {**record, CHECKSUM: checksum(record)})


def say_code_without_source(texts: DocumentSource, progress: Callable[[str], None] | None) -> None:
    """A line for each function that the store's identity knows by its name alone."""
    if progress:
        for line in code_without_source(json.loads(json_bytes(texts.identity()))):
            progress(f"cache: {line}")


def store_of_0_1(
    directory: pathlib.Path, texts: DocumentSource, split: str, vocabulary: Vocabulary
) -> CacheInfo | None:
    """The complete store of t5jax 0.1 in the directory, which is kept as it is. Raises DataError
    for a complete store of something else, of whatever version."""
    if not (directory / META).exists():
        return None
    existing = read_info(directory)
    refuse_other_store(existing, directory, texts, split, vocabulary)
    return existing if existing.format_version == version_2.FORMAT_VERSION else None


def build_units(
    units: list[Unit],
    texts: DocumentSource,
    split: str,
    vocabulary: Vocabulary,
    num_processes: int,
    progress: Callable[[str], None] | None,
    *,
    engine: Engine = "processes",
) -> list[ShardInfo]:
    """Builds the units that are not finished; returns the records of all, in their order."""
    known = zip(units, finished_units(units), strict=True)
    done = {unit.name: info for unit, info in known if info is not None}
    missing = [unit for unit in units if unit.name not in done]
    if missing:
        remove_file(units[0].directory / META)  # it marks a complete store
    report = _ProgressReport(progress, len(units), len(done))
    build = functools.partial(build_unit, texts=texts, split=split, vocabulary=vocabulary)
    if engine == "ray" and missing:
        built = on_ray(build, missing)
    elif num_processes <= 1 or len(missing) <= 1:
        built = map(build, missing)
    else:
        built = _in_processes(build, missing, min(num_processes, len(missing)))
    for info in built:
        done[info.name] = info
        report(info)
    return [done[unit.name] for unit in units]


def _in_processes(
    build: Callable[[Unit], ShardInfo], units: list[Unit], num_processes: int
) -> Iterator[ShardInfo]:
    others = set(multiprocessing.active_children())
    with concurrent.futures.ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_exit_with_parent,
    ) as pool:
        futures = [pool.submit(build, unit) for unit in units]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            # All that were not finished fail; processes take them in order.
            failed = (future.done() and future.exception() is not None for future in futures)
            at = [str(unit.source) for unit, it in zip(units, failed, strict=True) if it]
            raise DataError(
                f"a tokenising process ended (killed, out of memory, or by code that it ran) at "
                f"{' or '.join(at[:num_processes])}; finished shards are kept, so run again, with "
                "fewer processes if memory is short"
            ) from error
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            # A shard may take minutes, and what is half written is removed by the next build.
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _ProgressReport:
    """A line per finished shard: `cache: 3/16 shards, 41,200 documents, 24.1 M tokens, 2.9 M/s`."""

    def __init__(self, progress: Callable[[str], None] | None, shards: int, kept: int):
        self._progress, self._shards, self._done = progress, shards, kept
        self._documents = self._tokens = 0
        self._start = time.monotonic()
        if progress and kept:
            progress(f"cache: {kept}/{shards} shards were finished before and are kept")

    def __call__(self, info: ShardInfo) -> None:
        self._done += 1
        self._documents += info.documents
        self._tokens += sum(feature.tokens for feature in info.features.values())
        if self._progress:
            rate = self._tokens / max(time.monotonic() - self._start, 1e-9)
            self._progress(
                f"cache: {self._done}/{counted(self._shards, 'shard')}, "
                f"{counted(self._documents, 'document')}, "
                f"{self._tokens / 1e6:.1f} M tokens, {rate / 1e6:.2f} M/s"
            )
            if info.rejected["places"]:
                self._progress(
                    f"cache: {info.source}: {counted(info.rejected['records'], 'record')} left "
                    f"out, {counted(info.rejected['damaged_files'], 'file')} broken off; the first:"
                )
            for line in info.rejected["places"]:
                self._progress(f"cache: left out: {line}")


def _exit_with_parent() -> None:
    """Ends a worker when its parent was killed; it would wait for ever on its queue."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch():
        parent.join()
        os._exit(70)

    threading.Thread(target=watch, daemon=True).start()


def _remove_stale_files(directory: pathlib.Path, info: CacheInfo) -> None:
    """Shards or features of an earlier build that had more of them, and what a kill left half
    written."""
    ours = {name for shard in info.shards for name, *_ in shard.files(np.dtype(info.dtype))}
    ours |= {f"{shard.name}.json" for shard in info.shards}
    for name in file_sizes(directory):
        if name.startswith(("shard-", PARTS)) and name not in ours:
            remove_file(directory / name)
