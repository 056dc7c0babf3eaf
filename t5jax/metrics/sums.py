"""Metrics as functions of sums of per-example statistics, for a fast bootstrap.

Nearly every metric here first computes a few numbers for each example (a count, an F1, n-gram
matches), adds them up, and computes its values from the sums alone. With the two steps separate, a
bootstrap scores a thousand resamples without reading a text again.

Shapes: N examples, K statistics.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from t5jax.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SumMetric:
    """A metric in two steps, per-example statistics and a score of their sums; called with
    (targets, predictions) like any other.

    `statistics(targets, predictions)` returns float64 [N, K]; `score` computes the values, in the
    order of `names`, from their sum over N. `shares` are the names whose value is 100 x (right
    units) / (units). `groups(targets)` returns the unit of each example, where a unit is more than
    one example (None: each example is a unit). `of_classes`: targets are classes, so that the
    majority class is a baseline (`metrics.majority`). `caveats(targets, predictions)` are sentences
    on what the metric cannot see, for the report. `packages` are modules that must be importable.
    """

    names: tuple[str, ...]
    statistics: Callable[[Sequence, Sequence], np.ndarray]
    score: Callable[[np.ndarray], tuple[float, ...]]
    shares: tuple[str, ...] = ()
    groups: Callable[[Sequence], list[Hashable]] | None = None
    of_classes: bool = False
    caveats: Callable[[Sequence, Sequence], list[str]] | None = None
    packages: tuple[str, ...] = ()

    def __call__(self, targets: Sequence, predictions: Sequence) -> dict[str, float]:
        """{name: value}. Raises DataError for lists that are empty or of different lengths."""
        check_pairs(targets, predictions)
        return self.aggregate(self.statistics(targets, predictions))

    def values(self, sums_K: np.ndarray) -> dict[str, float]:
        """{name: value} of statistics that have been added up."""
        scores = self.score(sums_K)
        return {name: float(x) for name, x in zip(self.names, scores, strict=True)}

    def units(self, targets: Sequence, predictions: Sequence) -> list[Hashable] | None:
        """The unit of each example; None: each is one of its own."""
        return None if self.groups is None else self.groups(targets)

    def aggregate(self, statistics_MK: np.ndarray) -> dict[str, float]:
        """{name: value} of the statistics of some examples."""
        return self.values(statistics_MK.sum(axis=0))

    def notes(self, targets: Sequence, predictions: Sequence) -> list[str]:
        """What the metric cannot see of these texts; mostly nothing."""
        return [] if self.caveats is None else self.caveats(targets, predictions)


def percentages(sums_K: np.ndarray) -> tuple[float, ...]:
    """Means in percent: the columns over the last one, the count."""
    return tuple(100.0 * sums_K[:-1] / sums_K[-1])


def check_pairs(targets: Sequence, predictions: Sequence) -> None:
    """Raises DataError unless there is one prediction for each of at least one target."""
    if len(targets) != len(predictions):
        raise DataError(
            f"{len(targets)} targets but {len(predictions)} predictions: give one prediction for "
            "each target, in the same order"
        )
    if not len(targets):
        raise DataError("no examples to score: the split is empty or all its rows were left out")


def check_texts(texts: Sequence, what: str) -> None:
    """Raises DataError for the first entry that is not a string."""
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{what} {i} is {text!r}, not a string")


def references(targets: Sequence) -> list[list[str]]:
    """Each target as a list of reference texts; a string is a list of one.

    Raises DataError for a target without references, or with one that is no string.
    """
    texts_N = [[target] if isinstance(target, str) else list(target) for target in targets]
    for i, texts in enumerate(texts_N):
        if not texts:
            raise DataError(f"target {i} has no answers: there is nothing to compare with")
        check_texts(texts, f"target {i}, answer")
    return texts_N


def field(entries: Sequence, key: str, what: str) -> list[Any]:
    """The values under a key of dicts. Raises DataError naming the first entry that lacks it."""
    for i, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or key not in entry:
            raise DataError(f"{what} {i} is {entry!r}: expected a dict with {key!r}")
    return [entry[key] for entry in entries]
