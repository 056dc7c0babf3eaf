"""Mixtures of tasks, and those of the T5 paper under the names of T5's registry.

A mixture draws from tasks and from other mixtures; a mixture inside a mixture keeps its own ratios
and shares the rate that the outer one gives it, as in seqio.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from t5jax.data.tasks import glue, superglue
from t5jax.data.tasks.rates import Custom, Equal, Proportional, Rate, changes
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
    known = MIXTURES if mixtures is None else mixtures
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
    known = MIXTURES if mixtures is None else mixtures
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
    known = MIXTURES if mixtures is None else mixtures
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


# The mixtures of the T5 paper. Their weights are T5's: numbers of examples, fixed, whatever part of
# a data set is at hand.

UNSUPERVISED = "c4_v020_unsupervised"
# T5's `rate_unsupervised`; the released models took 710k (Small) to 133M (11B).
UNSUPERVISED_RATE = 1e6

_SIZES = {task.name: task.num_examples or 0 for task in (*glue.TASKS, *superglue.TASKS)}


def _weights(names: Iterable[str]) -> dict[str, float]:
    return {name: float(_SIZES[name]) for name in names}


# WNLI is left out: WSC and DPR stand for it.
_GLUE = tuple(task.name for task in glue.TASKS if "wnli" not in task.name)
_SUPERGLUE = tuple(task.name for task in superglue.TASKS if "_1_sentinel" not in task.name)
_SENTINELS = tuple(task.name for task in superglue.TASKS if "_1_sentinel" in task.name)
_ONE_OF_A_KIND = (
    "cnn_dailymail_v002",
    "squad_v010_allanswers",
    "wmt_t2t_ende_v003",
    "wmt15_enfr_v003",
    "wmt16_enro_v003",
)
_SUPERVISED = (*_GLUE, *_SUPERGLUE, *_ONE_OF_A_KIND)
_LARGE_TRANSLATION = ("wmt_t2t_ende_v003", "wmt15_enfr_v003")
_LARGE_SUPERVISED = (*_LARGE_TRANSLATION, "cnn_dailymail_v002")
_WSC_DPR = (
    "dpr_v001_simple",
    "super_glue_wsc_v102_simple_train",
    "super_glue_wsc_v102_simple_eval",
)
# RTE is in GLUE and in SuperGLUE: where both are mixed each counts half.
_HALF = {name: 0.5 for name in (*_GLUE, *_SUPERGLUE) if "rte" in name}
_DEDUPLICATED = {
    name: weight * _HALF.get(name, 1.0) for name, weight in _weights((*_GLUE, *_SUPERGLUE)).items()
}

_ALL_PROPORTIONAL = Mixture(
    name="all_proportional",
    tasks=(*_SUPERVISED, UNSUPERVISED),
    rate=Custom(weights=_DEDUPLICATED, others=Proportional()),
    description="all of T5's tasks by size",
)


def _capped(exponent: int, temperature: float = 1.0) -> Mixture:
    """Of the paper's table 11: K = 2^exponent, and the temperatures with K = 2^21."""
    assert isinstance(_ALL_PROPORTIONAL.rate, Custom)
    rate = dataclasses.replace(
        _ALL_PROPORTIONAL.rate, maximum=2.0**exponent, temperature=temperature
    )
    tempered = temperature != 1.0
    name = f"all_temperature_{temperature:g}" if tempered else f"all_proportional_k{exponent}"
    what = f"all of T5's tasks by size, K = 2^{exponent}"
    if tempered:
        what += f", T = {temperature:g}"
    return dataclasses.replace(_ALL_PROPORTIONAL, name=name, rate=rate, description=what)


def _left_out(task: str, mixtures: Mapping[str, Mixture]) -> Mixture:
    """Without GLUE or SuperGLUE there is one RTE left, which counts whole."""
    left = leave_one_out(_ALL_PROPORTIONAL, task, mixtures)
    if task not in mixtures:
        return left
    weights = _weights(name for name in left.tasks if name in _DEDUPLICATED)
    return dataclasses.replace(left, rate=Custom(weights=weights, others=Proportional()))


def _paper_mixtures() -> tuple[Mixture, ...]:
    benchmarks = (
        Mixture(
            name="glue_v002_proportional",
            tasks=_GLUE,
            rate=Custom(weights=_weights(_GLUE)),
            description="GLUE by the sizes of its training sets",
        ),
        Mixture(
            name="super_glue_v102_proportional",
            tasks=_SUPERGLUE,
            rate=Custom(weights=_weights(_SUPERGLUE)),
            description="SuperGLUE and DPR by the sizes of their training sets",
        ),
    )
    by_name = {mixture.name: mixture for mixture in benchmarks}
    parts = (*by_name, *_ONE_OF_A_KIND)
    return (
        *benchmarks,
        *_SMALL,
        _ALL_PROPORTIONAL,
        *(_capped(exponent) for exponent in range(16, 22)),
        *(_capped(21, temperature) for temperature in (2.0, 4.0, 8.0)),
        *(_left_out(part, by_name) for part in parts),
    )


_SMALL = (
    Mixture(
        name="super_glue_v102_proportional_sentinel",
        tasks=_SENTINELS,
        rate=Custom(weights=_weights(_SENTINELS)),
        description="super_glue_v102_proportional with answers that fill a sentinel",
    ),
    Mixture(
        name="glue_mnli_and_dev_v002",
        tasks=tuple(name for name in _GLUE if "mnli" in name),
        rate=Equal(),
        description="MNLI with its two validation sets",
    ),
    Mixture(
        name="en_mix",
        tasks=(UNSUPERVISED, *_GLUE, *_SUPERGLUE, "squad_v010_allanswers"),
        rate=Custom(weights={UNSUPERVISED: UNSUPERVISED_RATE}, others=Proportional()),
        description="C4, GLUE, SuperGLUE and SQuAD by size",
    ),
    Mixture(
        name="all_equal",
        tasks=(*_SUPERVISED, UNSUPERVISED),
        rate=Equal(),
        description="all of T5's tasks alike",
    ),
    Mixture(
        name="all_mix",
        tasks=(UNSUPERVISED, *_SUPERVISED),
        rate=Custom(
            weights={UNSUPERVISED: UNSUPERVISED_RATE, **_DEDUPLICATED}, others=Proportional()
        ),
        description="all_proportional with a fixed rate for C4",
    ),
    Mixture(
        name="large_supervised_equal",
        tasks=_LARGE_SUPERVISED,
        rate=Equal(),
        description="the large supervised tasks alike",
    ),
    Mixture(
        name="large_supervised_proportional",
        tasks=_LARGE_SUPERVISED,
        rate=Proportional(),
        description="the large supervised tasks by size",
    ),
    Mixture(
        name="large_translation_equal",
        tasks=_LARGE_TRANSLATION,
        rate=Equal(),
        description="the large translation tasks alike",
    ),
    Mixture(
        name="squad_trivia_qa_equal",
        tasks=("squad_v010_allanswers", "trivia_qa_v010"),
        rate=Equal(),
        description="SQuAD and TriviaQA alike",
    ),
    Mixture(
        name="wsc_dpr_simple_proportional",
        tasks=_WSC_DPR,
        rate=Custom(weights=_weights(_WSC_DPR)),
        description="WSC and DPR by size",
    ),
)

MIXTURES: dict[str, Mixture] = {mixture.name: mixture for mixture in _paper_mixtures()}
