"""Which task a row of the batch comes from, as a function of the row's number.

Rates are weights of a pattern of PERIOD rows, in which every task's rows are spread as evenly as
they can be: the j-th of w rows stands at (j + 1/2) / w of the pattern. The pattern repeats for
ever, so the task of row i, and how many rows of that task came before it, are two look-ups; nothing
is counted and nothing drawn. Tasks that are too rare for a pattern of this length share one weight
in it and a pattern of their own. Rates that change with the step are phases with a pattern each.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from t5jax.errors import ConfigError

PERIOD = 1 << 20
_RARE = 128 / PERIOD  # below this share a whole number of rows is off by half a percent or more


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
        self._patterns = [pattern_of(phase.rates, self.names) for phase in phases]
        self._firsts = np.array(firsts)
        # How many rows of each task the phases before gave.
        self._before = np.zeros((len(phases), len(names)), np.int64)
        for n in range(1, len(phases)):
            length = firsts[n] - firsts[n - 1]
            self._before[n] = self._before[n - 1] + self._patterns[n - 1].counts(length)

    def __call__(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(task, number of the row within the task) of each row number; int64."""
        phases_B = np.searchsorted(self._firsts, rows_B, side="right") - 1
        tasks_B, within_B = np.empty_like(rows_B), np.empty_like(rows_B)
        for phase in np.unique(phases_B).tolist():
            here_B = phases_B == phase
            tasks, within = self._patterns[phase](rows_B[here_B] - self._firsts[phase])
            tasks_B[here_B], within_B[here_B] = tasks, self._before[phase][tasks] + within
        return tasks_B, within_B

    def shares(self, row: int) -> dict[str, float]:
        """The rates in force at a row, of sum 1, as the pattern has them."""
        phase = int(np.searchsorted(self._firsts, row, side="right")) - 1
        return dict(zip(self.names, self._patterns[phase].shares(), strict=True))

    def identity(self) -> list:
        """Whatever decides which task a row is of."""
        patterns = zip(self._firsts.tolist(), self._patterns, strict=True)
        return [[first, pattern.identity()] for first, pattern in patterns]


def rates_of_rows(
    example_rates: Mapping[str, float], examples_per_row: Mapping[str, float]
) -> tuple[float, ...]:
    """Rates at which to draw rows so that examples come at the given rates, in the mapping's order.

    A packed row counts as many examples as its task puts in a row on average.
    """
    return tuple(rate / examples_per_row[name] for name, rate in example_rates.items())


class Pattern:
    """Places 0 .. PERIOD-1 and the slot of each; a slot is a task, the last one perhaps a group."""

    def __init__(self, rates: tuple[float, ...], names: tuple[str, ...]):
        shares = np.array(rates, np.float64) / sum(rates)
        rare = np.flatnonzero((shares > 0) & (shares < _RARE))
        self._group: Pattern | None = None
        self._of_group = np.zeros(0, np.int64)
        if len(rare) > 1 and len(rare) < len(rates):
            self._of_group = rare
            own = tuple(names[task] for task in rare)
            self._group = pattern_of(tuple(shares[rare].tolist()), own)
        single = np.setdiff1d(np.arange(len(rates)), self._of_group)
        self._tasks = single  # of the slots; a group comes behind them
        slots = [*shares[single], *([shares[rare].sum()] if self._group else [])]
        labels = [names[task] for task in single] + ["the rare tasks together"]
        self._weights = _weights(slots, labels[: len(slots)])
        self._num_tasks = len(rates)
        self._slots, self._ranks = _spread(self._weights)

    def __call__(self, rows_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(task, number of the row within the task), int64, of rows counted from the pattern's
        first."""
        rounds_B, places_B = np.divmod(rows_B, PERIOD)
        slots_B = self._slots[places_B].astype(np.int64)
        within_B = rounds_B * np.array(self._weights)[slots_B] + self._ranks[places_B]
        tasks_B = np.append(self._tasks, -1)[slots_B]
        if self._group is not None:
            grouped_B = slots_B == len(self._tasks)
            tasks, within = self._group(within_B[grouped_B])
            tasks_B[grouped_B], within_B[grouped_B] = self._of_group[tasks], within
        return tasks_B, within_B

    def counts(self, length: int) -> np.ndarray:
        """int64 [tasks]: how many of the first `length` rows are of each task."""
        rounds, rest = divmod(length, PERIOD)
        begun = np.bincount(self._slots[:rest], minlength=len(self._weights))
        of_slots = rounds * np.array(self._weights) + begun
        counts = np.zeros(self._num_tasks, np.int64)
        counts[self._tasks] = of_slots[: len(self._tasks)]
        if self._group is not None:
            counts[self._of_group] = self._group.counts(int(of_slots[-1]))
        return counts

    def shares(self) -> list[float]:
        """Of each task, of sum 1."""
        shares = np.zeros(self._num_tasks)
        shares[self._tasks] = np.array(self._weights[: len(self._tasks)]) / PERIOD
        if self._group is not None:
            shares[self._of_group] = np.array(self._group.shares()) * self._weights[-1] / PERIOD
        return shares.tolist()

    def identity(self) -> list:
        """Whatever decides it."""
        group = self._group.identity() if self._group else None
        return [list(self._weights), self._of_group.tolist(), group]


@functools.lru_cache(maxsize=8)
def pattern_of(rates: tuple[float, ...], names: tuple[str, ...]) -> Pattern:
    """The pattern of rates. Raises ConfigError as `Mixing` says."""
    if not all(np.isfinite(rate) and rate >= 0 for rate in rates) or not sum(rates) > 0:
        raise ConfigError(
            f"rates {dict(zip(names, rates, strict=True))}: give finite numbers, none negative and "
            "not all 0"
        )
    return Pattern(rates, names)


def _weights(shares: Sequence[float], labels: Sequence[str]) -> tuple[int, ...]:
    """Whole numbers of sum PERIOD, in proportion to the shares (largest remainders)."""
    exact = np.array(shares, np.float64) / sum(shares) * PERIOD
    weights = np.floor(exact).astype(np.int64)
    largest = np.argsort(weights - exact, kind="stable")[: PERIOD - weights.sum()]
    weights[largest] += 1
    lost = [x for x, w, share in zip(labels, weights, shares, strict=True) if share > 0 and not w]
    if lost:
        raise ConfigError(
            f"rates: {', '.join(lost)} would get less than one row in {PERIOD}; raise the rate or "
            "leave the task out"
        )
    return tuple(weights.tolist())


def _spread(weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(slot, its rank among that slot's rows) of each place; int32 [PERIOD]."""
    slots = np.repeat(np.arange(len(weights), dtype=np.int32), weights)
    ranks = np.concatenate([np.arange(w, dtype=np.int32) for w in weights])
    times = (ranks + 0.5) / np.repeat(np.array(weights, np.float64), weights)
    order = np.argsort(times, kind="stable")
    return slots[order], ranks[order]
