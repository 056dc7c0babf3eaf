"""A mixture of tasks: rates of its tasks, and how they change with the training step.

A mixture draws from tasks and from other mixtures; a mixture inside a mixture keeps its own ratios
and shares the rate that the outer one gives it, as in seqio.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from t5jax.data.tasks.rates import Custom, Rate, changes
from t5jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Tasks (or mixtures) by name, in order, and the rule of their rates."""

    name: str
    tasks: tuple[str, ...]
    rate: Rate
    description: str = ""

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(f"mixture {self.name}: name at least one task, and none twice")


class Stage(NamedTuple):
    """From this training step on, the share of each task; shares add up to 1."""

    from_step: int
    shares: dict[str, float]


def leaf_tasks(mixture: Mixture, mixtures: Mapping[str, Mixture]) -> tuple[str, ...]:
    """The tasks that a mixture draws from, mixtures inside it opened, each once, in order.

    Raises ConfigError for a mixture that contains itself.
    """
    return tuple(dict.fromkeys(_leaves(mixture, mixtures, ())))


def shares(
    mixture: Mixture,
    sizes: Mapping[str, int],
    *,
    step: int = 0,
    mixtures: Mapping[str, Mixture] | None = None,
) -> dict[str, float]:
    """The share of each task at a training step, in order; tasks of share 0 are left out.

    `sizes` are training examples by task. A mixture inside counts with the sum of its sizes.
    Raises ConfigError for a task without a size, and when no task is left.
    """
    known = mixtures or {}
    missing = [name for name in leaf_tasks(mixture, known) if name not in sizes]
    if missing:
        raise ConfigError(
            f"mixture {mixture.name}: the number of training examples of {', '.join(missing)} is "
            "not known; build its cache first, or give it a rate of its own"
        )
    found = _shares(mixture, sizes, step, known)
    if not found:
        raise ConfigError(
            f"mixture {mixture.name} draws nothing at step {step}: every rate is 0 or every task "
            "without training examples"
        )
    return found


def stages(
    mixture: Mixture, sizes: Mapping[str, int], *, mixtures: Mapping[str, Mixture] | None = None
) -> tuple[Stage, ...]:
    """All shares that a mixture ever has, by the step from which they hold, from step 0 on."""
    known = mixtures or {}
    return tuple(
        Stage(step, shares(mixture, sizes, step=step, mixtures=known))
        for step in sorted(_change_steps(mixture, known))
    )


def stages_if_known(
    mixture: Mixture,
    sizes: Mapping[str, int | None],
    *,
    mixtures: Mapping[str, Mixture] | None = None,
) -> tuple[Stage, ...] | None:
    """`stages` where some sizes are not known (None); None when the shares depend on those."""
    known = {name: size for name, size in sizes.items() if size is not None}
    unknown = [name for name, size in sizes.items() if size is None]
    # Few and of different sizes, or many and alike: rates that look at sizes cannot agree.
    few = stages(mixture, known | {n: 1 + i for i, n in enumerate(unknown)}, mixtures=mixtures)
    many = stages(mixture, known | dict.fromkeys(unknown, 10**9), mixtures=mixtures)
    return few if few == many else None


def leave_one_out(
    mixture: Mixture, task: str, mixtures: Mapping[str, Mixture] | None = None
) -> Mixture:
    """The mixture without one task; without the tasks of a mixture, when `task` names one.

    Raises ConfigError when there is nothing to leave out.
    """
    known = mixtures or {}
    gone = (
        leaf_tasks(known[task], known) if task in known and task not in mixture.tasks else (task,)
    )
    kept = tuple(name for name in mixture.tasks if name not in gone)
    if len(kept) == len(mixture.tasks):
        raise ConfigError(f"mixture {mixture.name} has no {task}; it has {list(mixture.tasks)}")
    rate = mixture.rate
    if isinstance(rate, Custom):
        weights = {name: weight for name, weight in rate.weights.items() if name in kept}
        rate = dataclasses.replace(rate, weights=weights)
    name = f"leave_one_out_{task}"
    return Mixture(name=name, tasks=kept, rate=rate, description=f"{mixture.name} without {task}")


def _leaves(
    mixture: Mixture, mixtures: Mapping[str, Mixture], inside: tuple[str, ...]
) -> Iterable[str]:
    if mixture.name in inside:
        raise ConfigError(f"mixture {mixture.name} contains itself: {' > '.join(inside)}")
    for name in mixture.tasks:
        if name in mixtures:
            yield from _leaves(mixtures[name], mixtures, (*inside, mixture.name))
        else:
            yield name


def _shares(
    mixture: Mixture, sizes: Mapping[str, int], step: int, mixtures: Mapping[str, Mixture]
) -> dict[str, float]:
    inner = {
        name: _shares(mixtures[name], sizes, step, mixtures)
        for name in mixture.tasks
        if name in mixtures
    }
    own_sizes = {
        name: sum(sizes[task] for task in inner[name]) if name in inner else sizes[name]
        for name in mixture.tasks
    }
    rates = mixture.rate.rates(own_sizes, step)
    total = sum(rates.values())
    found: dict[str, float] = {}
    for name, rate in rates.items():
        for task, share in inner.get(name, {name: 1.0}).items():
            if rate * share > 0:
                found[task] = found.get(task, 0.0) + rate / total * share
    return found


def _change_steps(mixture: Mixture, mixtures: Mapping[str, Mixture]) -> set[int]:
    inner = (mixtures[name] for name in mixture.tasks if name in mixtures)
    return changes(mixture.rate).union(*(_change_steps(one, mixtures) for one in inner))
