"""A `seqio.Mixture` for each mixture of t5jax: its tasks, mixtures inside opened, at its rates."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from t5jax.data.tasks.mixture import Mixture, leaf_tasks, shares, stages, stages_if_known
from t5jax.data.tasks.rates import Equal
from t5jax.data.tasks.task import ExampleTask, Task
from t5jax.data.tensorflow_import import import_seqio
from t5jax.errors import ConfigError

seqio = import_seqio()

_TRAIN = "train"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MixtureRates:
    """The rates of a mixture's tasks. `tasks` are their definitions, `nested` the mixtures inside,
    by name; `step` the training step whose rates are taken (None: they do not change)."""

    mixture: Mixture
    tasks: Mapping[str, Task]
    nested: Mapping[str, Mixture]
    step: int | None = None

    def of_known_sizes(self) -> dict[str, float] | None:
        """Rates that the published sizes decide; None where others are needed."""
        sizes = {name: _published_size(task) for name, task in self.tasks.items()}
        try:
            found = stages_if_known(self.mixture, sizes, mixtures=self.nested)
        except ConfigError:  # said when a data set is asked for: evaluation needs no rates
            return None
        if found is None or (len(found) > 1 and self.step is None):
            return None
        # Where an unknown size changes the rates, `stages_if_known` gives None.
        return self.of_sizes({name: 1 if size is None else size for name, size in sizes.items()})

    def of_sizes(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Raises ConfigError for rates that change, when no step was given."""
        changes = [step for step, _ in stages(self.mixture, sizes, mixtures=self.nested)]
        if len(changes) > 1 and self.step is None:
            raise ConfigError(
                f"mixture {self.mixture.name} has other rates from training steps "
                f"{', '.join(map(str, changes[1:]))} on, and a mixture of seqio knows no steps: "
                "register(..., step=N) of t5jax.seqio_tasks takes the rates of step N"
            )
        step = self.step or 0
        if isinstance(self.mixture.rate, Equal) and not self.nested:
            # Of tasks of evaluation too: seqio leaves out those that lack the split it reads.
            return dict.fromkeys(self.tasks, 1.0)
        if self.nested:
            found = shares(self.mixture, sizes, step=step, mixtures=self.nested)
        else:
            found = self.mixture.rate.rates(sizes, step)
        return {name: float(found.get(name, 0.0)) for name in self.tasks}


@dataclasses.dataclass(frozen=True, slots=True)
class SizedRate:
    """A seqio rate function: of one task, by the sizes of all of them when it is called.

    Raises ConfigError for a task whose number of training examples is not known.
    """

    rates: MixtureRates
    seqio_names: Mapping[str, str]  # of each task of t5jax
    task_name: str

    def __call__(self, task: Any) -> float:
        sizes = {name: self._size(name) for name in self.rates.tasks}
        return self.rates.of_sizes(sizes)[self.task_name]

    def _size(self, name: str) -> int:
        if _TRAIN not in self.rates.tasks[name].splits:
            return 0
        task = seqio.TaskRegistry.get(self.seqio_names[name])
        size = task.num_input_examples(_TRAIN)
        if size is None and task.supports_caching and task.cache_dir:
            size = task.get_cached_stats(_TRAIN)["examples"]
        if size is None:
            raise ConfigError(
                f"the rates of {self.rates.mixture.name} depend on the number of training examples "
                f"of {name}, which its source does not say: cache the task (seqio_cache_tasks), "
                "or add a mixture with a rate of its own for it"
            )
        return int(size)


def mixture_for_seqio(rates: MixtureRates, name: str, seqio_names: Mapping[str, str]) -> Any:
    """The `seqio.Mixture` under a name; its tasks are registered under `seqio_names`. No file is
    opened."""
    known = rates.of_known_sizes()
    parts = [
        (seqio_names[task], known[task] if known else SizedRate(rates, seqio_names, task))
        for task in leaf_tasks(rates.mixture, rates.nested)
    ]
    mixture = seqio.Mixture(name, parts)
    mixture.of_t5jax = True  # see TaskSource
    return mixture


def _published_size(task: Task) -> int | None:
    if _TRAIN not in task.splits:
        return 0
    return task.num_examples if isinstance(task, ExampleTask) else None
