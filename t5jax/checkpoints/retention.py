"""Retention policies: which checkpoints are kept, the newest, every so many steps, named ones, and
the best."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from t5jax.errors import ConfigError


@dataclasses.dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """How often to save and what to keep: the newest, every so many steps, named ones, and the
    best."""

    save_every_steps: int = 1000
    save_every_minutes: float | None = None  # besides, when so much time has passed since a save
    keep_newest: int = 3
    keep_every_steps: int | None = None
    keep_steps: tuple[int, ...] = ()  # saved, and never deleted
    keep_best: int = 0
    best_metric: str = "validation/loss"
    best_mode: Literal["min", "max"] = "min"

    def __post_init__(self):
        for name, least in (("save_every_steps", 1), ("keep_newest", 1), ("keep_best", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"checkpoints.{name}={getattr(self, name)}: must be at least {least}"
                )
        if self.best_mode not in ("min", "max"):
            raise ConfigError(f"checkpoints.best_mode={self.best_mode!r}: must be 'min' or 'max'")
        minutes = self.save_every_minutes
        if minutes is not None and not minutes > 0:
            raise ConfigError(
                f"checkpoints.save_every_minutes={minutes}: must be more than 0, or None"
            )
        if any(step < 0 for step in self.keep_steps):
            raise ConfigError(f"checkpoints.keep_steps={self.keep_steps}: must be 0 or more")
        every = self.keep_every_steps
        if every is not None and (every < 1 or every % self.save_every_steps):
            raise ConfigError(
                f"checkpoints.keep_every_steps={every}: must be a multiple of "
                f"checkpoints.save_every_steps={self.save_every_steps}, else steps to keep are "
                "never saved"
            )


def score(config: CheckpointConfig, metrics: Mapping[str, float]) -> float:
    """A step's value of `best_metric`, higher is better; NaN for a step without it."""
    value = metrics.get(config.best_metric, math.nan)
    return value if config.best_mode == "max" else -value


@dataclasses.dataclass
class Retention:
    """Keeps a step if any of the config's rules does; a policy of Orbax, whose own BestN keeps any
    step while there are few, and cannot rank NaN."""

    config: CheckpointConfig
    scores: dict[int, float]  # by step; higher is better, NaN where there is none; grows

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Those of `steps`, oldest first, that are not deleted."""
        every, number = self.config.keep_every_steps, self.config.keep_best
        kept = set(steps[-self.config.keep_newest :]) | set(self.config.keep_steps).intersection(
            steps
        )
        if every is not None:
            kept |= {step for step in steps if step % every == 0}
        if number:
            known = [step for step in steps if not math.isnan(self.scores.get(step, math.nan))]
            kept |= set(sorted(known, key=lambda step: (self.scores[step], step))[-number:])
        return kept

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.kept(steps)
        return [step in kept for step in steps]
