"""Mixing rates: rules from the sizes of a mixture's tasks to their rates.

A rule gives non-negative rates, of which only the ratios matter. Sizes are numbers of training
examples (documents, of plain text); a task of size 0 has nothing to draw and gets rate 0 under
every rule.
"""

import bisect
import dataclasses
from collections.abc import Mapping
from typing import Protocol

from t5jax.errors import ConfigError


class Rate(Protocol):
    """A rule of rates. `step` counts training steps; most rules do not look at it."""

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> dict[str, float]:
        """A rate for each key of `sizes`, in its order. Raises ConfigError for a setting that
        cannot be applied to these tasks."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proportional:
    """Examples-proportional mixing: r = min(size * scale, maximum) ^ (1 / temperature).

    The order of scale, cap and root is seqio's `mixing_rate_num_examples`; `maximum` is K of Raffel
    et al. 2020, section 3.5.2, which takes T with K = 2**21.
    """

    maximum: float | None = None
    scale: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.maximum is not None and self.maximum <= 0:
            raise ConfigError(f"maximum={self.maximum}: give a positive cap, or None for no cap")
        if self.scale <= 0 or self.temperature <= 0:
            raise ConfigError(
                f"scale={self.scale}, temperature={self.temperature}: must be positive"
            )

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> dict[str, float]:
        return {name: self._rate(size) for name, size in sizes.items()}

    def _rate(self, size: int) -> float:
        scaled = size * self.scale
        capped = scaled if self.maximum is None else min(scaled, self.maximum)
        return capped ** (1.0 / self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Equal:
    """The same rate for every task."""

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> dict[str, float]:
        return {name: 1.0 if size else 0.0 for name, size in sizes.items()}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Custom:
    """Rates by name; tasks that are not named get those of `others`, or are an error.

    Weights that stand for sizes can be capped and tempered as `Proportional` does it to sizes:
    min(weight, maximum) ^ (1 / temperature), for those of `others` as well.
    """

    weights: Mapping[str, float]
    others: Rate | None = None
    maximum: float | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not weight >= 0:
                raise ConfigError(f"weights: {name!r} has {weight}; give 0 or more")
        Proportional(maximum=self.maximum, temperature=self.temperature)  # checks both

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> dict[str, float]:
        rest = {name: size for name, size in sizes.items() if name not in self.weights}
        if rest and self.others is None:
            raise ConfigError(f"weights: no rate for {', '.join(rest)}; name it, or set `others`")
        unknown = [name for name in self.weights if name not in sizes]
        if unknown:
            raise ConfigError(
                f"weights: {', '.join(unknown)} is not in the mixture, which has {list(sizes)}"
            )
        of_rest = self.others.rates(rest, step) if self.others else {}
        given = {
            name: (float(self.weights[name]) if size else 0.0)
            if name in self.weights
            else of_rest[name]
            for name, size in sizes.items()
        }
        ceiling = float("inf") if self.maximum is None else self.maximum
        return {name: min(x, ceiling) ** (1.0 / self.temperature) for name, x in given.items()}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LanguageAlpha:
    """p proportional to n ^ alpha: mT5's sampling of languages (Xue et al. 2021; alpha = 0.3)."""

    alpha: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.alpha <= 1.0:
            raise ConfigError(f"alpha={self.alpha}: from 0 (all alike) to 1 (by size)")

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> dict[str, float]:
        return {name: float(size) ** self.alpha if size else 0.0 for name, size in sizes.items()}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UniMax:
    """As even as possible with no task repeated more than `max_epochs` times.

    Chung et al. 2023 (umT5), algorithm 1: from the smallest to the largest, each takes an equal
    share of what is left of the budget, or all of its epochs when that is less. `budget` is what
    the run will draw, in examples as the sizes are (the paper counts characters: where documents of
    languages differ in length, give `Custom` weights made of characters).
    """

    budget: float
    max_epochs: float = 1.0

    def __post_init__(self) -> None:
        if self.budget <= 0 or self.max_epochs <= 0:
            raise ConfigError(
                f"budget={self.budget}, max_epochs={self.max_epochs}: must be positive"
            )

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> dict[str, float]:
        left, taken = float(self.budget), {}
        for done, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
            taken[name] = min(left / (len(sizes) - done), size * self.max_epochs)
            left -= taken[name]
        return {name: taken[name] for name in sizes}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scheduled:
    """One rule after another: `stages` are (first step, rule), the first from step 0."""

    stages: tuple[tuple[int, Rate], ...]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.stages]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ConfigError(
                f"stages begin at {starts}: the first must begin at 0, each later than the last"
            )

    def rates(self, sizes: Mapping[str, int], step: int = 0) -> dict[str, float]:
        return self.stages[self._index(step)][1].rates(sizes, step)

    def _index(self, step: int) -> int:
        return bisect.bisect_right([start for start, _ in self.stages], step) - 1


def changes(rate: Rate) -> set[int]:
    """The steps from which a rule gives other rates; 0 is always one of them."""
    if isinstance(rate, Scheduled):
        starts: set[int] = set()
        for i, (start, rule) in enumerate(rate.stages):
            end = rate.stages[i + 1][0] if i + 1 < len(rate.stages) else None
            inside = {s for s in changes(rule) if s > start and (end is None or s < end)}
            starts |= {start} | inside
        return starts
    if isinstance(rate, Custom) and rate.others is not None:
        return changes(rate.others)
    return {0}
