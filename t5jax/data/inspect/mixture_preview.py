"""A mixture looked at before a run: the sizes of its tasks, and its rates at every stage."""

import dataclasses
from collections.abc import Mapping

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.registry.mixture_record import TRAIN, published_size, task_record
from t5jax.data.store.reader import META, read_info
from t5jax.data.tasks.mixture import Mixture, Stage, stages_if_known
from t5jax.data.tasks.task import Task


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MixturePreview:
    """`sizes` are training examples (documents, of plain text) of each task: of its store where
    there is one, else of the published data; None where neither is known. `stages` are the shares
    of the examples; () where they depend on sizes that are not known, those of `missing`."""

    mixture: Mixture
    sizes: Mapping[str, int | None]
    stages: tuple[Stage, ...]
    missing: tuple[str, ...] = ()


def preview_mixture(mixture: Mixture, data: DataConfig) -> MixturePreview:
    """Sizes and rates of a mixture, nested ones opened.

    Raises ConfigError for a task that is not registered and for rates that cannot be.
    """
    sizes = {task.name: _size(task, data) for task in registry.tasks_of(mixture.name, data)}
    found = stages_if_known(mixture, sizes, mixtures=registry.mixtures_within(mixture, data))
    if found is None:
        unknown = tuple(name for name, size in sizes.items() if size is None)
        return MixturePreview(mixture=mixture, sizes=sizes, stages=(), missing=unknown)
    return MixturePreview(mixture=mixture, sizes=sizes, stages=found)


def _size(task: Task, data: DataConfig) -> int | None:
    if data.cache_dir is not None and TRAIN in task.splits:
        directory = task_record(task).directory(data, TRAIN)
        if (directory / META).is_file():
            return read_info(directory).documents
    return published_size(task)
