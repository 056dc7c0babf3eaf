"""A mixture looked at before a run: the sizes of its tasks, and its rates at every stage."""

import dataclasses
import math
from collections.abc import Mapping

from t5jax.data.config import DataConfig
from t5jax.data.mixture_record import TRAIN, task_record
from t5jax.data.tasks import registry
from t5jax.data.tasks.mixtures import Mixture, Stage, stages
from t5jax.data.tasks.task import ExampleTask, Task
from t5jax.data.token_store import META, read_info

_MANY = 10**9


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
    tasks = registry.tasks_of(mixture.name, data)
    sizes = {task.name: _size(task, data) for task in tasks}
    inside = registry.mixtures_within(mixture, data)
    unknown = tuple(name for name, size in sizes.items() if size is None)
    known = {name: size for name, size in sizes.items() if size is not None}
    # Few and of different sizes, or many and alike: rates that look at sizes cannot agree.
    few = stages(mixture, known | {n: 1 + i for i, n in enumerate(unknown)}, mixtures=inside)
    many = stages(mixture, known | dict.fromkeys(unknown, _MANY), mixtures=inside)
    if not all(map(_same, few, many)):
        return MixturePreview(mixture=mixture, sizes=sizes, stages=(), missing=unknown)
    return MixturePreview(mixture=mixture, sizes=sizes, stages=few)


def _same(one: Stage, other: Stage) -> bool:
    return one.shares.keys() == other.shares.keys() and all(
        math.isclose(share, other.shares[name]) for name, share in one.shares.items()
    )


def _size(task: Task, data: DataConfig) -> int | None:
    if TRAIN not in task.splits:
        return 0
    if data.cache_dir is not None:
        directory = task_record(task).directory(data, TRAIN)
        if (directory / META).is_file():
            return read_info(directory).documents
    return task.num_examples if isinstance(task, ExampleTask) else None
