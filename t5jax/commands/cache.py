"""`t5jax cache CONFIG`: tokenises the run's data once, into stores that training reads."""

import pathlib
import sys
import time
from collections.abc import Sequence

from t5jax.commands.vocab import train_vocabulary
from t5jax.config import RunConfig, load_config
from t5jax.data.config import DataConfig
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
from t5jax.data.store.build import build_cache
from t5jax.data.store.directories import cache_directory
from t5jax.data.store.documents import DocumentSource
from t5jax.data.store.reader import CacheInfo, read_info
from t5jax.data.store.spelling import spelling_notes
from t5jax.data.store.verify import check_files
from t5jax.data.tasks.task import SeqioTask
from t5jax.errors import ConfigError, DataError
from t5jax.runtime import ExitCode

DAMAGED = 1  # exit code of --verify that found damage, as sha256sum's


def cache_command(
    config_file: str,
    flags: list[str],
    *,
    splits: Sequence[str],
    num_processes: int,
    overwrite: bool,
    new_vocabulary: int | None = None,
) -> None:
    """`new_vocabulary` pieces are trained first, if the config's vocabulary is not there yet.

    Raises ConfigError if it is there with another number of pieces.
    """
    config = _with_cache_dir(load_config(config_file, flags))
    data = config.data
    if new_vocabulary:
        _train_if_missing(data, new_vocabulary)
    build_stores(
        data,
        config.model.architecture,
        splits=splits,
        num_processes=num_processes,
        overwrite=overwrite,
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
        existing = {path.name for path in pathlib.Path(cache_dir, store).glob("*/")}
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


def build_stores(
    data: DataConfig,
    architecture: str = "encoder_decoder",
    *,
    splits: Sequence[str],
    num_processes: int,
    overwrite: bool = False,
) -> None:
    """The stores of all tasks of the config's mixture, and its serialised form. No splits: all."""
    definitions = find_definitions(data)
    mixture = resolve_definitions(definitions, data, architecture)
    for task in definitions.tasks:
        if isinstance(task, SeqioTask) and task.not_cacheable:
            raise ConfigError(
                f"task {task.name} cannot be cached: {task.not_cacheable}; train on it with "
                "data.cache_dir = None (seqio makes its examples while training reads)"
            )
    texts_by_task = {task.name: task_documents(task.defined, data) for task in mixture.tasks}
    unused = set(splits).difference(*(texts.splits() for texts in texts_by_task.values()))
    if unused:
        raise DataError(f"{data.mixture} has no split {min(unused)!r}")
    built: set[tuple[str, str]] = set()
    for task in mixture.tasks:
        texts = texts_by_task[task.name]
        for split in texts.splits():
            # Tasks over one corpus share its store.
            if (not splits or split in splits) and (task.store, split) not in built:
                built.add((task.store, split))
                _build(task, texts, split, data, num_processes, overwrite)
    if not splits or all((t.store, TRAIN) in built for t in mixture.tasks if _trains(t, mixture)):
        write_serialised(resolve_definitions(definitions, data, architecture))  # sizes are known


def _build(
    task: ResolvedTask,
    texts: DocumentSource,
    split: str,
    data: DataConfig,
    num_processes: int,
    overwrite: bool,
) -> None:
    directory = task.directory(data, split)
    start = time.monotonic()
    info = build_cache(
        texts,
        split,
        directory,
        vocabulary=data.vocabulary,
        num_processes=num_processes,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
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


def _unit(info: CacheInfo) -> str:
    return "documents" if info.features == ("text",) else "examples"


def _with_cache_dir(config: RunConfig) -> RunConfig:
    if config.data.cache_dir is None:
        raise ConfigError("data.cache_dir is None: name a folder for the tokenised text")
    return config
