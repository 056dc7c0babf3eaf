"""Pearson and Spearman correlation, in percent (STS-B).

Where a correlation is not defined (a constant side, fewer than two examples, a value that is not
finite) it is NaN, as in SciPy and T5. Shapes: N examples, M of them drawn again.
"""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from t5jax.errors import DataError
from t5jax.metrics.sums import check_pairs


@dataclasses.dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation of numbers by SciPy's function of a name; its unit is the pair.

    Called with (targets, predictions) it returns {name: 100 r}, NaN where r is not defined; raises
    DataError for lists that are empty or of different lengths, and for text.
    """

    name: str
    function: str  # of scipy.stats

    @property
    def __name__(self) -> str:  # it was a function
        return self.name

    @property
    def names(self) -> tuple[str, ...]:
        """The one value's name."""
        return (self.name,)

    def __call__(self, targets: Sequence, predictions: Sequence) -> dict[str, float]:
        check_pairs(targets, predictions)
        return self.aggregate(self.statistics(targets, predictions))

    def units(self, targets: Sequence, predictions: Sequence) -> None:
        """Every pair is one."""

    def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
        """float64 [N, 2]: the pairs themselves."""
        return np.stack([_numbers(targets, "target"), _numbers(predictions, "prediction")], axis=1)

    def aggregate(self, statistics_MK: np.ndarray) -> dict[str, float]:
        """{name: 100 r} of some pairs."""
        import scipy.stats

        if len(statistics_MK) < 2 or not np.isfinite(statistics_MK).all():
            return {self.name: float("nan")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of constant values, whose correlation is NaN
            r = getattr(scipy.stats, self.function)(*statistics_MK.T)[0]
        return {self.name: 100.0 * float(r)}

    def notes(self, targets: Sequence, predictions: Sequence) -> list[str]:
        """None."""
        return []


pearson_corrcoef = Correlation("pearson_corrcoef", "pearsonr")
spearman_corrcoef = Correlation("spearman_corrcoef", "spearmanr")  # ties by mean rank


def _numbers(values: Sequence, what: str) -> np.ndarray:
    for i, value in enumerate(values):
        if isinstance(value, str):
            raise DataError(f"{what} {i} is the text {value!r}: postprocess must return a number")
    return np.asarray(values, np.float64)
