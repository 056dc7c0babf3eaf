"""Loaders of a resolved mixture: shuffled and without end for training, in order for evaluation."""

import functools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from t5jax.buckets import reading
from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.in_memory import read_in_memory
from t5jax.data.pipeline.loader import Component, Loader
from t5jax.data.pipeline.mixing import Mixing, Phase, rates_of_rows
from t5jax.data.pipeline.rows import Rows
from t5jax.data.pipeline.streaming import StreamingLoader, StreamingTask
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.registry import own_names
from t5jax.data.registry.resolve import TRAIN, ResolvedMixture
from t5jax.data.registry.resolved_task import ResolvedTask
from t5jax.data.registry.texts import task_documents
from t5jax.data.store.existing import comparable_identities
from t5jax.data.store.reader import TokenStore, TokenStream
from t5jax.data.store.spelling import refuse_unspellable
from t5jax.errors import ConfigError, DataError

_log = logging.getLogger("t5jax")


def open_loader(mixture: ResolvedMixture, *, batch_size: int) -> Loader | StreamingLoader:
    """Training batches without end, shuffled, tasks mixed at their rates.

    Raises DataError when a store is missing or damaged, ConfigError for what does not fit.
    """
    if mixture.data.cache_dir is None:
        return _open_streaming(mixture, batch_size)
    with reading(mixture.data.cache_dir):
        return _open_cached(mixture, batch_size)


def _open_cached(mixture: ResolvedMixture, batch_size: int) -> Loader:
    components = _open_stores(mixture, mixture.trained, TRAIN, shuffle=True)
    for task, component in zip(mixture.trained, components, strict=True):
        _warn_if_changed(task, component, mixture)
        _check_spelling(component, mixture)
    return Loader(
        components,
        mixture.data.vocabulary,
        batch_size=batch_size,
        row_format=mixture.row_format,
        mixing=_mixing(mixture, {c.name: c.rows.examples_per_row for c in components}, batch_size),
    )


def open_in_order(
    mixture: ResolvedMixture, split: str, *, batch_size: int, num_rows: int | None = None
) -> dict[str, Loader]:
    """By task, one pass over a split in the order of its store; tasks without the split are left
    out. `num_rows` is the most that will be read of each: without stores no more is tokenised.

    Empty when no task has the split. Raises DataError for a store that is damaged.
    """
    data = mixture.data
    if data.cache_dir is None:
        tasks = [t for t in mixture.tasks if split in task_documents(t.defined, data).splits()]
        components = [_in_memory(task, mixture, split, num_rows) for task in tasks]
    else:
        with reading(data.cache_dir):
            tasks = [task for task in mixture.tasks if task.directory(data, split).is_dir()]
            _check_cached(mixture)
            components = _open_stores(mixture, tasks, split, shuffle=False)
    return {
        component.name: Loader(
            [component],
            data.vocabulary,
            batch_size=batch_size,
            row_format=mixture.row_format,
            mixing=None,
        )
        for component in components
    }


def make_rows(
    task: ResolvedTask,
    streams: Mapping[str, TokenStream],
    mixture: ResolvedMixture,
    *,
    shuffle: bool,
    seed: int | None = None,
) -> TextRows | ExampleRows:
    """The rows of a task's tokens: text joined and cut for the objective, or examples (packed to
    the joined length, where inputs and targets will stand in one row). `seed`: not the task's own.

    Raises DataError when the tokens are not of such a task.
    """
    data, rows = mixture.data, mixture.row_format
    lengths = {"inputs_length": rows.inputs_length, "targets_length": rows.targets_length}
    seed = task.seed if seed is None else seed
    if (task.objective is not None) != ("text" in streams):
        raise DataError(
            f"the store of {task.name} holds {', '.join(streams)}: it was made for another kind of "
            "task; delete it, then run t5jax cache"
        )
    if task.objective is not None:
        return TextRows(
            streams["text"],
            task.objective,
            data.vocabulary,
            **lengths,
            seed=seed,
            shuffle=shuffle,
            prefix_ids=np.array(task.prefix_ids, np.int32),
            num_tokens=data.max_text_tokens if shuffle else None,
            task=task.name,
        )
    return ExampleRows(
        streams,
        **lengths,
        vocab_size=data.vocabulary.vocab_size,
        pad_id=data.vocabulary.pad_id,
        eos_id=data.vocabulary.eos_id,
        seed=seed,
        shuffle=shuffle,
        pack=data.pack,
        eos=task.eos,
        joined_length=rows.joined_length,
    )


def _open_stores(
    mixture: ResolvedMixture, tasks: "list[ResolvedTask] | tuple[ResolvedTask, ...]", split: str,
    *, shuffle: bool,
) -> list[Component]:  # fmt: skip
    """Tasks over one text share its store."""
    data = mixture.data
    stores: dict[pathlib.Path, TokenStore] = {}
    components = []
    for task in tasks:
        directory = task.directory(data, split)
        if directory not in stores:
            stores[directory] = TokenStore.open(directory, data.vocabulary)
        store = stores[directory]
        rows = make_rows(task, store.streams, mixture, shuffle=shuffle)
        components.append(Component(name=task.name, rows=rows, store=store))
    return components


def _check_cached(mixture: ResolvedMixture) -> None:
    """Raises DataError where no store of any split is there: that is no split without examples."""
    data, (first, *_) = mixture.data, mixture.tasks
    folders = {task.directory(data, TRAIN).parent for task in mixture.tasks}
    if not any(folder.is_dir() for folder in folders):
        TokenStore.open(first.directory(data, TRAIN), data.vocabulary)


def _in_memory(
    task: ResolvedTask, mixture: ResolvedMixture, split: str, num_rows: int | None
) -> Component:
    streams = read_in_memory(task, mixture, split, num_rows)
    rows = make_rows(task, streams, mixture, shuffle=False)
    return Component(name=task.name, rows=rows, store=None)


def _warn_if_changed(task: ResolvedTask, component: Component, mixture: ResolvedMixture) -> None:
    """A user's task may have become another one since its store was made; what is trained on is the
    store, which may have been made on another machine."""
    if task.definition is None or task.name not in own_names() or component.store is None:
        return
    texts = task_documents(task.defined, mixture.data)
    stored, here = comparable_identities(component.store.info, texts)
    if stored != here:
        _log.warning(
            "task %s has changed since its store %s was made, which is what is trained on; `t5jax "
            "cache CONFIG --overwrite` makes it anew",
            component.name,
            component.store.directory,
        )


def _check_spelling(component: Component, mixture: ResolvedMixture) -> None:
    """Raises DataError for a store of which the vocabulary could not spell more than the config
    lets pass: it may have been made with another limit."""
    if component.store is not None:
        refuse_unspellable(
            component.store.info.spelling(),
            mixture.data.max_unknown_share,
            f"the store of {component.name} in {component.store.directory}",
            mixture.data.vocabulary,
        )


def _mixing(
    mixture: ResolvedMixture, examples_per_row: Mapping[str, float], batch_size: int
) -> Mixing:
    names = [task.name for task in mixture.trained]
    phases = [
        Phase(
            first_step * batch_size,
            rates_of_rows({name: shares.get(name, 0.0) for name in names}, examples_per_row),
        )
        for first_step, shares in mixture.rates()
    ]
    return Mixing(phases, names)


# ---- without a store


def _open_streaming(mixture: ResolvedMixture, batch_size: int) -> StreamingLoader:
    data = mixture.data
    if data.max_text_tokens is not None:
        raise ConfigError(
            f"data.max_text_tokens={data.max_text_tokens} with data.cache_dir = None: only a store "
            "knows its first tokens; name a folder and run t5jax cache"
        )
    tasks = [
        StreamingTask(
            task.name,
            task_documents(task.defined, data),
            TRAIN,
            data.vocabulary,
            functools.partial(_streaming_rows, task, mixture),
            settings=_row_settings(task, mixture),
            seed=task.seed,
            max_unknown_share=data.max_unknown_share,
        )
        for task in mixture.trained
    ]
    per_row = {task.name: 1.0 if len(tasks) == 1 else task.examples_per_row for task in tasks}
    return StreamingLoader(
        tasks,
        data.vocabulary,
        batch_size=batch_size,
        row_format=mixture.row_format,
        mixing=_mixing(mixture, per_row, batch_size),
    )


def _row_settings(task: ResolvedTask, mixture: ResolvedMixture) -> dict[str, Any]:
    """What decides the rows of a task, besides its tokens."""
    rows = mixture.row_format
    return task.to_dict() | {
        "objective": task.objective.to_dict() if task.objective is not None else None,
        "lengths": [rows.inputs_length, rows.targets_length]
        + [rows.joined_length] * (rows.joined_length is not None),
        "pack": mixture.data.pack,
    }


def _streaming_rows(
    task: ResolvedTask, mixture: ResolvedMixture, streams: Mapping[str, TokenStream], seed: int
) -> Rows:
    return make_rows(task, streams, mixture, shuffle=True, seed=seed)
