"""The evaluation section of a run: what tasks are measured by, besides the loss."""

import dataclasses
from typing import Literal, get_args

from t5jax.errors import ConfigError

Ranking = Literal["never", "total", "per_token"]


@dataclasses.dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """How the answers of tasks are made and scored, in training and by `t5jax evaluate`.

    A model answers by decoding, as `decoding` says. With `ranking` it answers a task that has
    choices by the choice to which it gives most likelihood, whole or per token.
    """

    every_steps: int = 0  # in training: tasks are answered and scored; 0: never
    num_examples: int | None = None  # of each task, the first ones; None: the whole split
    batch_size: int = 32  # examples answered at a time, over all hosts
    ranking: Ranking = "never"
    confidence_level: float = 0.95
    bootstrap_samples: int = 1000  # for metrics whose interval has no formula

    def __post_init__(self) -> None:
        for name, least in (("every_steps", 0), ("batch_size", 1), ("bootstrap_samples", 100)):
            if getattr(self, name) < least:
                raise ConfigError(f"evaluation.{name} = {getattr(self, name)}: at least {least}")
        if self.num_examples is not None and self.num_examples < 1:
            raise ConfigError(f"evaluation.num_examples = {self.num_examples}: at least 1, or None")
        if self.ranking not in get_args(Ranking):
            raise ConfigError(
                f"evaluation.ranking = {self.ranking!r}: one of {', '.join(get_args(Ranking))}"
            )
        if not 0.0 < self.confidence_level < 1.0:
            raise ConfigError(
                f"evaluation.confidence_level = {self.confidence_level}: between 0 and 1"
            )
