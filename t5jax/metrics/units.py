"""The protocol of a metric that has confidence intervals: statistics of units, and their values.

A unit is what another test set would draw again as a whole: a document, a row, a question with all
its answers. Only the metric knows its units, so only a metric that declares them is resampled; any
other callable is called once, on everything, in the order of the data set.

Shapes: N examples, M examples of units that were drawn (repetitions included), K statistics.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

# (targets, predictions) -> {name: value}, lists of one entry per example.
Metric = Callable[[Sequence, Sequence], Mapping[str, float]]


@runtime_checkable
class UnitMetric(Protocol):
    """A metric as a function of per-example statistics, with the unit of each example.

    `aggregate(statistics(targets, predictions))` are the values of a call. `notes` has sentences
    for the report, such as references that the metric cannot see; mostly none.
    """

    def __call__(self, targets: Sequence, predictions: Sequence) -> Mapping[str, float]: ...

    def units(self, targets: Sequence, predictions: Sequence) -> Sequence[Hashable] | None:
        """The unit of each example; None: each is one of its own."""
        ...

    def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
        """float64 [N, K]."""
        ...

    def aggregate(self, statistics_MK: np.ndarray) -> Mapping[str, float]:
        """{name: value} of the examples of some units; NaN where a value is not defined.

        A unit that is drawn twice is there twice: rows must not be merged by a key.
        """
        ...

    def notes(self, targets: Sequence, predictions: Sequence) -> list[str]: ...
