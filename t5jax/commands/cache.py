"""`t5jax cache CONFIG`: tokenises the run's data once, into stores that training reads."""

import contextlib
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from t5jax.buckets import bucket_errors, in_bucket, reading
from t5jax.commands.vocab import train_vocabulary
from t5jax.config import RunConfig, load_config
from t5jax.data.config import DataConfig
from t5jax.data.records import counted
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import (
    TRAIN,
    ResolvedMixture,
    resolve,
    resolve_definitions,
    write_serialised,
)
from t5jax.data.registry.resolved_task import ResolvedTask
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.build import Engine, build_cache
from t5jax.data.store.directories import cache_directory, folders_in, store_path
from t5jax.data.store.documents import DocumentSource
from t5jax.data.store.parts import Part, build_part, counts_begun, unfinished_units
from t5jax.data.store.reader import CacheInfo, read_info
from t5jax.data.store.spelling import spelling_notes
from t5jax.data.store.units import Unit
from t5jax.data.store.verify import check_files
from t5jax.data.tasks.task import SeqioTask
from t5jax.errors import ConfigError, DataError
from t5jax.paths import refuse_file_in_the_way
from t5jax.runtime import ExitCode, exit_at_sigterm, owned

DAMAGED = 1  # exit code of --verify that found damage, as sha256sum's


def cache_command(
    config_file: str,
    flags: list[str],
    *,
    splits: Sequence[str],
    num_processes: int,
    overwrite: bool,
    new_vocabulary: int | None = None,
    engine: Engine = "processes",
    part: str | None = None,
    finish: bool = False,
    take_over: bool = False,
) -> None:
    """`new_vocabulary` pieces are trained first, if the config's vocabulary is not there yet.

    `part` I/N makes that part of the shards alone, `finish` completes stores of which every shard
    was made so. Raises ConfigError if the vocabulary is there with another number of pieces, and
    for a part that is none; DataError for `finish` with the parts that are missing; LeaseHeld where
    another process builds a store (parts may run at once; `take_over`: it is dead); SystemExit(143)
    after a SIGTERM.
    """
    of_build = Part.parse(part) if part else None
    config = _with_cache_dir(load_config(config_file, flags))
    data = config.data
    if finish:
        options = [word for split in splits for word in ("--split", split)]
        words = ["t5jax", "cache", config_file, *options]
        refuse_unfinished(
            data,
            config.model.architecture,
            splits=splits,
            words=words,
            flags=flags,
            take_over=take_over,
        )
    if new_vocabulary:
        _train_if_missing(data, new_vocabulary)
    with exit_at_sigterm("preempted: finished shards are kept; the same command makes the others"):
        build_stores(
            data,
            config.model.architecture,
            splits=splits,
            num_processes=num_processes,
            overwrite=overwrite,
            engine=engine,
            part=of_build,
            take_over=take_over,
        )


def _train_if_missing(data: DataConfig, num_pieces: int) -> None:
    path = getattr(data.vocabulary, "path", "")
    if not pathlib.Path(path).is_file():
        train_vocabulary(data, num_pieces=num_pieces)
        return
    pieces = data.vocabulary.vocab_size - data.vocabulary.num_sentinels
    if pieces != num_pieces:
        raise ConfigError(
            f"--new-vocabulary {num_pieces}: data.vocabulary.path = {path} exists and has "
            f"{pieces:,} pieces; name a new file with --data.vocabulary.path, or leave "
            "--new-vocabulary out"
        )


def cache_verify_command(
    config_file: str, flags: list[str], *, splits: Sequence[str], num_processes: int
) -> int:
    """Reads every byte of the mixture's stores, `num_processes` files at a time: those of `splits`,
    or all that are there. Returns the exit code; a damaged store does not stop the others from
    being read."""
    config = _with_cache_dir(load_config(config_file, flags))
    mixture = resolve(config.data, config.model.architecture, config.model.decoder_start_id)
    with reading(config.data.cache_dir):
        whole = [_verify(directory, num_processes) for directory in _stores(mixture, splits)]
    return ExitCode.DONE if all(whole) else DAMAGED


def _stores(mixture: ResolvedMixture, splits: Sequence[str]) -> list[pathlib.Path]:
    """The folders of the mixture's stores."""
    cache_dir = mixture.data.cache_dir
    assert cache_dir is not None
    trains: dict[str, bool] = {}
    for task in mixture.tasks:
        trains[task.store] = trains.get(task.store, False) or _trains(task, mixture)
    directories = []
    for store, trained in trains.items():
        existing = set(folders_in(store_path(cache_dir) / store))
        names = splits or sorted(existing | ({TRAIN} if trained else set()))
        directories += [cache_directory(cache_dir, store, split) for split in names]
    return directories


def _trains(task: ResolvedTask, mixture: ResolvedMixture) -> bool:
    if task.definition is None:
        return task in mixture.trained
    return TRAIN in task.definition.splits


def _verify(directory: pathlib.Path, num_threads: int) -> bool:
    """Prints a store's size, or the damage to its files; whether it is intact."""
    start, num_files, num_bytes, damaged = time.monotonic(), 0, 0, 0
    try:
        for file in check_files(directory, num_threads):
            num_files, num_bytes = num_files + 1, num_bytes + file.num_bytes
            if file.damage:
                damaged += 1
                print(f"error: {file.damage}", file=sys.stderr, flush=True)
        info = read_info(directory)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return False
    print(
        f"{directory}: {info.documents:,} {_unit(info)}, {info.total('tokens'):,} tokens, "
        f"{num_bytes:,} bytes in {num_files:,} files read in {time.monotonic() - start:.1f} s: "
        + (f"{damaged:,} files DAMAGED" if damaged else "all as written"),
        flush=True,
    )
    return not damaged


class _StoreToBuild(NamedTuple):
    """One split of a task, and the number of its first shard among those of all stores."""

    task: ResolvedTask
    texts: DocumentSource
    split: str
    first_unit: int


def build_stores(
    data: DataConfig,
    architecture: str = "encoder_decoder",
    *,
    splits: Sequence[str],
    num_processes: int,
    overwrite: bool = False,
    engine: Engine = "processes",
    part: Part | None = None,
    take_over: bool = False,
) -> None:
    """The stores of all tasks of the config's mixture, and its serialised form; or one part of the
    stores' shards. No splits: all."""
    definitions = find_definitions(data)
    with bucket_errors(data.cache_dir or ""):
        mixture = resolve_definitions(definitions, data, architecture)
        stores = _stores_to_build(mixture, data, splits)
        for store in stores:
            with _owning(store, data, part, take_over):
                if part is None:
                    _build(store, data, num_processes, overwrite, engine)
                else:
                    _build_part(store, data, num_processes, part, engine)
        built = {(store.task.store, store.split) for store in stores}
        trained = [(t.store, TRAIN) for t in mixture.tasks if _trains(t, mixture)]
        if part is None and (not splits or built.issuperset(trained)):
            write_serialised(resolve_definitions(definitions, data, architecture))  # with sizes


def _owning(
    store: _StoreToBuild, data: DataConfig, part: Part | None, take_over: bool
) -> contextlib.AbstractContextManager[None]:
    """The store is built by one process, or by any number of parts."""
    directory = store.task.directory(data, store.split)
    if not in_bucket(directory):
        directory.mkdir(parents=True, exist_ok=True)
    what = "t5jax cache" if part is None else f"t5jax cache --part {part}"
    return owned(directory, what, shared=part is not None, take_over=take_over)


def _stores_to_build(
    mixture: ResolvedMixture, data: DataConfig, splits: Sequence[str]
) -> list[_StoreToBuild]:
    """Raises ConfigError for a task that cannot be cached, DataError for a split of none."""
    for task in mixture.tasks:
        definition = task.defined
        if isinstance(definition, SeqioTask) and definition.not_cacheable:
            raise ConfigError(
                f"task {task.name} cannot be cached: {definition.not_cacheable}; train on it with "
                "data.cache_dir = None (seqio makes its examples while training reads)"
            )
    texts_by_task = {task.name: task_documents(task.defined, data) for task in mixture.tasks}
    unused = set(splits).difference(*(texts.splits() for texts in texts_by_task.values()))
    if unused:
        raise DataError(f"{data.mixture} has no split {min(unused)!r}")
    stores: dict[tuple[str, str], _StoreToBuild] = {}  # tasks over one corpus share its store
    num_units = 0
    for task in mixture.tasks:
        texts = texts_by_task[task.name]
        for split in texts.splits():
            if (not splits or split in splits) and (task.store, split) not in stores:
                stores[task.store, split] = _StoreToBuild(task, texts, split, num_units)
                num_units += len(texts.shards(split))
    return list(stores.values())


def refuse_unfinished(
    data: DataConfig,
    architecture: str,
    *,
    splits: Sequence[str],
    words: Sequence[str],
    flags: Sequence[str],
    take_over: bool = False,
) -> None:
    """Raises DataError if shards are missing, with them and the parts to make again: `words` and
    `flags` are the command without and with its settings. LeaseHeld while a part runs."""
    missing, numbers, begun = [], [], []
    with reading(data.cache_dir):
        mixture = resolve_definitions(find_definitions(data), data, architecture)
        found = [
            (store, *_unfinished(store, data, take_over))
            for store in _stores_to_build(mixture, data, splits)
        ]
    for store, units, counts in found:
        directory = store.task.directory(data, store.split)
        begun += counts
        numbers += [store.first_unit + number for number, _ in units]
        if units:
            names = [f"{unit.name} of {unit.source}" for _, unit in units]
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            shards = counted(len(names), "shard")
            missing.append(f"{directory} lacks {shards}: {', '.join(names[:3])}{more}")
    if not missing:
        return
    command = lambda *options: shlex.join([*words, *options, *flags])
    if begun:
        count = max(begun)[1]
        parts = sorted({number % count for number in numbers})
        again = (
            f"make {'parts' if len(parts) > 1 else 'part'} {','.join(map(str, parts))} of {count} "
            f"again ({command('--part', f'{parts[0]}/{count}')})"
        )
    else:
        again = f"no part was made: {command('--part', 'I/N')} for I from 0 to N-1"
    raise DataError(f"{'; '.join(missing)}; {again}, or all here: {command()}")


def _unfinished(
    store: _StoreToBuild, data: DataConfig, take_over: bool
) -> tuple[list[tuple[int, Unit]], list[tuple[float, int]]]:
    directory = store.task.directory(data, store.split)
    begun = directory.exists()
    with _owning(store, data, None, take_over) if begun else contextlib.nullcontext():
        units = unfinished_units(store.texts, store.split, directory, vocabulary=data.vocabulary)
        return units, counts_begun(directory)


def _build(
    store: _StoreToBuild, data: DataConfig, num_processes: int, overwrite: bool, engine: Engine
) -> None:
    directory = store.task.directory(data, store.split)
    start = time.monotonic()
    info = build_cache(
        store.texts,
        store.split,
        directory,
        vocabulary=data.vocabulary,
        num_processes=num_processes,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
        engine=engine,
        overwrite=overwrite,
        max_unknown_share=data.max_unknown_share,
    )
    tokens = info.total("tokens")
    left_out = f", {info.rejected:,} bad ones left out" if info.rejected else ""
    num_bytes = info.total("utf8_bytes")  # 0 where the task tokenised itself: not known
    per_token = f"{num_bytes / tokens:.2f} bytes a token, " if num_bytes else ""
    print(
        f"{directory}: {info.documents:,} {_unit(info)}, {tokens:,} tokens, {per_token}"
        f"{time.monotonic() - start:.1f} s{left_out}"
    )
    for note in spelling_notes(info.spelling()):
        print(f"  {note}")
    for rule, count in info.dropped.items():
        print(f"  {rule:42s} {count:12,}")


def _build_part(
    store: _StoreToBuild, data: DataConfig, num_processes: int, part: Part, engine: Engine
) -> None:
    directory = store.task.directory(data, store.split)
    start = time.monotonic()
    shards = build_part(
        store.texts,
        store.split,
        directory,
        vocabulary=data.vocabulary,
        part=part,
        first_unit=store.first_unit,
        num_processes=num_processes,
        engine=engine,
        progress=lambda line: print(
            f"cache: part {part}: {line.removeprefix('cache: ')}", file=sys.stderr, flush=True
        ),
    )
    documents = sum(shard.documents for shard in shards)
    tokens = sum(feature.tokens for shard in shards for feature in shard.features.values())
    print(
        f"{directory}: part {part} is made: {counted(len(shards), 'shard')}, {documents:,} "
        f"documents, {tokens:,} tokens, {time.monotonic() - start:.1f} s",
        flush=True,
    )


def _unit(info: CacheInfo) -> str:
    return "documents" if info.features == ("text",) else "examples"


def _with_cache_dir(config: RunConfig) -> RunConfig:
    if config.data.cache_dir is None:
        raise ConfigError("data.cache_dir is None: name a folder for the tokenised text")
    refuse_file_in_the_way(config.data.cache_dir)
    return config
