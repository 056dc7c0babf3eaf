"""What a run's data section resolves to: tasks, rates, stores and the format of rows, found once.

`resolve` runs when a run is built; loader, cache, evaluation, preview and provenance take its
result. For a user's own mixture `t5jax cache` writes the result beside the stores, so that training
imports neither the user's modules nor seqio.
"""

import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Mapping

from t5jax.buckets import reading
from t5jax.data.atomic_files import write_json_file
from t5jax.data.config import DataConfig
from t5jax.data.registry.names import Definitions, check_name, find_definitions, is_defined_here
from t5jax.data.registry.resolved_task import ResolvedTask, resolve_tasks, store_name
from t5jax.data.registry.row_format import RowFormat, find_converter, row_format
from t5jax.data.store.directories import (
    cache_directory,
    file_size,
    file_sizes,
    read_file,
    store_path,
)
from t5jax.data.store.reader import MAKE_IT, META, read_info
from t5jax.data.tasks.mixture import Stage, stages_if_known
from t5jax.data.tasks.task import ExampleTask, Task
from t5jax.errors import ConfigError, DataError
from t5jax.types import PAD_ID

FORMAT = "t5jax mixture"
FORMAT_VERSION = 1
TRAIN = "train"
SUFFIX = ".mixture.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedMixture:
    """A run's mixture (or single task) with the settings of its data section.

    Attributes:
      sizes: training examples (documents, of plain text) by task: those of its store where there is
        one, else the published number; None where neither is known.
      stages: share of the examples by task, by the training step from which it holds; empty where
        the rates depend on sizes that are not known (see `rates`).
    """

    data: DataConfig = dataclasses.field(repr=False)
    tasks: tuple[ResolvedTask, ...]
    sizes: Mapping[str, int | None]
    stages: tuple[Stage, ...]
    row_format: RowFormat

    @property
    def name(self) -> str:
        assert self.data.mixture is not None  # `resolve` refuses None
        return self.data.mixture

    def rates(self) -> tuple[Stage, ...]:
        """`stages`. Raises ConfigError where they are not known."""
        if not self.stages:
            unsized = [name for name, size in self.sizes.items() if size is None]
            raise ConfigError(
                f"the rates of {self.name} depend on the number of examples of "
                f"{', '.join(unsized[:5])}, which is not known without a store: set data.cache_dir "
                "and run t5jax cache, or give rates of their own"
            )
        return self.stages

    @property
    def trained(self) -> tuple[ResolvedTask, ...]:
        """The tasks that have a share at any step; the others are only evaluated."""
        drawn = {name for _, shares in self.rates() for name, share in shares.items() if share > 0}
        return tuple(task for task in self.tasks if task.name in drawn)


def resolve(
    data: DataConfig, architecture: str = "encoder_decoder", start_id: int = PAD_ID
) -> ResolvedMixture:
    """The mixture of the data section for a model of the architecture, whose decoder first reads
    `start_id`.

    Definitions are those of t5jax and of what is imported already; of a user's own mixture the
    serialised form beside its stores; without stores `data.modules` are imported.

    Raises ConfigError for an unknown task and for what does not fit the tasks, DataError when a
    user's own mixture was not cached, and for stores in a bucket that cannot be read.
    """
    with reading(data.cache_dir):
        return _resolve(data, architecture, start_id)


def _resolve(data: DataConfig, architecture: str, start_id: int) -> ResolvedMixture:
    if data.cache_dir is None or is_defined_here(data):
        return resolve_definitions(find_definitions(data), data, architecture, start_id)
    content = _read_serialised(data)
    tasks = tuple(ResolvedTask.from_dict(task, data) for task in content["tasks"])
    return ResolvedMixture(
        data=data,
        tasks=tasks,
        sizes=dict.fromkeys(task.name for task in tasks),
        stages=tuple(Stage(int(step), shares) for step, shares in content["phases"]),
        row_format=row_format(architecture, tasks, data, start_id),
    )


def resolve_definitions(
    definitions: Definitions,
    data: DataConfig,
    architecture: str | None = "encoder_decoder",
    start_id: int = PAD_ID,
) -> ResolvedMixture:
    """The same for definitions at hand; architecture None: for no model. Raises ConfigError as
    `resolve`."""
    tasks = resolve_tasks(definitions.tasks, data)
    sizes = find_sizes(definitions.tasks, data)
    return ResolvedMixture(
        data=data,
        tasks=tasks,
        sizes=sizes,
        stages=find_stages(definitions, sizes),
        row_format=row_format(architecture, tasks, data, start_id),
    )


def defined_row_format(data: DataConfig, architecture: str) -> RowFormat:
    """The row format that the tasks' definitions give; no store is read. Raises ConfigError as
    `resolve`."""
    tasks = resolve_tasks(find_definitions(data).tasks, data)
    return row_format(architecture, tasks, data)


def check_mixture(data: DataConfig, architecture: str = "encoder_decoder") -> None:
    """Raises ConfigError for settings that are out of range, missing, without effect, or do not fit
    tasks and architecture. Files are not opened, and the user's modules are not imported: their
    tasks are checked when the mixture is resolved. Without a mixture only values are checked."""
    data.check()
    if data.mixture is None:
        return
    check_name(data)
    if is_defined_here(data):
        tasks = resolve_tasks(find_definitions(data).tasks, data)
        find_converter(architecture, tasks, data)


def checked_tasks(data: DataConfig) -> tuple[Task, ...]:
    """The definitions of the tasks of `data.mixture`. Raises ConfigError for what does not fit."""
    tasks = find_definitions(data).tasks
    resolve_tasks(tasks, data)
    return tasks


def find_sizes(tasks: tuple[Task, ...], data: DataConfig) -> dict[str, int | None]:
    """Training examples by task, of its store or published; None where neither is known."""
    return {task.name: _size(task, data) for task in tasks}


def find_stages(definitions: Definitions, sizes: Mapping[str, int | None]) -> tuple[Stage, ...]:
    """The shares of the tasks; () where they depend on sizes that are not known."""
    if definitions.mixture is None:
        return (Stage(0, {task.name: 1.0 for task in definitions.tasks}),)
    return stages_if_known(definitions.mixture, sizes, mixtures=definitions.mixtures) or ()


def _size(task: Task, data: DataConfig) -> int | None:
    if TRAIN not in task.splits:
        return 0
    if data.cache_dir is not None:
        directory = cache_directory(data.cache_dir, store_name(task), TRAIN)
        if file_size(directory / META) is not None:
            return read_info(directory).documents
    return task.num_examples if isinstance(task, ExampleTask) else None


# ---- the serialised form


def serialised_path(data: DataConfig) -> pathlib.Path:
    """Where the serialised form of the data section's mixture lies, or would lie."""
    assert data.cache_dir is not None
    return store_path(data.cache_dir) / f"{data.mixture}{SUFFIX}"


def write_serialised(mixture: ResolvedMixture) -> None:
    """Writes the mixture beside its stores, for training without the user's modules."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "mixture": mixture.name,
        "tasks": [task.to_dict() for task in mixture.tasks],
        "phases": mixture.rates(),
    }
    write_json_file(serialised_path(mixture.data), content)


def _read_serialised(data: DataConfig) -> dict:
    path = serialised_path(data)
    try:
        content = json.loads(read_file(path))
    except FileNotFoundError as error:
        names = [name for name in file_sizes(path.parent) if name.endswith(SUFFIX)]
        cached = [name.removesuffix(SUFFIX) for name in names]
        near = difflib.get_close_matches(data.mixture or "", cached, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise DataError(
            f"{path} is not there (seen from {os.getcwd()}): {data.mixture} was not cached in "
            f"{data.cache_dir}{hint}; {MAKE_IT}"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); delete it, then {MAKE_IT}") from error
    if (content.get("format"), content.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise DataError(f"{path} is not of this t5jax; delete it, then {MAKE_IT}")
    return content
