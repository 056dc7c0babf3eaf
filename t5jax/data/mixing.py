"""Which task a row of the batch comes from, as a function of the row's number.

Rates are weights of a pattern of PERIOD rows, in which every task's rows are spread as evenly as
they can be: the j-th of w rows stands at (j + 1/2) / w of the pattern. The pattern repeats for
ever, so the task of row i, and how many rows of that task came before it, are two look-ups; nothing
is counted and nothing drawn. Rates that change with the step are phases with a pattern each.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from t5jax.errors import ConfigError

PERIOD = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """From row `first_row` on, tasks are drawn in proportion to `rates`, one each."""

    first_row: int
    rates: tuple[float, ...]


class Mixing:
    """Tasks 0 .. K-1 at the rates of the phases, the first of which begins at row 0.

    Raises ConfigError for rates that are negative, not finite, all 0, or too small for a pattern.
    """

    def __init__(self, phases: Sequence[Phase], names: Sequence[str]):
        assert phases[0].first_row == 0, phases
        firsts = [phase.first_row for phase in phases]
        if sorted(set(firsts)) != firsts:
            raise ConfigError(f"rates change at rows {firsts}: the phases must follow each other")
        self.names = tuple(names)
        self.weights = [_weights(phase.rates, self.names) for phase in phases]
        self._firsts = np.array(firsts)
        # How many rows of each task the phases before gave.
        counts = np.zeros((len(phases), len(names)), np.int64)
        for n in range(1, len(phases)):
            length = firsts[n] - firsts[n - 1]
            counts[n] = counts[n - 1] + self._counts(n - 1, length)
        self._before = counts

    def __call__(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(task, number of the row within the task) of each row number; int64."""
        phases_B = np.searchsorted(self._firsts, rows_B, side="right") - 1
        tasks_B, within_B = np.empty_like(rows_B), np.empty_like(rows_B)
        for phase in np.unique(phases_B).tolist():
            here_B = phases_B == phase
            pattern, rank = _pattern(self.weights[phase])
            rounds, places = np.divmod(rows_B[here_B] - self._firsts[phase], PERIOD)
            tasks = pattern[places].astype(np.int64)
            weights = np.array(self.weights[phase])
            tasks_B[here_B] = tasks
            within_B[here_B] = self._before[phase][tasks] + rounds * weights[tasks] + rank[places]
        return tasks_B, within_B

    def shares(self, row: int) -> dict[str, float]:
        """The rates in force at a row, of sum 1, as the pattern has them."""
        phase = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return {
            name: weight / PERIOD
            for name, weight in zip(self.names, self.weights[phase], strict=True)
        }

    def identity(self) -> list:
        """Whatever decides which task a row is of."""
        return [[int(first), w] for first, w in zip(self._firsts, self.weights, strict=True)]

    def _counts(self, phase: int, length: int) -> np.ndarray:
        rounds, rest = divmod(length, PERIOD)
        weights = self.weights[phase]
        begun = np.bincount(_pattern(weights)[0][:rest], minlength=len(weights))
        return rounds * np.array(weights) + begun


def rates_of_rows(
    example_rates: Mapping[str, float], examples_per_row: Mapping[str, float]
) -> tuple[float, ...]:
    """Rates at which to draw rows so that examples come at the given rates, in the mapping's order.

    A packed row counts as many examples as its task puts in a row on average.
    """
    return tuple(rate / examples_per_row[name] for name, rate in example_rates.items())


def _weights(rates: Sequence[float], names: Sequence[str]) -> tuple[int, ...]:
    """Whole numbers of sum PERIOD, in proportion to the rates (largest remainders)."""
    given = dict(zip(names, rates, strict=True))
    if not all(np.isfinite(rate) and rate >= 0 for rate in rates) or not sum(rates) > 0:
        raise ConfigError(f"rates {given}: give finite numbers, none negative and not all 0")
    exact = np.array(rates, np.float64) / sum(rates) * PERIOD
    weights = np.floor(exact).astype(np.int64)
    largest = np.argsort(weights - exact, kind="stable")[: PERIOD - weights.sum()]
    weights[largest] += 1
    lost = [name for name, w, rate in zip(names, weights, rates, strict=True) if rate > 0 and not w]
    if lost:
        raise ConfigError(
            f"rates {given}: {', '.join(lost)} would get less than one row in {PERIOD}; raise the "
            "rate or leave the task out"
        )
    return tuple(weights.tolist())


@functools.lru_cache(maxsize=4)
def _pattern(weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(task, its rank among that task's rows) of each place of the pattern."""
    tasks = np.repeat(np.arange(len(weights), dtype=np.int32), weights)
    ranks = np.concatenate([np.arange(w, dtype=np.int32) for w in weights])
    times = (ranks + 0.5) / np.repeat(np.array(weights, np.float64), weights)
    order = np.argsort(times, kind="stable")
    return tasks[order], ranks[order]
