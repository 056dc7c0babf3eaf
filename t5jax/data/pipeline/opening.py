"""From the data section to loaders: stores or live texts, rows, rates."""

import functools
import json
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from t5jax.data import registry
from t5jax.data.atomic_files import as_json
from t5jax.data.config import DataConfig, tasks_of
from t5jax.data.pipeline.conversion import Conversion, conversion_for
from t5jax.data.pipeline.example_rows import ExampleRows
from t5jax.data.pipeline.loader import Component, Loader
from t5jax.data.pipeline.mixing import Mixing, Phase, rates_of_rows
from t5jax.data.pipeline.rows import Rows
from t5jax.data.pipeline.streaming import LiveLoader, LiveTask
from t5jax.data.pipeline.text_rows import TextRows
from t5jax.data.records import Rejected
from t5jax.data.registry.mixture_record import (
    MixtureRecord,
    TaskRecord,
    make_record,
    published_size,
    record_of,
    task_record,
)
from t5jax.data.registry.texts import texts_of
from t5jax.data.rng import derive_seed
from t5jax.data.store.documents import encoded_documents
from t5jax.data.store.reader import TokenStore, TokenStream
from t5jax.data.tasks.task import Task
from t5jax.errors import ConfigError, DataError

_log = logging.getLogger("t5jax")
_MEMORY_TOKENS = 1 << 27  # of a split that is evaluated without a store


def open_loader(
    data: DataConfig, *, batch_size: int, architecture: str = "encoder_decoder"
) -> Loader | LiveLoader:
    """Training batches without end, shuffled, tasks mixed at their rates, for a model of the
    `architecture`.

    Raises DataError when a store is missing or damaged, ConfigError for what does not fit.
    """
    if data.cache_dir is None:
        return _open_live(data, batch_size, architecture)
    record, stores = record_of(data), {}
    conversion = conversion_for(architecture, record.tasks, data)
    components = [
        _component(task, conversion, data, "train", stores, shuffle=True)
        for task in record.trained_on
    ]
    for component in components:
        _say_if_changed(component, data)
    return Loader(
        components,
        data.vocabulary,
        batch_size=batch_size,
        inputs_length=conversion.inputs_length,
        targets_length=conversion.targets_length,
        mixing=_mixing(record, {c.name: c.rows.examples_per_row for c in components}, batch_size),
        conversion=conversion,
    )


def open_in_order(
    data: DataConfig,
    split: str,
    *,
    batch_size: int,
    num_rows: int | None = None,
    architecture: str = "encoder_decoder",
) -> dict[str, Loader]:
    """By task, one pass over a split in the order of its store; tasks without the split are left
    out. `num_rows` are all that will be read of each (only a live task cares), `architecture` is
    that of the model.

    Empty when no task has the split. Raises DataError for a store that is damaged.
    """
    if data.cache_dir is None:
        return _open_in_memory(data, split, batch_size, num_rows, architecture)
    record, stores = record_of(data), {}
    conversion = conversion_for(architecture, record.tasks, data)
    found = [task for task in record.tasks if task.directory(data, split).is_dir()]
    return {
        task.name: _single(
            _component(task, conversion, data, split, stores, shuffle=False),
            conversion,
            data,
            batch_size,
        )
        for task in found
    }


def _component(
    task: TaskRecord,
    conversion: Conversion,
    data: DataConfig,
    split: str,
    stores: dict[pathlib.Path, TokenStore],
    *,
    shuffle: bool,
) -> Component:
    """`stores` are those that are open already: tasks over one corpus share one."""
    directory = task.directory(data, split)
    if directory not in stores:
        stores[directory] = TokenStore.open(directory, data.vocabulary)
    store = stores[directory]
    rows = make_rows(
        task,
        store.streams,
        data,
        targets_length=conversion.targets_length,
        joined_length=conversion.joined_length,
        seed=task_seed(data, task),
        shuffle=shuffle,
    )
    return Component(name=task.name, rows=rows, store=store)


def _say_if_changed(component: Component, data: DataConfig) -> None:
    """A user's task may have become another one since its store was made; what is trained on is the
    store, which may have been made on another machine."""
    if component.name not in registry.own_names() or component.store is None:
        return
    here = texts_of(registry.find_task(component.name, data), data).describe()
    if json.loads(as_json(here)) != component.store.info.source:
        _log.warning(
            "task %s has changed since its store %s was made, which is what is trained on; `t5jax "
            "cache CONFIG --overwrite` makes it anew",
            component.name,
            component.store.directory,
        )


def task_seed(data: DataConfig, task: TaskRecord) -> int:
    """A seed of each task's own: with one for all, tasks over one text would read it in step."""
    return derive_seed(data.seed, f"task/{task.name}")


def make_rows(
    task: TaskRecord,
    streams: Mapping[str, TokenStream],
    data: DataConfig,
    *,
    targets_length: int,
    joined_length: int | None = None,
    seed: int,
    shuffle: bool,
) -> TextRows | ExampleRows:
    """The rows of a task's tokens: text joined and cut for the objective, or examples (packed to
    `joined_length`, where inputs and targets will stand in one row).

    Raises DataError when the tokens are not of such a task.
    """
    lengths = {"inputs_length": data.inputs_length, "targets_length": targets_length}
    objective = data.objective_for(task)
    if (objective is not None) != ("text" in streams):
        raise DataError(
            f"the store of {task.name} holds {', '.join(streams)}: it was made for another kind of "
            "task; delete it, then run t5jax cache"
        )
    if objective is not None:
        return TextRows(
            streams["text"],
            objective,
            data.vocabulary,
            **lengths,
            seed=seed,
            shuffle=shuffle,
            prefix_ids=data.prefix_ids(task),
            num_tokens=data.max_text_tokens if shuffle else None,
        )
    return ExampleRows(
        streams,
        **lengths,
        vocab_size=data.vocabulary.vocab_size,
        seed=seed,
        shuffle=shuffle,
        pack=data.pack,
        eos=task.eos,
        joined_length=joined_length,
    )


def _mixing(
    record: MixtureRecord, examples_per_row: Mapping[str, float], batch_size: int
) -> Mixing:
    names = [task.name for task in record.trained_on]
    phases = [
        Phase(
            first_step * batch_size,
            rates_of_rows({name: rates.get(name, 0.0) for name in names}, examples_per_row),
        )
        for first_step, rates in record.phases
    ]
    return Mixing(phases, names)


def _single(
    component: Component, conversion: Conversion, data: DataConfig, batch_size: int
) -> Loader:
    return Loader(
        [component],
        data.vocabulary,
        batch_size=batch_size,
        inputs_length=conversion.inputs_length,
        targets_length=conversion.targets_length,
        mixing=None,
        conversion=conversion,
    )


# ---- without a store


def _open_live(data: DataConfig, batch_size: int, architecture: str) -> LiveLoader:
    if data.max_text_tokens is not None:
        raise ConfigError(
            f"data.max_text_tokens={data.max_text_tokens} with data.cache_dir = None: only a store "
            "knows its first tokens; name a folder and run t5jax cache"
        )
    tasks = tasks_of(data)
    record = _record_without_stores(data, tasks)
    conversion = conversion_for(architecture, record.tasks, data)
    drawn = {task.name for task in record.trained_on}
    live = [
        LiveTask(
            task.name,
            texts_of(task, data),
            "train",
            data.vocabulary,
            functools.partial(_live_rows, task_record(task), conversion, data),
            settings=_settings(task_record(task), conversion, data),
            seed=task_seed(data, task_record(task)),
        )
        for task in tasks
        if task.name in drawn
    ]
    one = len(live) == 1
    per_row = {task.name: 1.0 if one else task.examples_per_row for task in live}
    return LiveLoader(
        live,
        data.vocabulary,
        batch_size=batch_size,
        inputs_length=conversion.inputs_length,
        targets_length=conversion.targets_length,
        mixing=_mixing(record, per_row, batch_size),
        conversion=conversion,
    )


def _settings(task: TaskRecord, conversion: Conversion, data: DataConfig) -> dict[str, Any]:
    """Whatever decides the rows of a task, besides its tokens."""
    objective = data.objective_for(task)
    return task.to_dict() | {
        "objective": objective.to_dict() if objective is not None else None,
        "lengths": [conversion.inputs_length, conversion.targets_length]
        + [conversion.joined_length] * (conversion.joined_length is not None),
        "pack": data.pack,
    }


def _record_without_stores(data: DataConfig, tasks: list[Task]) -> MixtureRecord:
    """The mixture's record where nothing has counted the examples: some tasks know how many they
    have, the others must do without. Raises ConfigError when the rates depend on theirs."""
    return make_record(data, {task.name: published_size(task) for task in tasks})


def _live_rows(
    task: TaskRecord,
    conversion: Conversion,
    data: DataConfig,
    streams: Mapping[str, TokenStream],
    seed: int,
) -> Rows:
    lengths = {
        "targets_length": conversion.targets_length,
        "joined_length": conversion.joined_length,
    }
    return make_rows(task, streams, data, **lengths, seed=seed, shuffle=True)


def _open_in_memory(
    data: DataConfig, split: str, batch_size: int, num_rows: int | None, architecture: str
) -> dict[str, Loader]:
    tasks = [task for task in tasks_of(data) if split in texts_of(task, data).splits()]
    record = _record_without_stores(data, tasks_of(data))
    conversion = conversion_for(architecture, record.tasks, data)
    loaders = {}
    for task in tasks:
        described = task_record(task)
        enough = _enough_for(described, conversion, data, num_rows)
        streams = _read_streams(task, data, split, enough)
        rows = make_rows(
            described,
            streams,
            data,
            targets_length=conversion.targets_length,
            joined_length=conversion.joined_length,
            seed=task_seed(data, described),
            shuffle=False,
        )
        component = Component(name=task.name, rows=rows, store=None)
        loaders[task.name] = _single(component, conversion, data, batch_size)
    return loaders


def _read_streams(
    task: Task, data: DataConfig, split: str, enough: "Callable[[_Sizes], bool]"
) -> dict[str, TokenStream]:
    """The documents of a split, tokenised, until there are enough of them.

    Raises DataError when they are too many to hold.
    """
    texts, rejected = texts_of(task, data), Rejected()
    documents: list[dict[str, np.ndarray]] = []
    sizes = _Sizes(data)
    for ids in encoded_documents(texts, split, rejected, data.vocabulary):
        documents.append(ids)
        sizes.add(ids)
        if enough(sizes):
            break
        if sizes.held > _MEMORY_TOKENS:
            raise DataError(
                f"split {split!r} of {task.name} has more than {_MEMORY_TOKENS:,} tokens: too many "
                "to hold in memory; ask for fewer rows (train.num_eval_rows, or --num-rows), or "
                "make a store with t5jax cache"
            )
    for place in rejected.places:
        _log.warning("%s of %s, left out: %s", split, task.name, place)
    return {name: TokenStream.of_documents([d[name] for d in documents]) for name in texts.features}


class _Sizes:
    """Of the documents read so far: how many, and tokens by feature as rows can show them."""

    def __init__(self, data: DataConfig):
        self._limits = {"inputs": data.inputs_length, "targets": data.targets_length or 0}
        self.documents = self.held = 0
        self.shown: dict[str, int] = {"text": 0, "inputs": 0, "targets": 0}

    def add(self, ids: Mapping[str, np.ndarray]) -> None:
        self.documents += 1
        for name, tokens in ids.items():
            self.held += len(tokens)
            self.shown[name] += min(len(tokens), self._limits.get(name, len(tokens)))


def _enough_for(
    task: TaskRecord, conversion: Conversion, data: DataConfig, num_rows: int | None
) -> Callable[[_Sizes], bool]:
    """Whether the documents fill `num_rows` rows (None: never, all are wanted)."""
    objective, lengths = data.objective_for(task), conversion
    if num_rows is None:
        return lambda sizes: False
    if objective is not None:
        room = data.inputs_length - len(data.prefix_ids(task))
        raw = objective.lengths(room, lengths.targets_length).raw
        return lambda sizes: sizes.shown["text"] >= num_rows * raw
    if not data.pack:
        return lambda sizes: sizes.documents >= num_rows
    if lengths.joined_length is not None:
        joined = lengths.joined_length
        return lambda sizes: sizes.shown["inputs"] + sizes.shown["targets"] >= num_rows * joined
    return lambda sizes: (
        sizes.shown["inputs"] >= num_rows * lengths.inputs_length
        or sizes.shown["targets"] >= num_rows * lengths.targets_length
    )
