"""Metrics over groups of examples: MultiRC's questions, ReCoRD's queries.

Targets are dicts with a `value` and the `group` the example belongs to (MultiRC: the question's
number; ReCoRD: passage and query); predictions are dicts with a `value`. Whole groups must be given
for the scores to be comparable.
"""

import functools
from collections.abc import Hashable, Sequence

import numpy as np

from t5jax.metrics.classification import binary_confusion, check_same_kind, f1
from t5jax.metrics.question_answering import best_over_answers, normalize_squad
from t5jax.metrics.sums import SumMetric, field, percentages

_target_values = functools.partial(field, key="value", what="target")
_predicted_values = functools.partial(field, key="value", what="prediction")


def groups(targets: Sequence) -> list[Hashable]:
    """The group of each example. Raises DataError for a target without one."""
    return [
        tuple(group) if isinstance(group, list) else group
        for group in field(targets, "group", "target")
    ]


def _answer_confusion(targets: Sequence, predictions: Sequence) -> np.ndarray:
    return binary_confusion(_target_values(targets), _predicted_values(predictions))


# F1 over all answers (F1a of Khashabi et al. 2018), in percent: every example counts by itself.
# The groups are the units that a confidence interval resamples.
multirc_f1 = SumMetric(names=f1.names, statistics=_answer_confusion, score=f1.score, groups=groups)


def _whole_groups(targets: Sequence, predictions: Sequence) -> np.ndarray:
    """float64 [N, 2]: (all of its group right, 1) at a group's first example, 0 at the others."""
    values, predicted = _target_values(targets), _predicted_values(predictions)
    check_same_kind(values, predicted)
    first: dict[Hashable, int] = {}
    scores_N2 = np.zeros((len(targets), 2))
    for i, group in enumerate(groups(targets)):
        if group not in first:
            first[group] = i
            scores_N2[i] = 1.0
        scores_N2[first[group], 0] *= float(values[i] == predicted[i])
    return scores_N2


# Share of the groups, in percent, of which every example is right (MultiRC: of the questions).
group_exact_match = SumMetric(
    names=("exact_match",),
    statistics=_whole_groups,
    score=percentages,
    shares=("exact_match",),
    groups=groups,
)


def _first_of_groups(targets: Sequence, predictions: Sequence) -> np.ndarray:
    """float64 [N, 3]: exact match, F1 and 1 at a group's first example, 0 at the others."""
    first = list({group: i for i, group in reversed(list(enumerate(groups(targets))))}.values())
    values, predicted = _target_values(targets), _predicted_values(predictions)
    scores_N3 = np.zeros((len(targets), 3))
    scores_N3[first] = best_over_answers(
        [values[i] for i in first], [predicted[i] for i in first], normalize=normalize_squad
    )
    return scores_N3


# "em" and "f1" in percent, the best over the answers of a query. Training repeats a query for each
# of its answers; here its first example counts and the others do not.
record = SumMetric(
    names=("em", "f1"),
    statistics=_first_of_groups,
    score=percentages,
    shares=("em",),
    groups=groups,
)
