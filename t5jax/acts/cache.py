"""`t5jax cache CONFIG`: tokenises the run's data once, into the stores that training reads."""

import pathlib
import sys
import time

from t5jax.acts.vocab import train_vocabulary
from t5jax.config import load
from t5jax.data.cache import build_cache, cache_directory
from t5jax.data.config import DataConfig, tasks_of
from t5jax.data.mixture_record import cached_sizes, corpus_of, make_record, write_record
from t5jax.data.tasks.task import SeqioTask, Task
from t5jax.data.tasks.texts import texts_of
from t5jax.data.tokenising import Texts
from t5jax.errors import ConfigError, DataError


def run(
    config_file: str,
    flags: list[str],
    *,
    splits: list[str],
    num_processes: int,
    overwrite: bool,
    new_vocabulary: int | None = None,
) -> None:
    """`new_vocabulary` pieces are trained first, if the config's vocabulary is not there yet."""
    data = load(config_file, flags).data
    if data.cache_dir is None:
        raise ConfigError("data.cache_dir is None: name a folder for the tokenised text")
    if new_vocabulary and not pathlib.Path(getattr(data.vocabulary, "path", "")).is_file():
        train_vocabulary(data, num_pieces=new_vocabulary)
    build_stores(data, splits=splits, num_processes=num_processes, overwrite=overwrite)


def build_stores(
    data: DataConfig, *, splits: list[str], num_processes: int, overwrite: bool = False
) -> None:
    """The stores of all tasks of the config's mixture, and its record. No splits: all of them."""
    tasks = tasks_of(data)
    for task in tasks:
        if isinstance(task, SeqioTask) and task.not_cacheable:
            raise ConfigError(
                f"task {task.name} cannot be cached: {task.not_cacheable}; train on it with "
                "data.cache_dir = None (seqio makes its examples while training reads)"
            )
    unused = set(splits).difference(*(texts_of(task, data).splits() for task in tasks))
    if unused:
        raise DataError(f"{data.mixture} has no split {min(unused)!r}")
    built: set[tuple[str, str]] = set()
    for task in tasks:
        texts = texts_of(task, data)
        for split in texts.splits():
            # Tasks over one corpus share its store.
            if (not splits or split in splits) and (corpus_of(task), split) not in built:
                built.add((corpus_of(task), split))
                _build(task, texts, split, data, num_processes, overwrite)
    if all((corpus_of(t), "train") in built for t in tasks if "train" in t.splits) or not splits:
        write_record(data, make_record(data, cached_sizes(tasks, data)))


def _build(
    task: Task, texts: Texts, split: str, data: DataConfig, num_processes: int, overwrite: bool
) -> None:
    assert data.cache_dir is not None
    directory = cache_directory(data.cache_dir, corpus_of(task), split)
    start = time.monotonic()
    info = build_cache(
        texts,
        split,
        directory,
        vocabulary=data.vocabulary,
        num_processes=num_processes,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
        overwrite=overwrite,
    )
    tokens = info.total("tokens")
    what = "documents" if info.features == ("text",) else "examples"
    left_out = f", {info.rejected:,} bad ones left out" if info.rejected else ""
    num_bytes = info.total("utf8_bytes")  # 0 where the task tokenised itself: not known
    per_token = f"{num_bytes / tokens:.2f} bytes a token, " if num_bytes else ""
    print(
        f"{directory}: {info.documents:,} {what}, {tokens:,} tokens, {per_token}"
        f"{time.monotonic() - start:.1f} s{left_out}"
    )
    for rule, count in info.dropped.items():
        print(f"  {rule:42s} {count:12,}")
