"""Mixtures of the T5 paper (Raffel et al. 2020, section 3.5), by the names of T5's registry."""

import dataclasses
from collections.abc import Iterable, Mapping

from t5jax.data.benchmarks import glue, superglue
from t5jax.data.tasks.mixture import Mixture, leave_one_out
from t5jax.data.tasks.rates import Custom, Equal, Proportional

# Weights are T5's: numbers of examples, fixed, whatever part of a data set is at hand.

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
